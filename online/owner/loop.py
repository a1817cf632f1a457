"""The owner of shared effects: wait for a midnight, estimate, publish; seldom, and never twice.

Durable effects of a turn, together: a record under its sha256, the same under the resolution's
pointer, and tombstones of what nobody needs any more. A crash before leaves nothing, and the next
owner estimates again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from freshet.online.effects.record import SECONDS_HEADER, current_key, encoded
from freshet.online.effects.table import EffectsTable
from freshet.online.owner.estimate import Span
from freshet.online.owner.schedule import due_ms, owned, stale_ms
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.kafka import Outgoing, Writes
from freshet.stream.read.heads import states_of
from freshet.stream.read.progress import Input, InputState, ReadRules
from freshet.stream.schemas import EffectsRecord
from freshet.stream.store.layout import Header
from freshet.stream.telemetry import get_logger

# Of the time that passes, estimates may take a tenth; what they left of a while may be taken at
# once, so that a shop that loads history need not wait for each of a few midnights.
SHARE = 0.1
SAVED_S = 120.0

log = get_logger(__name__)


class Estimates(Protocol):
    """Finds what the items of a resolution do alike."""

    def estimate(
        self,
        served: ServedResolution,
        span: Span,
        *,
        max_items: int,
        side_offsets: Mapping[str, int],
    ) -> EffectsRecord:
        """See `Estimator`."""


class Side(Protocol):
    """Keeps the shop's tables."""

    def poll(self) -> int:
        """Take in what is new."""

    @property
    def caught_up(self) -> bool:
        """Whether all of it is known."""

    def offsets(self) -> dict[str, int]:
        """How far."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an owner is made of."""

    heads: Callable[[], dict[Input, Header]]
    side: Side
    estimates: Estimates
    table: EffectsTable
    writes: Writes
    holds: Callable[[], bool]
    """Whether the lease is ours at this moment."""
    now_s: Callable[[], float] = time.monotonic


class Owner:
    """Decides when, has it estimated, and publishes.

    Args:
        settings: All of them.
        parts: What it works with.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._parts = parts
        self._topic = settings.kafka.topics.effects
        self._served = owned(settings.served)
        self._rules = {
            one.resolution_ms: ReadRules.of(settings, one.resolution_ms) for one in self._served
        }
        self._saved_s, self._saved_at_s = SAVED_S, parts.now_s()
        self._due_before: dict[int, int | None] = {}

    def turn(self) -> bool:
        """Estimate what is most urgently due, if anything; whether something was published.

        Raises:
            FencedError: Another process owns the effects.
            StoreUnavailableError, BrokerError: A server is away; the next turn tries again.
        """
        self._parts.side.poll()
        heads = self._parts.heads()
        inputs = states_of(heads)
        due = {one.resolution_ms: self._due(one, inputs) for one in self._served}
        before, self._due_before = self._due_before, due
        for served in self._served:
            as_of_ms = due[served.resolution_ms]
            # While a log is caught up with, midnights pass by the dozen, and none of them matters.
            settled = as_of_ms == before.get(served.resolution_ms)
            if as_of_ms is not None and settled and self._parts.side.caught_up:
                self._own(served, as_of_ms, heads, inputs)
                return True
        return False

    def _due(self, served: ServedResolution, inputs: Mapping[Input, InputState]) -> int | None:
        newest_ms = self._newest_ms(served.resolution_ms)
        if newest_ms is not None and self._may_take_s() <= 0.0:
            return None
        return due_ms(inputs, self._rules[served.resolution_ms], newest_ms)

    def _may_take_s(self) -> float:
        """Seconds that estimates have left of their share of the time that passed."""
        now_s = self._parts.now_s()
        self._saved_s = min(self._saved_s + SHARE * (now_s - self._saved_at_s), SAVED_S)
        self._saved_at_s = now_s
        return self._saved_s

    def _newest_ms(self, resolution_ms: int) -> int | None:
        newest = self._parts.table.at(resolution_ms, 2**63)
        return None if newest is None else newest.as_of_ms

    def _own(
        self,
        served: ServedResolution,
        as_of_ms: int,
        heads: Mapping[Input, Header],
        inputs: Mapping[Input, InputState],
    ) -> None:
        began_s = self._parts.now_s()
        rules = self._rules[served.resolution_ms]
        record = self._parts.estimates.estimate(
            served,
            _span(heads, inputs, rules, as_of_ms),
            max_items=sum(heads[at].items for at in heads if at[0] == rules.orders_topic),
            side_offsets=self._parts.side.offsets(),
        )
        took_s = self._parts.now_s() - began_s
        self._saved_s = self._may_take_s() - took_s
        if self._parts.holds():
            self._publish(record, took_s, rules.retained_buckets)

    def _publish(self, record: EffectsRecord, took_s: float, retained_buckets: int) -> None:
        key, value = encoded(record)
        headers = ((SECONDS_HEADER, f"{took_s:.3f}".encode()),)
        keys = (key, current_key(record.resolution_ms))
        outgoing = [Outgoing(self._topic, name.encode(), value, headers) for name in keys]
        before_ms = stale_ms(record.resolution_ms, retained_buckets, record.as_of_ms)
        outgoing += [
            Outgoing(self._topic, name.encode(), None)
            for name, old in self._parts.table.keys().items()
            if old.resolution_ms == record.resolution_ms
            and old.as_of_ms < before_ms
            and name not in keys
        ]
        self._parts.writes.write(outgoing)
        for one in outgoing:
            self._parts.table.take(one.key, one.value)
        log.info(
            "effects",
            resolution_ms=record.resolution_ms,
            as_of_ms=record.as_of_ms,
            items=record.num_items,
            s=took_s,
            sha256=key,
        )


def _span(
    heads: Mapping[Input, Header],
    inputs: Mapping[Input, InputState],
    rules: ReadRules,
    as_of_ms: int,
) -> Span:
    """The buckets before a time that may hold anything, and those that came after it."""
    begun_ms = [state.first_event_ms for state in inputs.values()]
    frontiers_ms = [header.frontier_ms for header in heads.values()]
    as_of = rules.grid.bucket(as_of_ms)
    first = rules.grid.bucket(min(at_ms for at_ms in begun_ms if at_ms is not None))
    last = rules.grid.bucket(max(at_ms for at_ms in frontiers_ms if at_ms is not None))
    steps = min(max(as_of - first, 1), rules.retained_buckets)
    return Span(as_of_ms, steps, min(steps + last + 1 - as_of, rules.retained_buckets))
