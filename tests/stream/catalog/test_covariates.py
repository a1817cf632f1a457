"""Covariates on buckets: by hand, and against a walk over every millisecond."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.catalog.covariates import Covariates
from freshet.stream.catalog.hours import ShopCalendar
from freshet.stream.catalog.scopes import Items
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.catalog.versions import Known
from freshet.stream.config import CalendarSettings, CovariateSettings
from freshet.stream.schemas import Covariate, CovariateScope
from freshet.stream.slots import CLOSED, EVENT, KNOWN_SLOTS, covariate_slots
from freshet.stream.units import DAY_MS, HOUR_MS

FREE_1 = KNOWN_SLOTS.index("free_1")
NAN = float("nan")
TENS = BucketSpan(0, 4, 10)


def shop_with(**named: Any) -> ShopTables:
    return ShopTables(covariates=CovariateSettings.model_validate(named))


class Teller:
    """Tells a shop of covariates, one offset after the other."""

    def __init__(self, shop: ShopTables) -> None:
        self.shop = shop

    def tell(self, name: str, slot: str, starts: int, ends: int, value: float = 1.0, /,
             *, at_ms: int = 0, **scope: str) -> None:  # fmt: skip
        fields: dict[str, Any] = {"covariate_id": name, "name": slot, "value": value}
        fields |= {"starts_at": starts, "ends_at": ends, "scope": scope}
        self.shop.take("covariates", name.encode(), json.dumps(fields).encode(), at_ms)

    def withdraw(self, name: str, at_ms: int) -> None:
        self.shop.take("covariates", name.encode(), None, at_ms)

    def slot(
        self, place: int, item_id: str = "a|n", span: BucketSpan = TENS, as_of_ms: int | None = None
    ) -> list[float]:
        known = self.shop.known([item_id], span, as_of_ms=as_of_ms)
        return [round(float(value), 6) for value in known[0, :, place]]


@pytest.fixture
def told() -> Teller:
    return Teller(shop_with())


def test_a_flag_is_the_share_of_the_bucket_and_0_outside_and_a_number_unknown(told: Teller) -> None:
    told.tell("c", "closed", 5, 25)
    told.tell("half", "event", 10, 20, 0.5)
    told.tell("n", "free_1", 15, 30, 7.0)
    assert told.slot(CLOSED) == [0.5, 1, 0.5, 0]
    assert told.slot(EVENT) == [0, 0.5, 0, 0]
    np.testing.assert_equal(told.slot(FREE_1), [NAN, 7, 7, NAN])
    others = [place for place in range(3, 12) if place not in (CLOSED, EVENT, FREE_1)]
    assert np.isnan(told.shop.known(["a|n"], TENS)[0, :, others]).all()


def test_a_flag_of_others_is_0_for_those_it_is_not_about(told: Teller) -> None:
    told.tell("c", "holiday", 10, 20, sku="a")
    assert told.slot(EVENT) == [0, 1, 0, 0]
    assert told.slot(EVENT, "b|n") == [0, 0, 0, 0]
    known = told.shop.known(["b|n", "a|n", "b|s", "a|s"], TENS)[:, 1, EVENT]
    assert known.tolist() == [0, 1, 0, 1]


def test_the_narrower_scope_wins_then_the_later_announcement(told: Teller) -> None:
    told.shop.take("catalog", b"a", b'{"sku": "a", "category": "x"}', 0)
    told.tell("sku", "free_1", 0, 10, 3.0, sku="a")
    told.tell("all", "free_1", 0, 40, 1.0, at_ms=9)
    told.tell("class", "free_1", 0, 20, 2.0, at_ms=5, category="x")
    told.tell("later class", "free_1", 15, 20, 4.0, at_ms=6, category="x")
    told.tell("class and region", "free_1", 0, 5, 5.0, category="x", region="n")
    assert told.slot(FREE_1) == [(5 * 5 + 5 * 3) / 10, (5 * 2 + 5 * 4) / 10, 1, 1]
    assert told.slot(FREE_1, "a|s") == [3, 3, 1, 1]
    assert told.slot(FREE_1, "b|n") == [1, 1, 1, 1]
    assert told.slot(FREE_1, as_of_ms=5)[1] == 2


def test_a_narrower_flag_of_0_opens_what_a_wider_one_closes(told: Teller) -> None:
    told.tell("all", "closed", 0, 40)
    told.tell("open here", "closed", 10, 25, 0.0, region="n")
    assert told.slot(CLOSED) == [1, 0, 0.5, 1]
    assert told.slot(CLOSED, "a|s") == [1, 1, 1, 1]


def test_what_changed_holds_from_its_announcement_on_and_a_tombstone_from_its_time_on(
    told: Teller,
) -> None:
    told.tell("c", "closed", 0, 40, at_ms=1)
    told.tell("c", "closed", 20, 40, at_ms=3)
    told.withdraw("c", 35)
    by_then = {at_ms: told.slot(CLOSED, as_of_ms=at_ms) for at_ms in (1, 2, 3, 34, 35)}
    assert by_then[1] == by_then[2] == [1, 1, 1, 1]
    assert by_then[3] == by_then[34] == [0, 0, 1, 1]
    assert by_then[35] == told.slot(CLOSED) == [0, 0, 1, 0.5]
    assert np.isnan(told.slot(CLOSED, as_of_ms=0)).all(), "nobody had spoken of closed days"


def test_a_covariate_of_a_region_is_of_nobody_where_series_have_none() -> None:
    told = Teller(ShopTables(("sku",)))
    told.tell("c", "closed", 0, 40, region="n")
    assert told.slot(CLOSED, "a") == [0, 0, 0, 0]


def test_names_are_mapped_to_slots_as_flags_and_numbers() -> None:
    told = Teller(shop_with(flags={"fair": "free_2"}, numbers={"rain": "free_1"}))
    told.tell("f", "fair", 0, 10)
    told.tell("r", "rain", 0, 10, -3.5)
    np.testing.assert_equal(told.slot(FREE_1), [-3.5, NAN, NAN, NAN])
    assert told.slot(FREE_1 + 1) == [1, 0, 0, 0]


def test_what_the_shop_says_itself_overrides_its_calendar() -> None:
    calendar = CalendarSettings.model_validate(
        {"country": "DE", "opening_hours": {"thu": "00:00-12:00", "fri": "00:00-24:00"}}
    )
    told = Teller(ShopTables(calendar=calendar))
    # Friday, 2026-05-01 is a holiday; the buckets are Thursday, Friday and half of Saturday.
    day_ms = 20_573 * DAY_MS
    span = BucketSpan.between([day_ms + half * DAY_MS // 2 for half in (0, 2, 4, 5)])
    assert told.slot(EVENT, span=span) == [0, 1, 0]
    assert told.slot(CLOSED, span=span) == [0.5, 0, 1]
    told.tell("open late", "closed", day_ms + 6 * HOUR_MS, day_ms + 18 * HOUR_MS, 0.0, region="n")
    told.tell("flood", "closed", day_ms + DAY_MS, day_ms + 5 * DAY_MS // 4, region="n")
    told.tell("no holiday", "event", day_ms, day_ms + 9 * DAY_MS, 0.0, sku="a")
    assert told.slot(CLOSED, span=span) == [0.25, 0.25, 1]
    assert told.slot(CLOSED, "a|s", span=span) == [0.5, 0, 1]
    assert told.slot(EVENT, span=span) == [0, 0, 0]
    assert told.slot(EVENT, "b|n", span=span) == [0, 1, 0]


TOLD = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "r", "s", "t"]),  # its id
        st.sampled_from(["event", "closed", "free_1"]),
        st.integers(0, 30),
        st.integers(1, 25),
        st.sampled_from([0.0, 0.25, 1.0]),
        st.integers(0, 9),  # known from then on
        st.sampled_from([{}, {"sku": "a"}, {"category": "x"}, {"region": "n"},
                         {"sku": "a", "region": "n"}, {"category": "x", "region": "n"}]),
        st.booleans(),  # whether it is deleted at that time
    ),
    max_size=9,
)  # fmt: skip
NARROW = [(), ("region",), ("category",), ("sku",), ("category", "region"), ("sku", "region")]
ITEMS = {"a|n": {"sku": "a", "category": "x", "region": "n"},
         "a|s": {"sku": "a", "category": "x", "region": "s"},
         "b|n": {"sku": "b", "category": "", "region": "n"}}  # fmt: skip


def naive(told: list[Any], item: dict[str, str], slot: str, at: int, as_of_ms: int) -> float | None:
    """What one item is told of one slot at one moment: the winner's value, None for nobody."""
    newest: dict[str, Any] = {}
    for offset, (name, *rest) in enumerate(told):
        if rest[4] <= as_of_ms:
            newest.setdefault(name, []).append(((rest[4], offset), rest))
    best = None
    for versions in newest.values():
        versions.sort(key=lambda version: version[0])
        said = [version for version in versions if not version[1][-1]]
        if not said:
            continue
        known, (own, starts, length, value, _, scope, _) = said[-1]
        deleted = [version[0][0] for version in versions if version[1][-1] and version[0] > known]
        holds = own == slot and starts <= at < min([starts + length, *deleted])
        if holds and all(item[field] == named for field, named in scope.items()):
            rank = (NARROW.index(tuple(scope)), known)
            best = max(best, (rank, value)) if best else (rank, value)
    return best[1] if best else None


