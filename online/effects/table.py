"""Shared effects as of any cutoff: what was known of them then, whoever asks and when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import current_key, effects_of
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.errors import EventError
from freshet.stream.schemas import EffectsRecord
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class Known(NamedTuple):
    """Effects that were published, and as of when: nothing from later was looked at."""

    sha256: str
    as_of_ms: int
    shared: SharedEffects


class EffectsTable:
    """What lies on the topic of effects; the newest record of a key counts.

    Records of other columns or of another country are kept, but nobody is given them.

    Args:
        country: Whose holidays the shop's calendar knows; None: nobody's.
        known_names: The known columns of windows.
        latest_ms: When a record may say that something happened at the latest.
        refused: Told of each record that cannot be used.
    """

    def __init__(
        self,
        country: str | None = None,
        known_names: tuple[str, ...] = NAMED_SLOTS,
        *,
        latest_ms: Callable[[], int] = lambda: MAX_TIME_MS,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._country = country
        self._known_names = known_names
        self._latest_ms = latest_ms
        self._refused = refused
        # By key, since a tombstone names one; the newest record lies under two.
        self._kept: dict[str, tuple[EffectsRecord, Known]] = {}

    def take(self, key: bytes | None, value: bytes | None, **place: object) -> None:
        """Take in one record, or forget the one under its key; a bad one changes nothing.

        `place` says in the log where it was.
        """
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            self._kept.pop(name, None)
            return
        try:
            self._kept[name] = _read(name, value, self._latest_ms())
        except EventError as error:
            self._refused()
            log.warning("effects_not_read", error=str(error), key=name[:100], **place)

    def at(self, resolution_ms: int, cutoff_ms: int) -> Known | None:
        """The newest that looked at nothing after the cutoff; None where there is none."""
        known = [one for one in self._usable(resolution_ms) if one.as_of_ms <= cutoff_ms]
        return max(known, key=_age, default=None)

    def at_or_after(self, resolution_ms: int, cutoff_ms: int) -> Known | None:
        """The same; from before the first that there is, that one."""
        known = self._usable(resolution_ms)
        return self.at(resolution_ms, cutoff_ms) or min(known, key=_age, default=None)

    def named(self, sha256: str) -> Known | None:
        """The one that a forecast names; None where it was forgotten."""
        found = [known for _, known in self._kept.values() if known.sha256 == sha256]
        return found[0] if found else None

    def keys(self) -> dict[str, EffectsRecord]:
        """The record under every key, usable or not."""
        return {key: record for key, (record, _) in self._kept.items()}

    def _usable(self, resolution_ms: int) -> list[Known]:
        return [
            known
            for record, known in self._kept.values()
            if record.resolution_ms == resolution_ms
            and record.country == self._country
            and known.shared.known_names == self._known_names
        ]


def _read(key: str, value: bytes, latest_ms: int) -> tuple[EffectsRecord, Known]:
    """A record whose key says what it is.

    Raises:
        EventError: It does not, or there is no such record.
    """
    record = decode(EffectsRecord, value, latest_ms=latest_ms)
    sha256 = hashlib.sha256(value).hexdigest()
    if key not in (sha256, current_key(record.resolution_ms)):
        raise EventError(f"the sha256 of the value is {sha256}, which the key does not say")
    return record, Known(sha256, record.as_of_ms, effects_of(record))


def _age(known: Known) -> tuple[int, str]:
    """By time; of two of one time everybody takes the same."""
    return known.as_of_ms, known.sha256
