"""The owner estimates once a midnight, rests, and publishes all of a turn together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import current_key, encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.online.owner.estimate import Span
from freshet.online.owner.loop import Owner, Parts
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Outgoing
from freshet.stream.read.progress import Input
from freshet.stream.schemas import EffectsRecord
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.store.layout import Header
from freshet.stream.units import DAY_MS, HOUR_MS

FIRST_MS = 20_000 * DAY_MS
TOPIC = Settings().kafka.topics.effects


def record(resolution_ms: int, as_of_ms: int) -> EffectsRecord:
    return record_of(
        SharedEffects(NAMED_SLOTS),
        resolution_ms=resolution_ms,
        as_of_ms=as_of_ms,
        num_items=1,
        offsets={},
        country=None,
    )


class Rig:
    """An owner on a shop that the test moves on; an estimate takes `cost_s` on the test's clock."""

    caught_up = True

    def __init__(self, days: float = 0.0) -> None:
        self.at_s, self.cost_s, self.days, self.held = 0.0, 0.0, days, True
        self.items = 5
        self.asked: list[tuple[int, Span, int]] = []
        self.written: list[list[Outgoing]] = []
        self.fails: list[Exception] = []
        self.after: Callable[[], None] = lambda: None
        self.table = EffectsTable()
        parts: Any = Parts(
            heads=self._heads,
            side=self,
            estimates=self,
            table=self.table,
            writes=self,
            holds=lambda: self.held,
            now_s=lambda: self.at_s,
        )
        self.owner = Owner(Settings(), parts)

    # What it works with ---------------------------------------------------------------------------

    def _heads(self) -> dict[Input, Header]:
        reached_ms = FIRST_MS + round(self.days * DAY_MS)
        header = Header(
            first_offset=0,
            next_offset=7,
            frontier_ms=reached_ms,
            first_event_ms=FIRST_MS,
            last_event_ms=reached_ms,
            items=self.items,
        )
        return {("freshet.orders.v1", n): header for n in (0, 1)} | {
            ("freshet.clicks.v1", 0): header
        }

    def poll(self) -> int:
        return 0

    def offsets(self) -> dict[str, int]:
        return {"catalog:0": 3}

    def estimate(
        self,
        served: ServedResolution,
        span: Span,
        *,
        max_items: int,
        side_offsets: Mapping[str, int],
    ) -> EffectsRecord:
        assert side_offsets == {"catalog:0": 3}
        self.asked.append((served.resolution_ms, span, max_items))
        self.at_s += self.cost_s
        self.after()
        return record(served.resolution_ms, span.as_of_ms)

    def write(self, records: list[Outgoing]) -> None:
        if self.fails:
            raise self.fails.pop()
        self.written.append(records)

    # What came of it ------------------------------------------------------------------------------

    def estimated(self) -> list[tuple[int, float]]:
        """Resolution and day of every estimate so far."""
        return [(ms, (span.as_of_ms - FIRST_MS) / DAY_MS) for ms, span, _ in self.asked]

    def turns(self, count: int) -> int:
        """How many of the turns published, once the same midnight was seen in two of them."""
        return sum(self.owner.turn() for _ in range(count + 1))


def test_days_and_hours_are_estimated_once_for_each_midnight() -> None:
    rig = Rig(days=2.4)
    assert rig.turns(5) == 2
    assert rig.estimated() == [(DAY_MS, 2), (HOUR_MS, 2)]
    rig.days = 2.99
    assert rig.turns(3) == 0
    rig.days = 3.0
    assert rig.turns(3) == 2 and rig.estimated()[2:] == [(DAY_MS, 3), (HOUR_MS, 3)]


def test_a_shop_of_some_hours_has_its_first_cutoff_estimated_and_then_midnights() -> None:
    rig = Rig(days=5 / 24)
    assert rig.turns(4) == 1 and rig.asked == [(HOUR_MS, Span(FIRST_MS + 5 * HOUR_MS, 5, 6), 10)]
    rig.days = 9 / 24
    assert rig.turns(2) == 0
    # Twice as old, it has much more to tell.
    rig.days = 10 / 24
    assert rig.turns(4) == 1 and rig.asked[1:] == [
        (HOUR_MS, Span(FIRST_MS + 10 * HOUR_MS, 10, 11), 10)
    ]
    rig.days = 0.8
    assert rig.turns(2) == 0
    rig.days = 1.1
    assert rig.turns(4) == 2 and rig.estimated()[2:] == [(DAY_MS, 1), (HOUR_MS, 1)]


