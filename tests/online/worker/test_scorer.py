"""What a worker says of final buckets, against a log of two items worked out in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest

from freshet.online.drift.pending import Issued, PendingForecasts
from freshet.online.worker.scorer import Scorer
from freshet.stream.catalog.segments import segments_of
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import (
    WIRE_LEVELS,
    CatalogEntry,
    InventoryLevel,
    Promotion,
    Score,
    ScoredStep,
)
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, FakeReader, contexts_of, tell

DAY = 24
CONTEXT = 3 * DAY
STEPS = (1, 24, 25)
BUCKET = FIRST + 100
ITEMS = ["a|n", "never|n", "b|n"]


def sold(item_id: str, hour: int) -> int:
    """Units of the log: a day profile with a wobble, and a bucket nobody could foresee."""
    if hour == 100:
        return {"a|n": 90, "b|n": 0}[item_id]
    return {"a|n": hour % DAY + hour * hour % 5, "b|n": 40 - hour % DAY + hour * hour % 7}[item_id]


def quantiles_of(item_id: str, step: int) -> list[float]:
    """What was published: other numbers for every item, step and level, and far from the naive."""
    lowest = {"a|n": 60.0, "never|n": 0.5, "b|n": 2.0}[item_id]
    return [lowest + step + 4.0 * level for level in range(9)]


def quantile_at(quantiles: list[float], level: float) -> float:
    return quantiles[WIRE_LEVELS.index(level)]


def pinball(actual: float, quantiles: Sequence[float]) -> float:
    """Twice the pinball loss, mean over the levels."""
    losses = []
    for level, quantile in zip(WIRE_LEVELS, quantiles, strict=True):
        over = actual - quantile
        losses.append(2 * (level * over if over > 0 else (level - 1) * over))
    return sum(losses) / len(losses)


def naive_quantiles(item_id: str, step: int) -> list[float]:
    """The last day again, as wide as days differed; of what was known before the cutoff."""
    cutoff = 100 - (step - 1)
    history = [float(sold(item_id, hour)) for hour in range(cutoff - CONTEXT, cutoff)]
    last_day = history[-DAY:]
    changes = [later - earlier for earlier, later in zip(history, history[DAY:], strict=False)]
    spread = math.sqrt(sum(change**2 for change in changes) / (len(changes) - 1))
    spread *= math.sqrt((step - 1) // DAY + 1)
    point = last_day[(step - 1) % DAY]
    return [max(0.0, point + spread * NormalDist().inv_cdf(level)) for level in WIRE_LEVELS]


def read_log(kind: type[FakeReader] = FakeReader) -> FakeReader:
    reader = kind(num_buckets=200, reached=BUCKET + 1, clicked=BUCKET + 1)
    for item_id in ("b|n", "a|n"):
        for hour in range(101):
            reader.add(item_id, FIRST + hour, UNITS, 1_000 * sold(item_id, hour))
    reader.head = BUCKET + 1
    return reader


def scorer_of(
    reader: FakeReader, shop: ShopTables | None = None, *, season_length: int = DAY
) -> Scorer:
    pending = PendingForecasts(STEPS, HOUR_MS, 99)
    for step in STEPS:
        quantiles_IKQ = [[quantiles_of(item_id, step)] * len(STEPS) for item_id in ITEMS]
        ids = [f"{item_id}@{step}" for item_id in ITEMS]
        cutoff_ms = (BUCKET - step + 1) * HOUR_MS
        made = np.array(quantiles_IKQ, np.float32)
        pending.add(Issued(cutoff_ms, "v1", WIRE_LEVELS, list(ITEMS), ids, made))
    return Scorer(
        contexts_of(reader, shop, context_length=CONTEXT),
        pending,
        segments=lambda item_ids: [f"segment of {item_id}" for item_id in item_ids],
        season_length=season_length,
    )


def scores_of(scorer: Scorer) -> dict[str, Score]:
    return {score.item_id: score for score in scorer.score(BUCKET * HOUR_MS, 77).scores}


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    return scores_of(scorer_of(read_log()))


def steps_of(scores: dict[str, Score], item_id: str) -> list[ScoredStep]:
    steps = scores[item_id].steps
    assert [step.step for step in steps] == list(STEPS)
    return steps


@pytest.mark.parametrize(("item_id", "actual"), [("a|n", 90.0), ("b|n", 0.0), ("never|n", 0.0)])
def test_each_step_is_held_against_what_was_sold_in_its_bucket(
    scores: dict[str, Score], item_id: str, actual: float
) -> None:
    score = scores[item_id]
    assert (score.actual, score.in_stock, score.segment) == (actual, True, f"segment of {item_id}")
    assert (score.bucket_start_ms, score.resolution_ms) == (BUCKET * HOUR_MS, HOUR_MS)
    assert score.scored_at_ms == 77
    for step in steps_of(scores, item_id):
        quantiles = quantiles_of(item_id, step.step)
        low, high = quantile_at(quantiles, 0.1), quantile_at(quantiles, 0.9)
        deviation = (high - low) / (2 * NormalDist().inv_cdf(0.9))
        assert step.forecast_id == f"{item_id}@{step.step}" and step.weights_version == "v1"
        assert step.pinball == pytest.approx(pinball(actual, quantiles), abs=2e-6)
        assert step.median == quantile_at(quantiles, 0.5)
        assert step.residual == pytest.approx((actual - quantiles[4]) / deviation, abs=2e-6)
        assert step.covered_80 == (low <= actual <= high)


@pytest.mark.parametrize("item_id", ["a|n", "b|n"])
def test_the_published_naive_is_the_last_day_before_the_cutoff_of_the_same_forecast(
    scores: dict[str, Score], item_id: str
) -> None:
    for step in steps_of(scores, item_id):
        expected = pinball(sold(item_id, 100), naive_quantiles(item_id, step.step))
        assert step.seasonal_naive_pinball == pytest.approx(expected, abs=2e-6)


def test_an_item_that_no_window_has_seen_has_no_naive(scores: dict[str, Score]) -> None:
    naives = [step.seasonal_naive_pinball for step in steps_of(scores, "never|n")]
    assert naives == [None, None, None]


@pytest.mark.parametrize(("hour", "changes"), [(99, True), (100, False), (101, False)])
def test_the_naive_of_the_next_hour_sees_the_hour_before_its_cutoff_and_not_the_actual(
    scores: dict[str, Score], hour: int, changes: bool
) -> None:
    reader = read_log()
    reader.add("a|n", FIRST + hour, UNITS, 5_000_000)
    scorer = scorer_of(reader)
    (due,) = [due for due in scorer.pending.due(BUCKET * HOUR_MS) if due.step == 1]
    before = scorer_of(read_log())
    seen, usual = scorer._naive(due), before._naive(due)
    assert (not np.array_equal(seen[0], usual[0])) == changes
    np.testing.assert_array_equal(seen[2], usual[2])


def test_an_actual_that_was_never_observed_is_counted_and_not_scored_as_zero() -> None:
    reader = read_log()
    reader.reached = BUCKET
    scorer = scorer_of(reader)
    found = scorer.score(BUCKET * HOUR_MS, 0)
    assert found.scores == [] and found.unknown == len(ITEMS) * len(STEPS)


def test_a_bucket_that_was_sold_out_for_a_part_is_marked_so_in_its_score_alone() -> None:
    shop = ShopTables()
    for hour, on_hand in ((0, 5), (100.5, 0)):
        at_ms = int((FIRST + hour) * HOUR_MS)
        level = InventoryLevel(sku="b", region="n", on_hand=on_hand, as_of=at_ms)
        tell(shop, "inventory", level, at_ms)
    scores = scores_of(scorer_of(read_log(), shop))
    assert {item_id: score.in_stock for item_id, score in scores.items()} == {
        "a|n": True,
        "b|n": False,
        "never|n": True,
    }


@pytest.mark.parametrize(
    ("starts", "ends", "promoted"), [(98, 100, set()), (100, 101, {"a|n"}), (101, 103, set())]
)
def test_a_score_says_whether_its_item_was_promoted_in_the_bucket(
    starts: int, ends: int, promoted: set[str]
) -> None:
    shop = ShopTables()
    times = {"starts_at": (FIRST + starts) * HOUR_MS, "ends_at": (FIRST + ends) * HOUR_MS}
    tell(shop, "promotions", Promotion(promotion_id="p", sku="a", discount=0.0, **times))  # type: ignore[arg-type]
    scores = scores_of(scorer_of(read_log(), shop))
    assert set(scores) == set(ITEMS)
    assert {item_id for item_id, score in scores.items() if score.promoted} == promoted


def test_an_item_belongs_to_its_category_or_to_the_field_that_was_asked_for() -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="a", category="shoes"))
    items, fields = ["a|north", "b|south"], ("sku", "region")

    def by(name: str, series_by: tuple[str, ...] = fields) -> list[str]:
        return segments_of(items, DriftSettings(segment_by=name), shop, series_by)  # type: ignore[arg-type]

    assert by("category") == ["shoes", "-"]
    assert by("region") == ["north", "south"]
    assert by("sku") == ["a", "b"]
    assert by("region", ("sku", "channel")) == ["-", "-"]
