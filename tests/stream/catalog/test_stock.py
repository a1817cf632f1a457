"""Stock: units by region, and when a series had any, as it was known when."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.catalog import stock
from freshet.stream.catalog.stock import RegionStock, Series, StockTable
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.catalog.versions import Known
from freshet.stream.schemas import InventoryLevel

LATER = 10**15


class Told(StockTable):
    """Stock whose records come in the order of their offsets."""

    count = 0

    def tell(
        self, as_of: int, on_hand: float, region: str | None = "n", known_ms: int | None = None
    ) -> int:
        self.count += 1
        level = InventoryLevel(sku="a", region=region, on_hand=on_hand, as_of=as_of)
        return self.take(level, Known(as_of if known_ms is None else known_ms, self.count))

    def drop(self, region: str | None, at_ms: int) -> None:
        self.count += 1
        self.delete(("a", region), Known(at_ms, self.count))

    def shares(self, series: Series, edges: list[int], as_of_ms: int = LATER) -> list[float]:
        found_1S = self.in_stock([series], BucketSpan.between(edges), as_of_ms)
        return [float(share) for share in found_1S[0]]


def table(*, by_region: bool) -> Told:
    return Told(by_region=by_region)


N: Series = ("a", "n")
ALL: Series = ("a", None)
NAN = math.nan


def test_the_newest_record_of_a_region_counts_and_of_two_of_one_time_the_last() -> None:
    told = table(by_region=True)
    told.tell(10, 5)
    told.tell(9, 0)
    assert told.on_hand(N) == 5 and told.levels(N) == [RegionStock(10, 5)]
    assert told.shares(N, [9, 10, 11]) == [0, 1], "what came late is of its own time"
    told.tell(10, 0)
    assert told.on_hand(N) == 0 and told.shares(N, [9, 10, 11]) == [0, 0]
    told.tell(11, 3)
    assert told.shares(N, [9, 10, 11, 12]) == [0, 0, 1]


def test_each_bucket_is_told_by_what_was_announced_about_it_by_then() -> None:
    told = table(by_region=True)
    told.tell(0, 5, known_ms=1)
    told.tell(20, 0, known_ms=50)
    told.tell(10, 0, known_ms=60)
    edges = [0, 10, 20, 30]
    assert told.shares(N, edges, 0) == pytest.approx([NAN] * 3, nan_ok=True)
    assert told.shares(N, edges, 1) == told.shares(N, edges, 49) == [1, 1, 1]
    assert told.shares(N, edges, 50) == [1, 1, 0]
    assert told.shares(N, edges, 60) == [1, 0, 0]


def test_regions_are_series_of_their_own_or_one_together() -> None:
    apart, together = table(by_region=True), table(by_region=False)
    for told in (apart, together):
        told.tell(10, 5, "n")
        told.tell(12, 0, "s")
        told.tell(14, 2, "s")
    assert (apart.on_hand(N), apart.on_hand(("a", "s"))) == (5, 2)
    assert apart.levels(("a", "s")) == [RegionStock(14, 2)]
    assert apart.shares(("a", "s"), [11, 12, 13, 14, 15]) == pytest.approx(
        [NAN, 0, 0, 1], nan_ok=True
    )
    assert together.on_hand(ALL) == 7
    assert together.levels(ALL) == [RegionStock(10, 5), RegionStock(14, 2)]
    assert together.shares(ALL, [9, 10, 15]) == pytest.approx([NAN, 1], nan_ok=True)
    together.tell(20, 0, "n")
    assert together.shares(ALL, [10, 20, 30]) == [1, 1], "the other region still has some"
    together.tell(25, -1, "s")
    assert together.shares(ALL, [10, 20, 30]) == [1, 0.5]
    assert together.on_hand(ALL) == -1


def test_the_record_without_region_stands_for_those_that_have_none_of_their_own() -> None:
    told = table(by_region=True)
    told.tell(1, 4, None)
    told.tell(1, 0, "n", known_ms=7)
    assert [told.on_hand(("a", region)) for region in ("n", "s", None)] == [0, 4, 4]
    assert told.shares(("a", "s"), [1, 9]) == [1]
    assert told.shares(N, [1, 9]) == [0]
    assert told.shares(N, [1, 9], 6) == [1], "its own was not known yet"
    told.tell(8, 3, "n")
    assert told.shares(N, [1, 8, 9], 8) == [0, 1], "its own, whatever that was at first"
    assert math.isnan(told.on_hand(("b", "n"))) and told.levels(("b", "n")) == []
    assert told.shares(("b", "n"), [1, 9]) == pytest.approx([NAN], nan_ok=True)


def test_a_region_that_is_deleted_is_unknown_from_then_on() -> None:
    told = table(by_region=False)
    told.tell(10, 5, "n")
    told.tell(20, 0, "s")
    told.drop("n", 30)
    assert told.on_hand(ALL) == 0 and told.levels(ALL) == [RegionStock(20, 0)]
    assert told.shares(ALL, [10, 20, 30, 40]) == [1, 1, 0]
    assert told.shares(ALL, [10, 20, 30, 40], 29) == [1, 1, 1]
    told.drop("s", 35)
    assert math.isnan(told.on_hand(ALL)) and told.levels(ALL) == []
    assert told.shares(ALL, [10, 20, 30, 40, 50]) == pytest.approx([1, 1, NAN, NAN], nan_ok=True)
    told.tell(45, 1, "s")
    assert told.shares(ALL, [40, 45, 50]) == pytest.approx([NAN, 1], nan_ok=True)


def test_without_its_own_records_a_region_has_those_that_named_none_again() -> None:
    told = table(by_region=True)
    told.tell(0, 4, None)
    told.tell(0, 0, "n")
    told.drop("n", 9)
    assert told.on_hand(N) == 4 and told.shares(N, [0, 5]) == [1]
    assert told.shares(N, [0, 5], 8) == [0]


def test_records_of_no_region_that_were_deleted_stand_for_nobody() -> None:
    told = table(by_region=True)
    told.tell(0, 4, None)
    told.drop(None, 5)
    told.tell(0, 0, "n")
    told.drop("n", 9)
    assert told.shares(N, [0, 5]) == [0]
    told.forget_before(6)
    assert told.shares(N, [6, 8]) == [0], "with and without what was forgotten"


LEVELS = st.lists(
    st.tuples(
        st.integers(0, 20),  # as of
        st.integers(0, 20),  # known
        st.sampled_from([0.0, 0.0, 3.0, 8.0, None]),  # None: deleted
        st.sampled_from(["n", "s"]),
    ),
    max_size=10,
)


@given(LEVELS, st.integers(0, 22), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_stock_over_regions_equals_a_walk_over_every_millisecond(
    levels: list[tuple[int, int, float | None, str]], as_of_ms: int, widths: list[int]
) -> None:
    told = table(by_region=False)
    versions: list[tuple[str, int, int, int, float | None]] = []
    for number, (at, known_ms, on_hand, region) in enumerate(levels, 1):
        if on_hand is not None:
            told.tell(at, on_hand, region, known_ms)
            versions.append((region, at, known_ms, number, on_hand))
        elif any(version[0] == region for version in versions):
            told.drop(region, known_ms)
            versions.append((region, known_ms, known_ms, number, None))
        else:
            told.count += 1

    def state(time_ms: int) -> float:
        newest = {}
        for region, at, known_ms, _, on_hand in sorted(versions, key=lambda one: one[1:4]):
            if at <= time_ms and known_ms <= as_of_ms:
                newest[region] = on_hand
        known = [on_hand for on_hand in newest.values() if on_hand is not None]
        return float(any(on_hand > 0 for on_hand in known)) if known else NAN

    edges = np.cumsum([2, *widths]).tolist()
    expected = [
        sum(state(time_ms) for time_ms in range(start, end)) / (end - start)
        for start, end in pairwise(edges)
    ]
    np.testing.assert_allclose(told.shares(ALL, edges, as_of_ms), expected, atol=1e-12)


def test_beyond_the_maximum_those_that_change_nothing_go_first_then_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stock, "MAX_STOCK_CHANGES", 8)
    told = table(by_region=True)
    edges = list(range(0, 21))
    levels = [9, 8, 7, 0, 0, 6, 5, 4]
    assert [told.tell(at, on_hand) for at, on_hand in enumerate(levels)] == [0] * 8
    before = [told.shares(N, edges, as_of_ms) for as_of_ms in range(8)]
    assert told.tell(8, 3) == 0
    after = [told.shares(N, edges, as_of_ms) for as_of_ms in range(8)]
    np.testing.assert_array_equal(after, before)
    assert told.on_hand(N) == 3
    # Levels at 0, 3, 5 and 8, and from 9 on one each millisecond, make nine with that of 13. That
    # of 8 changed nothing; of the others the newest six stay, and from then on all are changes.
    dropped = [told.tell(9 + at, at % 2) for at in range(11)]
    assert dropped == [0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 3]
    assert np.isnan(told.shares(N, edges)).tolist()[0]
    assert told.shares(N, [15, 16, 17, 18, 19, 20]) == [0, 1, 0, 1, 0]


def test_one_that_was_known_earlier_than_the_one_before_it_is_kept() -> None:
    told = table(by_region=True)
    told.tell(10, 5, known_ms=90)
    told.tell(11, 5, known_ms=20)
    told.tell(12, 5, known_ms=95)
    told.tell(13, 5, known_ms=99)
    (history,) = told._regions[N].values()
    assert stock._thinned(history) == 0
    assert history.times_ms.tolist() == [10, 11, 13]
    assert told.shares(N, [11, 12], 20) == [1]


def test_what_no_later_question_needs_is_dropped_and_what_is_in_force_stays() -> None:
    told = table(by_region=True)
    for at, on_hand in ((10, 5), (20, 0), (30, 7)):
        told.tell(at, on_hand)
    told.tell(15, 3, "s")
    told.drop("s", 18)
    edges = [25, 30, 35]
    before = told.shares(N, edges, 25), told.shares(N, edges)
    assert told.forget_before(25) == 3
    assert (told.shares(N, edges, 25), told.shares(N, edges)) == before == ([0, 0], [0, 1])
    assert told.forget_before(99) == 1 and told.on_hand(N) == 7
    told.tell(40, 2, "s")
    assert told.on_hand(("a", "s")) == 2