def test_estimates_take_a_tenth_of_the_time_and_what_they_had_saved() -> None:
    rig = Rig(days=2.4)
    rig.cost_s = 75.0
    # What was never published does not wait. It takes 150 of 120 that were saved and 7.5 more.
    assert rig.turns(2) == 2 and rig.at_s == 150
    rig.days = 9.0
    # The 22.5 that it owes are back after 225.
    rig.at_s = 374.0
    assert rig.turns(3) == 0
    rig.at_s = 376.0
    assert rig.turns(2) == 1 and rig.at_s == 451


def test_while_a_log_is_caught_up_with_no_midnight_is_estimated() -> None:
    rig = Rig(days=2.0)
    for day in range(2, 40):
        rig.days = day
        assert not rig.owner.turn()
    assert rig.turns(2) == 2 and rig.estimated() == [(DAY_MS, 39), (HOUR_MS, 39)]


def test_a_few_midnights_in_a_row_do_not_wait() -> None:
    rig = Rig(days=2.0)
    rig.cost_s = 2.0
    for day in range(2, 6):
        rig.days = day
        assert rig.turns(3) == 2
    assert rig.at_s == 16


def test_a_fast_clock_costs_a_tenth_of_a_core_at_most() -> None:
    rig = Rig()
    rig.cost_s = 0.5
    worked_s = 0.0
    while rig.at_s < 2_000:
        rig.days = rig.at_s / 5
        before_s = rig.at_s
        rig.owner.turn()
        worked_s += rig.at_s - before_s
        rig.at_s += 1.0
    # A tenth of 2,000 s, and the 120 that were saved.
    assert 0.05 < worked_s / rig.at_s < 0.161


def test_a_record_its_pointer_and_tombstones_go_out_together() -> None:
    rig = Rig(days=2.0)
    rig.turns(2)
    keys = [encoded(record(ms, FIRST_MS + 2 * DAY_MS))[0] for ms in (DAY_MS, HOUR_MS)]
    for sent, key, ms in zip(rig.written, keys, (DAY_MS, HOUR_MS), strict=True):
        assert [one.key for one in sent] == [key.encode(), current_key(ms).encode()]
        assert sent[0].value == sent[1].value == encoded(record(ms, FIRST_MS + 2 * DAY_MS))[1]
        assert {one.topic for one in sent} == {TOPIC} and sent[0].headers == sent[1].headers
        assert sent[0].headers == (("freshet-seconds", b"0.000"),)
    # 1,344 hours are retained, and 64 cutoffs more: the day after that is too old.
    rig.days = 2 + 1_408 / 24
    rig.turns(2)
    assert [one.key for one in rig.written[3]][2:] == []
    rig.days = 3 + 1_408 / 24
    rig.turns(2)
    assert [(one.key, one.value) for one in rig.written[5]][2:] == [(keys[1].encode(), None)]
    assert rig.table.named(keys[1]) is None and rig.table.named(keys[0]) is not None


def test_a_shop_that_slept_for_years_keeps_its_new_pointer() -> None:
    rig = Rig(days=2.0)
    rig.turns(2)
    rig.days = 2_000.0
    rig.turns(2)
    newest = rig.table.at(HOUR_MS, 2**60)
    assert newest is not None and newest.as_of_ms == FIRST_MS + 2_000 * DAY_MS
    assert all(one.value for one in rig.written[3] if (one.key or b"").startswith(b"current@"))


def test_what_was_published_before_is_not_estimated_again_and_a_failed_write_is() -> None:
    rig = Rig(days=2.0)
    for ms in (DAY_MS, HOUR_MS):
        key, value = encoded(record(ms, FIRST_MS + 2 * DAY_MS))
        rig.table.take(key.encode(), value)
    assert rig.turns(3) == 0
    rig.days, rig.fails = 3.0, [BrokerError("away")]
    with pytest.raises(BrokerError):
        rig.turns(1)
    assert rig.table.at(DAY_MS, 2**60).as_of_ms == FIRST_MS + 2 * DAY_MS  # type: ignore[union-attr]
    assert rig.turns(3) == 2 and len(rig.written) == 2


def test_who_lost_the_lease_meanwhile_writes_nothing() -> None:
    rig = Rig(days=2.0)
    rig.after = lambda: setattr(rig, "held", False)
    rig.turns(1)
    assert len(rig.asked) == 1 and not rig.written


def test_nothing_is_estimated_before_the_shops_tables_are_known_or_anything_was_sold() -> None:
    rig = Rig(days=2.0)
    rig.caught_up = False
    assert rig.turns(2) == 0 and not rig.asked
    rig.caught_up = True
    assert rig.turns(2) == 2