@settings(deadline=None, max_examples=100)
@given(TOLD, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 10))
def test_covariates_equal_a_walk_over_every_millisecond(
    told: list[Any], widths: list[int], as_of_ms: int
) -> None:
    teller = Teller(shop_with())
    teller.shop.take("catalog", b"a", b'{"sku": "a", "category": "x"}', 0)
    for name, slot, starts, length, value, at_ms, scope, deleted in told:
        if deleted:
            teller.withdraw(name, at_ms)
        else:
            teller.tell(name, slot, starts, starts + length, value, at_ms=at_ms, **scope)
    edges = np.cumsum([3, *widths]).tolist()
    known = teller.shop.known(list(ITEMS), BucketSpan.between(edges), as_of_ms=as_of_ms)
    for row, item in enumerate(ITEMS.values()):
        for slot in ("event", "closed", "free_1"):
            found = known[row, :, KNOWN_SLOTS.index(slot)]
            for step, (start, end) in enumerate(pairwise(edges)):
                moments = [naive(told, item, slot, at, as_of_ms) for at in range(start, end)]
                some = [value for value in moments if value is not None]
                if slot == "free_1":
                    expected = sum(some) / len(some) if some else NAN
                elif some or not np.isnan(found[step]):
                    expected = sum(some) / (end - start)
                else:
                    expected = NAN
                np.testing.assert_allclose(found[step], expected, atol=1e-6)


def test_a_hundred_thousand_covariates_of_ten_thousand_items_cost_little() -> None:
    named = covariate_slots({}, {})
    covariates = Covariates(named, ShopCalendar(CalendarSettings()))
    for number in range(100_000):
        start_ms = number // 10_000 * 50 * HOUR_MS
        sku = CovariateScope(sku=f"s{number % 10_000}")
        times = {"starts_at": start_ms, "ends_at": start_ms + 5 * HOUR_MS}
        told = Covariate(covariate_id=f"c{number}", name="closed", scope=sku, **times)  # type: ignore[arg-type]
        covariates.take(told, Known(0, number))
    skus = [f"s{number}" for number in range(256)]
    items = Items(skus, [""] * 256, ["n"] * 256)
    started_s = time.process_time()
    (closed,) = covariates.cover(items, BucketSpan(0, 560, HOUR_MS), DAY_MS)
    assert time.process_time() - started_s < 0.5
    # Item s0 is closed for five hours from hour 0, 50, ... 450 on.
    assert closed.values_US[closed.group_R[0]].sum() == 50
