"""How others learn what a source does: its plan file, and a line in the log when it must wait."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from freshet.stream.source.pump import Progress
from freshet.stream.telemetry import get_logger

WRITE_EVERY_S = 0.5
COMPLAIN_EVERY_S = 10.0

log = get_logger(__name__)


class PlanFile:
    """A small JSON file that says what a source plans and how far it is.

    It is replaced whole, at most twice a second and at once when the phase changes; a reader never
    sees a part of it.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], produced: Mapping[str, int]) -> None:
        self._path = path
        self._plan = plan
        self._produced = produced
        self._phase = ""
        self._written_s = 0.0

    def update(self, progress: Progress) -> None:
        """Write if there is news."""
        now_s = time.monotonic()
        written_just_now = now_s - self._written_s < WRITE_EVERY_S
        if progress.phase == self._phase and written_just_now:
            return
        self._phase = progress.phase
        self._written_s = now_s
        state = {
            **self._plan,
            "phase": progress.phase,
            "backfill_done": progress.history_folded,
            "waiting_for_ingest": progress.waiting,
            "sent_ms": progress.sent_ms,
            "produced": dict(self._produced),
        }
        part = self._path.with_name(self._path.name + ".part")
        part.write_bytes(msgspec.json.encode(state))
        os.replace(part, self._path)


class Complaint:
    """Says in the log, now and then, that ingest keeps the source waiting."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def update(self, progress: Progress) -> None:
        """Complain if the source has waited for long since it last did."""
        now_s = time.monotonic()
        if not progress.waiting:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= COMPLAIN_EVERY_S:
            self._since_s = now_s
            log.warning(
                "waiting_for_ingest", sent_ms=progress.sent_ms, hint="is `freshet ingest` running?"
            )
