"""The window store's past as training sees it, over a reader whose cells are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from redis import Redis

from freshet.online.effects.table import EffectsTable
from freshet.online.trials.history import WindowHistory, open_history
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.read.progress import InputState, ReadRules
from freshet.stream.schemas import CatalogEntry, InventoryLevel
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, FakeReader, contexts_of, tell


@dataclass
class Reader(FakeReader):
    """A reader that knows how far each of several partitions has come."""

    states: dict[tuple[str, int], InputState] = field(default_factory=dict)
    final: int | None = None

    @property
    def inputs(self) -> dict[tuple[str, int], InputState]:
        return self.states

    @property
    def rules(self) -> ReadRules:
        return ReadRules(HOUR_MS, self.num_buckets)

    def final_ms(self) -> int | None:
        return self.final

    def offsets(self) -> dict[str, int]:
        return {"orders:0": 17}


def state(first: float | None, frontier: float | None) -> InputState:
    """A partition by the hours after `FIRST` of its first and newest event."""
    first_ms, frontier_ms = (
        None if hour is None else int((FIRST + hour) * HOUR_MS) for hour in (first, frontier)
    )
    return InputState(
        offset=17,
        first_offset=0,
        frontier_ms=frontier_ms,
        idle_frontier_ms=(FIRST + 500) * HOUR_MS,
        first_event_ms=first_ms,
    )


def history_of(reader: Reader, shop: ShopTables | None = None) -> WindowHistory:
    def segments(item_ids: Sequence[str]) -> list[str]:
        return [f"segment of {item_id}" for item_id in item_ids]

    return WindowHistory(contexts_of(reader, shop), segments)


@pytest.fixture
def week() -> Reader:
    """Two items over 200 hours: one sells 3 at hour 0 of these and 1 at each of the next ones,
    the other 5 at hour 3, 2 at hour 198 and very much at hour 199, which is half final.
    """
    reader = Reader(num_buckets=400, reached=FIRST + 200, clicked=FIRST + 200)
    reader.states = {("orders", 0): state(0, 199.5)}
    reader.add("a|n", FIRST, UNITS, 3_000)
    for hour in range(1, 200):
        reader.add("a|n", FIRST + hour, UNITS, 1_000)
    reader.add("b|n", FIRST + 3, UNITS, 5_000)
    reader.add("b|n", FIRST + 198, UNITS, 2_000)
    reader.add("b|n", FIRST + 199, UNITS, 900_000)
    reader.final = (FIRST + 199) * HOUR_MS + HOUR_MS // 2
    return reader


def test_it_says_what_the_reader_and_the_contexts_say(week: Reader) -> None:
    history = history_of(week)
    assert (history.grid, history.steps) == (Grid(HOUR_MS), 4)
    assert history.final_ms() == week.final
    assert history.offsets() == {"orders:0": 17}
    assert history.segments() == ["segment of a|n", "segment of b|n"]


def test_a_context_ends_at_its_cutoff_and_a_label_at_its_end(week: Reader) -> None:
    history = history_of(week)
    batch = history.batch(np.array([1, 0]), (FIRST + 5) * HOUR_MS)
    assert batch.target_BT[0, 3:].isnan().tolist() == [True, True, True, False, False]
    assert batch.target_BT[0, -2:].tolist() == [5.0, 0.0]
    assert batch.target_BT[1, -5:].tolist() == [3.0, 1.0, 1.0, 1.0, 1.0]
    assert batch.prediction_length == 4
    labels = history.target(np.array([1, 0]), (FIRST + 4) * HOUR_MS, 3)
    np.testing.assert_array_equal(labels, [[np.nan, np.nan, 5.0], [1.0, 1.0, 1.0]])


def test_what_changed_is_seen_after_a_refresh(week: Reader) -> None:
    history = history_of(week)
    week.add("c|n", FIRST + 2, UNITS, 4_000)
    history.refresh()
    assert history.segments()[2:] == ["segment of c|n"]
    assert history.target(np.array([2]), (FIRST + 3) * HOUR_MS, 1).tolist() == [[4.0]]


def test_mean_units_are_of_the_newest_final_week(week: Reader) -> None:
    # Of the 168 hours before hour 199, which is not final: one each, and 2 in the last of them.
    assert history_of(week).mean_units().tolist() == [1.0, 2.0 / 168.0]


def test_mean_units_are_of_the_buckets_that_were_observed(week: Reader) -> None:
    # Ten hours are final: 12 units in ten hours, and 5 in the seven since the first event.
    week.final = (FIRST + 10) * HOUR_MS
    assert history_of(week).mean_units() == pytest.approx([1.2, 5.0 / 7.0])
    # Where nothing was observed nothing sells.
    week.final = FIRST * HOUR_MS
    assert history_of(week).mean_units().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("levels", "mean"), [([(0, 5), (6, 0), (8, 5)], 1.0), ([(0, 5), (4, 0)], 5.0)]
)
def test_mean_units_leave_out_what_was_out_of_stock(
    week: Reader, levels: list[tuple[int, int]], mean: float
) -> None:
    shop = ShopTables()
    for hour, on_hand in levels:
        at_ms = (FIRST + hour) * HOUR_MS
        level = InventoryLevel(sku="b", region="n", on_hand=on_hand, as_of=at_ms)
        tell(shop, "inventory", level, at_ms)
    week.final = (FIRST + 10) * HOUR_MS
    assert history_of(week, shop).mean_units() == pytest.approx([1.2, mean])


def test_without_final_buckets_or_items_mean_units_are_nothing(week: Reader) -> None:
    week.final = None
    assert history_of(week).mean_units().tolist() == [0.0, 0.0]
    empty = Reader(final=FIRST * HOUR_MS)
    assert history_of(empty).mean_units().tolist() == []
    assert history_of(empty).segments() == []


@pytest.mark.parametrize(
    ("states", "newest", "first"),
    [
        # The bucket of the oldest event of any partition.
        ([state(3.7, 20), state(2.4, 21), state(9, 10)], 21, 2),
        # Of the 40 buckets that the reader holds, where older ones are gone: what was sent again
        # ahead of the frontier takes them away too.
        ([state(3.7, 43.9), state(2.4, 30)], 43, 4),
        ([state(2.0, 41.9), state(30, 30)], 41, 2),
        ([state(2.0, 41.9), state(30, 30)], 42, 3),
        # A partition without events has no say, nor has one that idles.
        ([state(5, 6), state(None, None)], 6, 5),
        ([state(5, None), state(7, 8)], 8, 5),
        ([state(5, 6), state(None, 90)], 6, 5),
        ([], 0, None),
        ([state(None, None)], 0, None),
        ([state(5, None)], 5, None),
        ([state(None, 9)], 9, None),
    ],
)
def test_the_past_begins_with_the_oldest_event_that_is_still_held(
    states: list[InputState], newest: int, first: int | None
) -> None:
    reader = Reader(num_buckets=40, head=FIRST + newest)
    reader.states = {("orders", number): given for number, given in enumerate(states)}
    expected = None if first is None else (FIRST + first) * HOUR_MS
    assert history_of(reader).first_ms() == expected


@pytest.mark.parametrize(
    ("segment_by", "segments"), [("category", ["shoes", "-"]), ("region", ["n", "s"])]
)
def test_it_holds_all_that_is_retained_at_the_workers_resolution(
    segment_by: str, segments: list[str]
) -> None:
    """Nothing is asked of Redis before the first refresh."""
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="a", category="shoes"))
    settings = Settings.model_validate(
        {
            "worker": {"context_length": 96, "prediction_length": 12, "resolution_ms": HOUR_MS},
            "windows": {
                "out_of_order_ms": 7_000,
                "resolutions": [
                    {"resolution_ms": 60_000, "buckets": 1_500},
                    {"resolution_ms": HOUR_MS, "buckets": 700},
                ],
            },
            "drift": {"segment_by": segment_by},
            "redis": {"generation": 3},
        }
    )
    history = open_history(settings, cast("Redis", None), shop, EffectsTable(), stopped)
    reader = history._contexts.reader
    assert (reader.resolution_ms, reader.num_buckets, reader.generation) == (HOUR_MS, 700, 3)
    assert (reader.rules.retained_buckets, reader.rules.out_of_order_ms) == (700, 7_000)
    assert (history._contexts.context_length, history.steps) == (96, 12)
    assert history._contexts.shop is shop
    assert history._segments(["a|n", "b|s"]) == segments
    assert history.final_ms() is None and history.first_ms() is None
    rows = np.arange(1)
    for long in (
        history.refresh,
        lambda: history.batch(rows, HOUR_MS),
        lambda: history.target(rows, HOUR_MS, 1),
    ):
        with pytest.raises(StopIteration):
            long()


def stopped() -> None:
    raise StopIteration
