"""The alert that ingest raises by itself: too many dead letters pause it until a person decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

import xxhash

from freshet.stream.schemas import Alert, AlertData

INGEST_TYPE: Final = "io.freshet.ingest"
SOURCE: Final = "/freshet/ingest"
PAUSED: Final = "paused"


def paused_alert(
    state: Literal["firing", "resolved"],
    subject: str,
    description: str,
    *,
    starts_at_ms: int,
    at_ms: int,
) -> Alert:
    """Ingest is paused, or goes on.

    Args:
        state: firing or resolved.
        subject: What it is about: the consumer group's prefix.
        description: Why, and what a person can do.
        starts_at_ms: Since when.
        at_ms: Now.

    >>> paused_alert("firing", "freshet", "why", starts_at_ms=0, at_ms=0).time
    '1970-01-01T00:00:00.000Z'
    """
    fingerprint = xxhash.xxh3_64_hexdigest("\x1f".join((INGEST_TYPE, subject, PAUSED)).encode())
    data = AlertData(
        state=state,
        severity="critical",
        title="Ingest is paused by too many dead letters",
        description=description,
        starts_at_ms=starts_at_ms,
        updated_at_ms=at_ms,
        labels={"type": INGEST_TYPE, "subject": subject, "kind": PAUSED},
        ends_at_ms=at_ms if state == "resolved" else None,
    )
    identity = xxhash.xxh3_64_hexdigest(f"{fingerprint}\x1f{state}\x1f{at_ms}".encode())
    time = (
        datetime.fromtimestamp(at_ms / 1_000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
    return Alert(
        id=identity, source=SOURCE, type=INGEST_TYPE, subject=fingerprint, time=time, data=data
    )
