"""Which windows of the other resolutions a challenger is judged on; nothing else counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from redis import Redis

from freshet.online.effects.table import EffectsTable
from freshet.online.trials import evaluation
from freshet.online.trials.guard import (
    MAX_GUARD_WINDOWS,
    Guard,
    guarded_span,
    on_sale,
    open_guards,
    sample,
    try_guard,
    try_guards,
)
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.schemas import Promotion
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.learn.learning import ITEMS, STEPS, PastInMemory
from tests.online.learn.oracles import SteadyForecaster, loss_of, oracle
from tests.online.worker.windows import tell

CHAMPION, CHALLENGER = (2.0, 6.0, 11.0), (1.0, 7.0, 20.0)
BERLIN = Grid(DAY_MS, "Europe/Berlin")
# 40 days from the 4th of October 2024 on, over the one of 25 hours; the newest 16 are labels.
DAYS, FIRST = 40, 24


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BatchForecaster", SteadyForecaster)


def guard(days: int = DAYS, grid: Grid = BERLIN, season_length: int = 7) -> Guard:
    return Guard(PastInMemory(days, grid=grid), season_length)


def past_of(guarded: Guard) -> PastInMemory:
    return cast("PastInMemory", guarded.history)


@pytest.mark.parametrize("grid", [BERLIN, Grid(MINUTE_MS)])
def test_the_newest_horizon_is_judged_by_what_both_lose_on_it(grid: Grid) -> None:
    guarded = guard(grid=grid)
    found = try_guard(guarded, oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert (found.resolution_ms, found.finite) == (grid.resolution_ms, True)
    champion, challenger = (
        sum(loss_of(units, quantiles) for units in past_of(guarded).units_IN[:, FIRST:].ravel())
        for quantiles in (CHAMPION, CHALLENGER)
    )
    assert found.loss == pytest.approx(challenger / champion - 1.0, rel=1e-5)
    assert past_of(guarded).refreshes == 1
    assert found.seconds > 0.0


@pytest.mark.parametrize(
    ("bucket", "judged"), [(FIRST - 1, False), (FIRST, True), (FIRST + 1, True), (DAYS - 1, True)]
)
def test_a_poisoned_day_changes_what_is_judged_where_it_is_judged(
    bucket: int, judged: bool
) -> None:
    def tried(poison: float) -> float:
        guarded = guard()
        past_of(guarded).units_IN[:, bucket] += poison
        return try_guard(guarded, oracle(*CHAMPION), oracle(*CHALLENGER), seed=0).loss

    assert (tried(1_000.0) != tried(0.0)) is judged


def test_a_day_that_is_not_final_is_not_judged() -> None:
    guarded = guard(days=DAYS + 1)
    past_of(guarded).known_buckets = DAYS
    late_ms = BERLIN.start_ms(past_of(guarded).first + DAYS) + 23 * HOUR_MS
    past_of(guarded).final_ms = lambda: late_ms  # type: ignore[method-assign]
    assert guarded_span(guarded) == (
        *(BERLIN.start_ms(past_of(guarded).first + day) for day in (FIRST, DAYS)),
    )


@pytest.mark.parametrize(
    ("days", "season_length", "judged"), [(24, 7, 16), (23, 7, 16), (20, 7, 13), (8, 7, 1)]
)
def test_a_context_holds_a_season_at_least(days: int, season_length: int, judged: int) -> None:
    guarded = guard(days, season_length=season_length)
    found = try_guard(guarded, oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert (found.items, found.blocks) == (ITEMS, judged)


@pytest.mark.parametrize("missing", ["final_ms", "first_ms", "segments", "days"])
def test_where_the_past_is_too_short_nothing_is_judged(missing: str) -> None:
    guarded = guard(7 if missing == "days" else DAYS)
    if missing != "days":
        setattr(past_of(guarded), missing, lambda: [] if missing == "segments" else None)
    found = try_guard(guarded, oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert (found.items, found.blocks, found.loss) == (0, 0, 0.0)
    assert found.finite and found.few


def test_a_forecast_that_is_not_finite_is_seen() -> None:
    wrong = oracle(1.0, float("nan"), 20.0)
    assert not try_guard(guard(), oracle(*CHAMPION), wrong, seed=0).finite
    assert try_guard(guard(), wrong, oracle(*CHAMPION), seed=0).finite


def test_what_is_computed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 items 21 cutoffs would fit into the horizon; of 300, one."""
    rows: list[int] = []

    class Counting(SteadyForecaster):
        def forecast(self, batch: Any, max_rows: int = 0) -> Any:
            rows.append(len(batch.target_BT))
            return super().forecast(batch, max_rows)

    monkeypatch.setattr(evaluation, "BatchForecaster", Counting)
    try_guard(guard(), oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert rows == [STEPS * ITEMS] * 2
    crowd = guard()
    past_of(crowd).units_IN = np.tile(past_of(crowd).units_IN, (25, 1))
    past_of(crowd).segments = lambda: ["s"] * 300  # type: ignore[method-assign]
    try_guard(crowd, oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert rows[2:] == [MAX_GUARD_WINDOWS] * 2


def test_each_past_is_let_go_before_the_next_is_read() -> None:
    opened: list[Guard] = []

    def one_by_one() -> Iterator[Guard]:
        for grid in (Grid(MINUTE_MS), BERLIN):
            opened.append(guard(grid=grid))
            yield opened[-1]
            assert past_of(opened[-1]).refreshes == 1

    found = try_guards(one_by_one(), oracle(*CHAMPION), oracle(*CHALLENGER), seed=0)
    assert [one.resolution_ms for one in found] == [MINUTE_MS, DAY_MS]


# Which pasts those are ----------------------------------------------------------------------------


class Main:
    """The history that is learnt from, as far as its items are asked for."""

    def __init__(self, num_items: int) -> None:
        self.item_ids = [f"i{number}|n" for number in range(num_items)]

    def final_ms(self) -> int:
        return 100 * DAY_MS

    def stopped(self) -> None:
        raise StopIteration


def opened(settings: Settings, num_items: int = 3, shop: ShopTables | None = None) -> Any:
    """The guard of each resolution. Nothing is asked of Redis."""
    main = cast("Any", Main(num_items))
    guards = open_guards(settings, cast("Redis", None), shop or ShopTables(), EffectsTable(), main)
    return {one.history.grid.resolution_ms: one for one in guards}


def held_by(guarded: Any) -> set[str]:
    """Which of the first five items its reader takes in."""
    owns = guarded.history._contexts.reader._rows._owns
    return {item_id for item_id in Main(5).item_ids if owns(item_id)}


# Minutes are kept from 704 before the 100th day's end on.
@pytest.mark.parametrize(
    ("sold_until_ms", "held"),
    [
        (101 * DAY_MS, {"i1|n"}),
        (100 * DAY_MS - 703 * MINUTE_MS, {"i1|n"}),
        (100 * DAY_MS - 704 * MINUTE_MS, {f"i{number}|n" for number in range(5)}),
    ],
)
def test_minutes_are_guarded_of_items_that_are_or_were_on_sale_and_else_of_all(
    sold_until_ms: int, held: set[str]
) -> None:
    shop = ShopTables()
    sale = Promotion(
        promotion_id="p",
        starts_at=98 * DAY_MS,
        ends_at=sold_until_ms,
        discount=0.3,
        kind="flash_sale",
        sku="i1",
    )
    other = msgspec.structs.replace(sale, promotion_id="q", kind="promotion", sku="i2")
    tell(shop, "promotions", sale)
    tell(shop, "promotions", other)
    found = opened(Settings(), num_items=5, shop=shop)
    assert held_by(found[MINUTE_MS]) == held
    assert held_by(found[DAY_MS]) == set(Main(5).item_ids)
    regions = Settings.model_validate({"events": {"series_by": ["region"]}})
    assert on_sale(regions, shop, Main(5).item_ids, 0) == [], "no item tells its sku"


def test_every_other_served_resolution_guards_with_its_own_lengths() -> None:
    found = opened(Settings.model_validate({"calendar": {"time_zone": "Europe/Berlin"}}))
    assert list(found) == [MINUTE_MS, DAY_MS]
    assert [(one.history.steps, one.season_length) for one in found.values()] == [
        (120, 60),
        (35, 7),
    ]
    assert found[DAY_MS].history.grid == BERLIN
    with pytest.raises(StopIteration):
        found[DAY_MS].history.refresh()
    readers = [one.history._contexts.reader for one in found.values()]
    assert [reader.num_buckets for reader in readers] == [512 + 120 + 72, 512 + 35 + 72]
    assert opened(Settings.model_validate({"worker": {"resolution_ms": HOUR_MS}})) == {}


def test_no_more_is_read_than_is_retained() -> None:
    widths = [
        {"resolution_ms": HOUR_MS, "buckets": 700},
        {"resolution_ms": DAY_MS, "buckets": 90},
    ]
    found = opened(Settings.model_validate({"windows": {"resolutions": widths}}))
    assert found[DAY_MS].history._contexts.reader.num_buckets == 90


def test_of_many_items_a_sample_is_read_and_the_same_one_again() -> None:
    names = Main(1_000).item_ids
    chosen = sample(names, seed=5)
    assert len(set(chosen)) == MAX_GUARD_WINDOWS and set(chosen) < set(names)
    assert chosen == sample(names, seed=5) != sample(names, seed=6)
    assert sample(names[:256], seed=5) == names[:256]
