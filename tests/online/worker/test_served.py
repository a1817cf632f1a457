"""One resolution of a worker's shards: which windows it holds, which round is due, and for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch

from freshet.online.drift.pending import Issued
from freshet.online.worker import served as module
from freshet.online.worker.marks import LAST, NONE_YET, Mark, place_of
from freshet.online.worker.pace import WAIT_S
from freshet.online.worker.rounds import Round
from freshet.online.worker.served import SPARE_BUCKETS, Served, Source
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.read.progress import InputState, ReadRules
from freshet.stream.schemas import WIRE_LEVELS, CatalogEntry, Promotion
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.worker.turns import FakeMembership, LiveReader
from tests.online.worker.windows import UNITS, tell

NOON = 20_000 * DAY_MS + 12 * HOUR_MS
MINUTE = NOON // MINUTE_MS
SALES = ServedResolution(
    resolution_ms=MINUTE_MS,
    prediction_length=4,
    season_length=4,
    score_steps=(1, 4),
    context_length=8,
    flash_sales_only=True,
)
ALL = SALES.model_copy(update={"flash_sales_only": False})
# Minutes of forecast and to spare, and a quarter of an hour in which late orders may come.
LINGER_MS = (4 + SPARE_BUCKETS) * MINUTE_MS + 905_000


@dataclass
class Shop:
    """Windows of minutes: every item sold 2 units in each of the last eight before `head`."""

    items: list[str] = field(default_factory=lambda: ["a|n", "a|s", "b|n", "c|n", "xa|n"])
    head: int = MINUTE
    opened: list[LiveReader] = field(default_factory=list)
    asked: list[tuple[ServedResolution, int]] = field(default_factory=list)
    tables: ShopTables = field(default_factory=ShopTables)

    def open(
        self, served: ServedResolution, num_buckets: int, owns: Callable[[str], bool]
    ) -> LiveReader:
        self.asked.append((served, num_buckets))
        reader = LiveReader(
            num_buckets=num_buckets,
            resolution_ms=served.resolution_ms,
            first=MINUTE - 8,
            reached=self.head,
            clicked=self.head,
        )
        for item_id in filter(owns, self.items):
            for minute in range(MINUTE - 8, self.head):
                reader.add(item_id, minute, UNITS, 2_000)
        reader.head = self.head
        self.opened.append(reader)
        return reader

    def announce(self, sku: str, from_minute: int, minutes: int, at_minute: int = -2_000) -> None:
        """A flash sale; all times are minutes after noon."""
        start_ms = NOON + from_minute * MINUTE_MS
        record = Promotion(
            promotion_id=f"of {sku} from {from_minute}",
            sku=sku,
            starts_at=start_ms,
            ends_at=start_ms + minutes * MINUTE_MS,
            discount=0.3,
            kind="flash_sale",
        )
        tell(self.tables, "promotions", record, NOON + at_minute * MINUTE_MS)

    def served(
        self, what: ServedResolution = SALES, membership: FakeMembership | None = None
    ) -> Served:
        source = Source(
            cast("Any", self.open),
            self.tables,
            cast("Any", membership or FakeMembership()),
            torch.device("cpu"),
        )
        return Served(Settings(), what, source)


def held(served: Served) -> list[str]:
    return served.reader.item_ids


def left(served: Served, minute: int, marks: dict[int, Mark | None] | None = None) -> set[str]:
    work, _ = served.begin(NOON + minute * MINUTE_MS, {0: None} if marks is None else marks)
    rows, cold = work.items(range(len(work)))
    return {held(served)[row] for row in rows} | set(cold)


def wait_for_scores(served: Served, item_id: str, minute: int) -> None:
    """A forecast of an item, made so many minutes after noon."""
    quantiles_IKQ = np.full((1, 2, len(WIRE_LEVELS)), 2.0, np.float32)
    cutoff_ms = NOON + minute * MINUTE_MS
    ids = [f"{item_id}@{minute}"]
    served.pending.add(Issued(cutoff_ms, "v2", WIRE_LEVELS, [item_id], ids, quantiles_IKQ))


# Which windows ------------------------------------------------------------------------------------


def test_only_what_is_on_sale_is_held_and_forecast() -> None:
    shop = Shop()
    shop.announce("a", -10, 60)
    # `xa|n` is another worker's; `c` is on sale the day after tomorrow.
    shop.announce("xa", -10, 60)
    shop.announce("c", 2_000, 60)
    served = shop.served()
    assert served.refresh(NOON) is not None
    assert held(served) == ["a|n", "a|s"]
    assert left(served, 0) == {"a|n", "a|s"}
    assert shop.asked[-1] == (SALES, 8 + 4 + SPARE_BUCKETS)


def test_where_all_are_served_sales_change_nothing() -> None:
    shop = Shop()
    served = shop.served(ALL)
    served.refresh(NOON)
    assert held(served) == ["a|n", "a|s", "b|n", "c|n"] and len(shop.opened) == 1
    shop.announce("a", -10, 60)
    served.refresh(NOON)
    assert len(shop.opened) == 1 and left(served, 0) == {"a|n", "a|s", "b|n", "c|n"}


def test_windows_are_opened_anew_when_a_sale_is_announced_and_what_waits_goes_on_waiting() -> None:
    shop = Shop()
    shop.announce("a", -10, 60)
    served = shop.served()
    served.refresh(NOON)
    wait_for_scores(served, "a|n", 0)
    before, contexts = len(shop.opened), served.contexts
    served.refresh(NOON)
    assert len(shop.opened) == before, "the same sales need nothing new"
    shop.announce("b", 100, 60, at_minute=0)
    served.refresh(NOON)
    assert len(shop.opened) == before + 1 and held(served) == ["a|n", "a|s", "b|n"]
    assert served.contexts is not contexts and served.contexts.reader is served.reader
    assert served.scorer.contexts is served.contexts and served.scorer.pending is served.pending
    assert served.pending.cutoffs == [NOON]
    assert left(served, 1) == {"a|n", "a|s", "b|n"}, "rows and places are those of the new windows"
    # One that is over is not thrown out for itself: nothing is read again for that.
    served.refresh(NOON + 100 * MINUTE_MS + LINGER_MS)
    assert len(shop.opened) == before + 1


def test_where_no_sale_is_near_nothing_is_read_until_the_next_look() -> None:
    shop = Shop()
    served = shop.served()
    assert served.pace.due(time.monotonic())
    assert served.refresh(NOON) is None
    now_s = time.monotonic()
    assert not served.pace.due(now_s) and served.pace.wait_ms(now_s) == 1_000 * WAIT_S
    assert held(served) == [] and not served.has_news
    assert served.due([None]) is None


def test_the_shops_tables_are_looked_at_again_when_they_changed_or_an_hour_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop, looks = Shop(), list[int]()
    spans = module.sale_spans
    monkeypatch.setattr(
        module, "sale_spans", lambda *asked: looks.append(asked[2] - NOON) or spans(*asked)
    )
    served = shop.served()
    for later_ms in (0, 1, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1):
        served.refresh(NOON + later_ms)
    assert looks == [HOUR_MS, 2 * HOUR_MS], "up to an hour ahead"
    shop.announce("a", -10, 600)
    assert served.refresh(NOON + HOUR_MS + 2) is not None
    assert len(looks) == 3


def test_a_new_item_on_sale_is_forecast_in_the_regions_that_other_widths_saw() -> None:
    shop = Shop()
    tell(shop.tables, "catalog", CatalogEntry(sku="new"))
    tell(shop.tables, "catalog", CatalogEntry(sku="other"))
    shop.announce("new", -10, 60)
    served = shop.served()
    served.refresh(NOON)
    assert held(served) == [] and left(served, 0) == set(), "nobody knows of a region"
    hours = Served(Settings(), ALL, served._source)
    hours.refresh(NOON)
    assert left(served, 0) == {"new|n", "new|s"}


# Scores of ended sales ----------------------------------------------------------------------------


def test_what_was_forecast_of_a_sale_that_is_over_is_scored_by_what_was_sold() -> None:
    shop = Shop()
    shop.announce("a", -10, 10)
    served = shop.served()
    served.refresh(NOON)
    wait_for_scores(served, "a|n", -1)
    # Long after it, another sale has the windows opened anew.
    later_ms = NOON + LINGER_MS
    shop.head = MINUTE + 8
    shop.announce("b", 60, 600)
    served.refresh(later_ms)
    assert held(served) == ["a|n", "a|s", "b|n"], "a waits, though its sale lingers no longer"
    found = served.scorer.score(NOON + 2 * MINUTE_MS, now_ms=0)
    assert [(score.item_id, score.actual) for score in found.scores] == [("a|n", 2.0)]


def test_while_forecasts_of_an_ended_sale_wait_windows_are_read_on() -> None:
    shop = Shop()
    shop.announce("a", -10, 10)
    served = shop.served()
    served.refresh(NOON)
    wait_for_scores(served, "a|n", -1)
    shop.opened[-1].head += 6
    assert served.refresh(NOON + 2 * LINGER_MS) is not None and served.has_news
    # Final is two minutes before the head.
    assert served.pending.due_buckets(served.reader.final_ms()) == [
        NOON - MINUTE_MS,
        NOON + 2 * MINUTE_MS,
    ]
    for bucket_ms in (NOON - MINUTE_MS, NOON + 2 * MINUTE_MS):
        served.pending.close_bucket(bucket_ms)
    assert served.refresh(NOON + 2 * LINGER_MS) is None, "then there is nothing left to do"


@pytest.mark.parametrize(("what", "actuals"), [(SALES, []), (ALL, [("d|n", 0.0)])])
def test_an_item_whose_windows_are_not_held_did_not_sell_nothing(
    what: ServedResolution, actuals: list[tuple[str, float]]
) -> None:
    shop = Shop()
    shop.announce("a", -10, 60)
    served = shop.served(what)
    served.refresh(NOON)
    # Such as a restart finds on the topic. Where all are held, an item without a row sold nothing.
    wait_for_scores(served, "d|n", -4)
    found = served.scorer.score(NOON - MINUTE_MS, now_ms=0)
    assert [(score.item_id, score.actual) for score in found.scores] == actuals
    assert found.unknown == 1 - len(actuals)


# Rounds of sales ----------------------------------------------------------------------------------


def mark(minute: int, upto: int = LAST, published: int = 1, expected: int = 1) -> Mark:
    return Mark(NOON + minute * MINUTE_MS, upto, published, expected)


@pytest.mark.parametrize(
    ("head", "before", "due"),
    [
        # Sales of a run from 10 to 20 and from 40 to 50; they are near from 5 and from 40 on.
        (4, None, None),
        (5, None, Round(NOON + 5 * MINUTE_MS, 0)),
        (5, mark(-9), Round(NOON + 5 * MINUTE_MS, 0)),
        (7, mark(-9), Round(NOON + 7 * MINUTE_MS, 2)),
        (7, mark(5), Round(NOON + 7 * MINUTE_MS, 1)),
        (7, mark(7), None),
        (7, mark(7, upto=3), Round(NOON + 7 * MINUTE_MS, 0)),
        (19, mark(18), Round(NOON + 19 * MINUTE_MS, 0)),
        (20, mark(18), None),
        (39, mark(18), None),
        (40, mark(18), Round(NOON + 40 * MINUTE_MS, 0)),
        (42, mark(18), Round(NOON + 42 * MINUTE_MS, 2)),
        (50, mark(49), None),
    ],
)
def test_minutes_are_due_while_a_sale_is_near_or_runs(
    head: int, before: Mark | None, due: Round | None
) -> None:
    shop = Shop(head=MINUTE + head)
    shop.announce("a", 10, 10, at_minute=5)
    shop.announce("a", 40, 10, at_minute=40)
    served = shop.served()
    served.refresh(NOON + 45 * MINUTE_MS)
    assert served.due([before]) == due
    if due is not None:
        # What a shard skipped is what nobody forecast since the sale is near.
        _, begun = served.begin(due.cutoff_ms, {0: before})
        skipped = 0 if before is None or not before.complete else due.skipped
        assert begun[0].skipped == skipped


def test_a_sale_that_lasts_longer_than_a_day_is_near_without_a_break() -> None:
    shop = Shop(head=MINUTE)
    shop.announce("a", -5_000, 6_000, at_minute=-9_000)
    served = shop.served()
    served.refresh(NOON)
    assert served.due([mark(-3_000)]) == Round(NOON, 2_999)


# Rounds -------------------------------------------------------------------------------------------


def test_a_round_goes_on_where_shards_began_it_and_begins_where_they_did_not() -> None:
    membership = FakeMembership(shards=frozenset(range(4)), num_shards=4)
    shop = Shop()
    shards = {item_id: place_of(item_id) % 4 for item_id in shop.items}
    assert shards == {"a|n": 0, "a|s": 1, "b|n": 1, "c|n": 3, "xa|n": 3}
    served = shop.served(ALL, membership)
    served.refresh(NOON)
    first, second = sorted(["a|s", "b|n"], key=place_of)
    known = {
        0: mark(-3),
        1: mark(0, upto=place_of(first), published=1, expected=2),
        2: None,
        # Its windows fell back since, as they do when a new partition has its first data.
        3: mark(1),
    }
    work, begun = served.begin(NOON, known)
    assert begun == {
        # Two cutoffs lie between.
        0: Mark(NOON, NONE_YET, 0, 1, skipped=2),
        1: mark(0, upto=place_of(first), published=1, expected=2),
        2: Mark(NOON, NONE_YET, 0, 0),
    }
    rows, cold = work.items(range(len(work)))
    assert cold == [] and {held(served)[row] for row in rows} == {"a|n", second}
    assert left(served, 0, {0: mark(0), 1: mark(0)}) == set(), "complete is complete"


def test_an_item_that_came_since_a_round_began_is_expected_of_it_and_none_is_forgotten() -> None:
    shop = Shop(items=["a|n"])
    served = shop.served(ALL)
    served.refresh(NOON)
    # Whoever began it saw two items, of which one is not seen here.
    _, begun = served.begin(NOON, {0: mark(0, upto=NONE_YET, published=0, expected=2)})
    assert begun[0].expected == 2
    _, begun = served.begin(NOON, {0: mark(0, upto=NONE_YET, published=1, expected=1)})
    assert begun[0].expected == 2


def test_new_items_have_their_places_behind_the_old_ones() -> None:
    shop = Shop()
    served = shop.served(ALL)
    served.refresh(NOON)
    shop.opened[0].add("late|n", MINUTE, UNITS, 1_000)
    served.refresh(NOON)
    assert left(served, 0) == {"a|n", "a|s", "b|n", "c|n", "late|n"}
    upto = place_of("late|n")
    behind = {item_id for item_id in held(served) if place_of(item_id) > upto}
    assert left(served, 0, {0: mark(0, upto=upto)}) == behind


def test_a_round_rests_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(module, "time", type("Time", (), {"monotonic": lambda: now_s[0]}))
    served = Shop().served(ALL)
    assert served.rested()
    served.rests_after(3.0)
    now_s[0] = 102.9
    assert not served.rested()
    now_s[0] = 103.0
    assert served.rested()


# What a forecast says -----------------------------------------------------------------------------


@dataclass
class Inputs(LiveReader):
    """A reader with inputs and a clock of its own."""

    zone: str = "UTC"
    states: dict[tuple[str, int], InputState] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[tuple[str, int], InputState]:
        return self.states

    @property
    def rules(self) -> ReadRules:
        return ReadRules(self.resolution_ms, self.num_buckets, time_zone=self.zone)


def served_by(reader: Inputs, what: ServedResolution) -> Served:
    source = Source(
        cast("Any", lambda *_: reader),
        ShopTables(),
        cast("Any", FakeMembership()),
        torch.device("cpu"),
    )
    return Served(Settings(), what, source)


def begun_at(*first_ms: int | None) -> dict[tuple[str, int], InputState]:
    return {
        ("o", number): InputState(1, 0, at_ms, None, at_ms) for number, at_ms in enumerate(first_ms)
    }


@pytest.mark.parametrize(
    ("first", "minutes", "warming"),
    [
        ((), 99, True),
        ((None,), 99, True),
        # Of the first minute only a part was seen.
        ((30_000,), 2, True),
        ((30_000,), 3, False),
        # The partition that began first counts, and one without data says nothing.
        ((600_000, 0, None), 2, True),
        ((600_000, 0, None), 3, False),
    ],
)
def test_a_shop_that_has_just_begun_is_warming_up(
    first: tuple[int | None, ...], minutes: int, warming: bool
) -> None:
    states = begun_at(*[None if at_ms is None else NOON + at_ms for at_ms in first])
    served = served_by(Inputs(resolution_ms=MINUTE_MS, states=states), ALL)
    assert served.warming_up(NOON + minutes * MINUTE_MS) == warming


def test_days_say_where_their_steps_begin_and_where_the_last_one_ends() -> None:
    days = ALL.model_copy(update={"resolution_ms": DAY_MS, "prediction_length": 2})
    march_28 = 1_774_652_400_000  # midnight in Berlin; the 29th has 23 hours
    berlin = served_by(Inputs(resolution_ms=DAY_MS, zone="Europe/Berlin"), days)
    assert berlin.edges_ms(march_28) == (
        march_28,
        march_28 + 24 * HOUR_MS,
        march_28 + 47 * HOUR_MS,
    )
    assert served_by(Inputs(resolution_ms=DAY_MS), days).edges_ms(NOON) is None
    hours = ALL.model_copy(update={"resolution_ms": HOUR_MS})
    zoned = served_by(Inputs(resolution_ms=HOUR_MS, zone="Europe/Berlin"), hours)
    assert zoned.edges_ms(march_28) is None
