"""Whether what Redis holds is of the format of this version, or another one's, which is waited for.

A rolling upgrade runs both versions at once. Neither may read what it does not understand, and
neither may end: it would be started again, and end again.
"""

from __future__ import annotations

import json
from functools import lru_cache

from freshet.stream.errors import OtherFormatError
from freshet.stream.store.layout import WINDOWS_FORMAT


@lru_cache(maxsize=64)
def format_of(fingerprint: str) -> int | None:
    """The format that a header's fingerprint names; None: it names none.

    >>> format_of('{"format":3,"kind":"orders"}'), format_of("")
    (3, None)
    """
    said = json.loads(fingerprint) if fingerprint else {}
    return said.get("format") if isinstance(said, dict) else None


def check_format(fingerprint: str, generation: int) -> None:
    """Whether windows with that fingerprint may be read.

    Raises:
        OtherFormatError: Another version of freshet wrote them.
    """
    found = format_of(fingerprint)
    if found is not None and found != WINDOWS_FORMAT:
        raise other_format("windows", found, WINDOWS_FORMAT, generation)


def other_format(what: str, found: object, ours: object, generation: int) -> OtherFormatError:
    """The error of whoever meets another version's format."""
    return OtherFormatError(
        f"the {what} in Redis have format {found}, and this version of freshet reads {ours}",
        hint="it waits: windows of its format come by `freshet ingest --from-beginning --into "
        f"{generation + 1}` of the same version, or run the version that wrote these",
    )
