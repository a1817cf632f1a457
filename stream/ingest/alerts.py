"""The alerts that ingest raises by itself."""

from __future__ import annotations

from typing import Final, Literal

import xxhash

from freshet.stream.codec import rfc3339
from freshet.stream.schemas import Alert, AlertData

INGEST_TYPE: Final = "io.freshet.ingest"
SOURCE: Final = "/freshet/ingest"

State = Literal["firing", "resolved"]


def ingest_alert(
    state: State,
    subject: str,
    *,
    kind: str,
    severity: Literal["warning", "critical"],
    title: str,
    description: str,
    starts_at_ms: int,
    at_ms: int,
) -> Alert:
    """What is said on the alerts topic.

    Args:
        state: firing or resolved.
        subject: What it is about.
        kind: Which of ingest's alerts.
        severity: Who must act, and when.
        title: In a few words.
        description: Why, and what a person can do.
        starts_at_ms: Since when.
        at_ms: Now.
    """
    fingerprint = _hash(INGEST_TYPE, subject, kind)
    data = AlertData(
        state=state,
        severity=severity,
        title=title,
        description=description,
        starts_at_ms=starts_at_ms,
        updated_at_ms=at_ms,
        labels={"type": INGEST_TYPE, "subject": subject, "kind": kind},
        ends_at_ms=at_ms if state == "resolved" else None,
    )
    return Alert(
        id=_hash(fingerprint, state, str(at_ms)),
        source=SOURCE,
        type=INGEST_TYPE,
        subject=fingerprint,
        time=rfc3339(at_ms),
        data=data,
    )


def _hash(*parts: str) -> str:
    return xxhash.xxh3_64_hexdigest("\x1f".join(parts).encode())
