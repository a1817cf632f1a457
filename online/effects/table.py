"""Shared effects as of any cutoff: what was known of them then, whoever asks and when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import current_key, effects_of
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.errors import EventError
from freshet.stream.schemas import EffectsRecord
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.telemetry import get_logger

MAX_KEPT = 10_000  # ten times what one shop needs of hours and days

log = get_logger(__name__)


class Known(NamedTuple):
    """Effects that were published, and as of when: nothing from later was looked at."""

    sha256: str
    as_of_ms: int
    shared: SharedEffects


class _Kept(NamedTuple):
    """A record whose bytes have this sha256."""

    sha256: str
    record: EffectsRecord


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
        self._kept: dict[str, _Kept] = {}
        # By sha256; None where it can be applied to no window. Made when asked for, which costs 30
        # ms, since a worker needs few of the thousand that it reads at its start.
        self._made: dict[str, Known | None] = {}

    def take(self, key: bytes | None, value: bytes | None, **place: object) -> None:
        """Take in one record, or forget the one under its key; a bad one changes nothing.

        `place` says in the log where it was.
        """
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            gone = self._kept.pop(name, None)
            if gone is not None:
                self._made.pop(gone.sha256, None)
            return
        try:
            kept = _read(name, value, self._latest_ms())
            if name not in self._kept and len(self._kept) >= MAX_KEPT:
                raise EventError(f"there are {MAX_KEPT} others")
        except EventError as error:
            self._refuse(error, name, **place)
        else:
            self._kept[name] = kept

    def at(self, resolution_ms: int, cutoff_ms: int) -> Known | None:
        """The newest that looked at nothing after the cutoff; None where there is none."""
        fitting = self._fitting(resolution_ms)
        before = [kept for kept in fitting if kept.record.as_of_ms <= cutoff_ms]
        return self._first_usable(reversed(before))

    def at_or_after(self, resolution_ms: int, cutoff_ms: int) -> Known | None:
        """The same; from before the first that there is, that one."""
        known = self.at(resolution_ms, cutoff_ms)
        return known or self._first_usable(self._fitting(resolution_ms))

    def named(self, sha256: str) -> Known | None:
        """The one that a forecast names; None where it was forgotten."""
        return self._first_usable(kept for kept in self._kept.values() if kept.sha256 == sha256)

    def keys(self) -> dict[str, EffectsRecord]:
        """The record under every key, usable or not."""
        return {key: kept.record for key, kept in self._kept.items()}

    def _fitting(self, resolution_ms: int) -> list[_Kept]:
        """Those for our windows, oldest first; of two of one time everybody has the same order."""
        found = [
            kept
            for kept in self._kept.values()
            if kept.record.resolution_ms == resolution_ms
            and kept.record.country == self._country
            and tuple(kept.record.known_names) == self._known_names
        ]
        return sorted(found, key=lambda kept: (kept.record.as_of_ms, kept.sha256))

    def _first_usable(self, some: Iterable[_Kept]) -> Known | None:
        for kept in some:
            if kept.sha256 not in self._made:
                self._made[kept.sha256] = self._make(kept)
            known = self._made[kept.sha256]
            if known is not None:
                return known
        return None

    def _make(self, kept: _Kept) -> Known | None:
        try:
            shared = effects_of(kept.record)
        except EventError as error:
            self._refuse(error, kept.sha256)
            return None
        return Known(kept.sha256, kept.record.as_of_ms, shared)

    def _refuse(self, error: EventError, key: str, **place: object) -> None:
        self._refused()
        log.warning("effects_not_read", error=str(error), key=key[:100], **place)


def _read(key: str, value: bytes, latest_ms: int) -> _Kept:
    """A record whose key says what it is.

    Raises:
        EventError: It does not, or there is no such record.
    """
    record = decode(EffectsRecord, value, latest_ms=latest_ms)
    sha256 = hashlib.sha256(value).hexdigest()
    if key not in (sha256, current_key(record.resolution_ms)):
        raise EventError(f"the sha256 of the value is {sha256}, which the key does not say")
    return _Kept(sha256, record)
