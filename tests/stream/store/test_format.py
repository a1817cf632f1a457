"""Windows of another version's format are refused as something to wait for."""

from __future__ import annotations

import pytest

from freshet.stream.config import Settings
from freshet.stream.errors import OtherFormatError
from freshet.stream.fold.headers import fingerprint
from freshet.stream.store.format import check_format, format_of
from freshet.stream.store.layout import WINDOWS_FORMAT
from freshet.stream.store.versions import FORMAT, VersionHeader
from freshet.stream.store.versions import check_format as check_versions


def test_what_this_version_writes_it_reads() -> None:
    ours = fingerprint("orders", Settings())
    assert format_of(ours) == WINDOWS_FORMAT
    check_format(ours, 0)
    check_format("", 0)
    check_versions("t", VersionHeader())
    check_versions("t", VersionHeader(fingerprint=FORMAT))


@pytest.mark.parametrize("other", [WINDOWS_FORMAT - 1, WINDOWS_FORMAT + 1])
def test_what_another_version_wrote_is_waited_for_with_the_way_out(other: int) -> None:
    theirs = fingerprint("orders", Settings()).replace(
        f'"format":{WINDOWS_FORMAT}', f'"format":{other}'
    )
    with pytest.raises(
        OtherFormatError, match=f"format {other}, .* reads {WINDOWS_FORMAT}"
    ) as told:
        check_format(theirs, 4)
    assert told.value.retriable and "--into 5`" in told.value.hint
    with pytest.raises(OtherFormatError, match="versions of t in Redis have format versions:9"):
        check_versions("t", VersionHeader(fingerprint="versions:9"))
