"""Sums of a forecast: learnt from the shop's own past, each row as it sells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.network import QUANTILE_LEVELS
from freshet.model.quantiles.cumulative import Paths
from freshet.model.quantiles.dependence import WITHOUT_HISTORY, Dependence, default_dependence
from freshet.online.forecast import sums as module
from freshet.online.forecast.publish import Origin, forecast_items, wire_columns
from freshet.online.forecast.sums import LEARN_EVERY, StepSums
from freshet.stream.arrays import Floats, Ints
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import HOUR_MS

STEPS, CONTEXT = 12, 48
LEVELS = tuple(QUANTILE_LEVELS)


class FakeForecaster:
    """The same normal forecast for every row and step."""

    quantile_levels, device, dtype = LEVELS, torch.device("cpu"), torch.float32

    def __init__(self, mean: float, deviation: float) -> None:
        self.row_Q = mean + deviation * torch.special.ndtri(torch.tensor(LEVELS))
        self.calls = 0

    def forecast(self, batch: Batch) -> torch.Tensor:
        self.calls += 1
        return self.row_Q.expand(len(batch), batch.prediction_length, -1).clone()


@dataclass
class FakeContexts:
    """Items whose every stretch of one horizon is off by a factor of its own; the last one never
    sold anything.
    """

    num_items: int = 300
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.item_ids = [f"i{row}" for row in range(self.num_items)]
        rng = np.random.default_rng(0)
        level = rng.normal(0, 1, (self.num_items, 1))
        self.units = 100.0 + 10.0 * (
            math.sqrt(0.8) * level + math.sqrt(0.2) * rng.normal(0, 1, (self.num_items, STEPS))
        )

    def before(self, cutoff_ms: int, steps: int) -> int:
        return cutoff_ms - steps * HOUR_MS

    def batch(self, rows: Any, cutoff_ms: int) -> Batch:
        self.asked.append(cutoff_ms)
        B = len(rows)
        return Batch(
            torch.full((B, CONTEXT), 5.0),
            torch.full((B, CONTEXT, len(PAST_SLOTS)), math.nan),
            torch.full((B, CONTEXT + STEPS, len(KNOWN_SLOTS)), math.nan),
            torch.zeros(B, 3),
            torch.zeros(B, dtype=torch.int64),
            HOUR_MS,
        )

    def cold_batch(self, item_ids: list[str], cutoff_ms: int) -> Batch:
        batch = self.batch(item_ids, cutoff_ms)
        batch.target_BT[:] = math.nan
        return batch

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        assert steps == STEPS
        self.asked.append(end_ms)
        return self.units[rows]


def weights(version: str = "v1") -> Any:
    return SimpleNamespace(version=version, forecaster=FakeForecaster(100.0, 10.0))


def test_it_looks_one_horizon_back_and_learns_that_steps_are_wrong_together() -> None:
    sums, contexts = StepSums(HOUR_MS, STEPS), FakeContexts()
    before = sums.dependence.correlation(STEPS)
    assert sums.dependence == default_dependence(HOUR_MS)
    assert sums.learn(contexts, weights(), 100 * HOUR_MS)  # type: ignore[arg-type]
    assert contexts.asked == [(100 - STEPS) * HOUR_MS, 100 * HOUR_MS]
    after = sums.dependence.correlation(STEPS)
    assert before[-1] + 0.2 < after[-1] < 0.8, "half way from the default to the shop's own 0.8"


def test_it_looks_back_at_first_after_a_swap_and_now_and_then() -> None:
    sums, contexts, first, second = (
        StepSums(HOUR_MS, STEPS),
        FakeContexts(20),
        weights("v1"),
        weights("v2"),
    )
    looked = [sums.learn(contexts, first, 0) for _ in range(2 * LEARN_EVERY + 3)]  # type: ignore[arg-type]
    assert [number for number, did in enumerate(looked) if did] == [
        0,
        LEARN_EVERY + 1,
        2 * LEARN_EVERY + 2,
    ]
    assert sums.learn(contexts, second, 0)  # type: ignore[arg-type]
    assert not sums.learn(contexts, second, 0)  # type: ignore[arg-type]
    assert not StepSums(HOUR_MS, STEPS).learn(FakeContexts(0), first, 0)  # type: ignore[arg-type]


def test_more_in_common_makes_sums_wider_and_no_history_makes_them_widest() -> None:
    target = torch.full((2, CONTEXT), 5.0)
    target[1] = math.nan
    quantiles = FakeForecaster(100.0, 10.0).row_Q.expand(2, STEPS, -1)
    sums = StepSums(HOUR_MS, STEPS)
    default, cold = (row[-1, -2] - row[-1, 1] for row in sums.quantiles(target, quantiles, LEVELS))
    sums.learn(FakeContexts(), weights(), 0)  # type: ignore[arg-type]
    learnt, still = (row[-1, -2] - row[-1, 1] for row in sums.quantiles(target, quantiles, LEVELS))
    assert default < 0.9 * learnt < 0.9 * cold
    assert still == cold


def test_whole_units_stay_whole_whatever_the_other_rows_sell() -> None:
    target = torch.tensor([[math.nan] * CONTEXT, [0.5] * CONTEXT, [1.0] * CONTEXT])
    quantiles = torch.linspace(0.0, 0.4, 21).expand(3, STEPS, -1)
    _, broken, whole = StepSums(HOUR_MS, STEPS).quantiles(target, quantiles, LEVELS)[:, 3]
    assert float(whole[5]) == 0.0 < float(broken[5])
    assert torch.equal(whole, whole.round())


def test_a_look_back_takes_rows_of_all_items_that_had_begun_and_what_was_learnt_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[Any, ...]] = []
    learnt = [Dependence(0.5, 0.25, 0.125), Dependence(0.25, 0.5, 0.125)]

    def estimate(actual: Any, quantiles: Any, levels: Any, **named: Any) -> Dependence:
        told.append((actual, quantiles, levels, named))
        return learnt[len(told) - 1]

    monkeypatch.setattr(module, "estimate_dependence", estimate)
    sums, contexts = StepSums(HOUR_MS, STEPS), FakeContexts(300)
    batch_of, asked = contexts.batch, list[list[int]]()

    def batch(rows: Any, cutoff_ms: int) -> Batch:
        made = batch_of(rows, cutoff_ms)
        asked.append(list(rows))
        made.target_BT[torch.tensor(rows % 2 == 1)] = math.nan
        # One bucket is history enough to tell how steps move.
        made.target_BT[0, :-1] = math.nan
        return made

    monkeypatch.setattr(contexts, "batch", batch)
    first, second = weights("v1"), weights("v2")
    second.forecaster = FakeForecaster(50.0, 1.0)
    assert sums.learn(contexts, first, 100 * HOUR_MS)  # type: ignore[arg-type]
    assert sums.dependence == learnt[0]
    assert sums.learn(contexts, second, 200 * HOUR_MS)  # type: ignore[arg-type]
    assert sums.dependence == learnt[1]
    rows = [round(place * 299 / 127) for place in range(128)]
    assert asked == [rows, rows] and rows[0] == 0 and rows[-1] == 299
    begun = [row for row in rows if row % 2 == 0]
    priors = [default_dependence(HOUR_MS), learnt[0]]
    for (actual, quantiles, levels, named), prior, used in zip(
        told, priors, (first, second), strict=True
    ):
        np.testing.assert_allclose(actual, contexts.units[begun], rtol=1e-6)
        assert torch.equal(quantiles, used.forecaster.row_Q.expand(len(begun), STEPS, -1))
        assert levels == LEVELS and named == {"prior": prior, "prior_rows": 128}


def test_a_look_back_at_few_items_takes_each_of_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contexts, asked = FakeContexts(5), list[list[int]]()
    batch_of = contexts.batch

    def batch(rows: Any, cutoff_ms: int) -> Batch:
        asked.append(list(rows))
        return batch_of(rows, cutoff_ms)

    monkeypatch.setattr(contexts, "batch", batch)
    StepSums(HOUR_MS, STEPS).learn(contexts, weights(), 0)  # type: ignore[arg-type]
    assert asked == [[0, 1, 2, 3, 4]]


def test_paths_are_drawn_once_for_each_dependence_and_forgotten_when_another_is_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Dependence] = []

    def draw(dependence: Dependence, levels: tuple[float, ...], steps: int) -> Paths:
        assert (levels, steps) == (LEVELS, STEPS)
        drawn.append(dependence)
        return Paths(dependence, levels, steps)

    monkeypatch.setattr(module, "Paths", draw)
    sums, default = StepSums(HOUR_MS, STEPS), default_dependence(HOUR_MS)
    target = torch.tensor([[5.0] * CONTEXT, [math.nan] * CONTEXT])
    quantiles = FakeForecaster(100.0, 10.0).row_Q.expand(2, STEPS, -1)
    for _ in range(2):
        sums.quantiles(target, quantiles, LEVELS)
    assert drawn == [default, WITHOUT_HISTORY]
    sums.learn(FakeContexts(), weights(), 0)  # type: ignore[arg-type]
    sums.quantiles(target, quantiles, LEVELS)
    assert drawn[2:] == [sums.dependence, WITHOUT_HISTORY] and sums.dependence != default
    assert len(sums._made) == 2, "old ones are not kept"


@pytest.mark.parametrize(
    ("horizon", "steps"),
    [
        (1, [1]),
        (5, [1, 2, 3, 4, 5]),
        (24, [1, 2, 3, 4, 6, 8, 12, 16, 20, 24]),
        (100, [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 100]),
    ],
)
def test_sums_are_published_up_to_the_whole_horizon(horizon: int, steps: list[int]) -> None:
    assert StepSums(HOUR_MS, horizon).steps == steps


def test_records_carry_units_per_view_where_they_are_asked_for_and_views_are_known() -> None:
    asked = Origin(
        HOUR_MS, 100 * HOUR_MS, 0, "v1", "ab", {"orders:0": 1}, ("sku",), False, conversion=True
    )
    contexts, sums, fake = FakeContexts(3), StepSums(HOUR_MS, STEPS), weights()
    viewed = contexts.batch([0, 1], 0)
    viewed.past_BTP[0, :, PAST_SLOTS.index("views")] = 50.0
    contexts.batch = lambda rows, cutoff_ms: viewed  # type: ignore[method-assign]
    first, second = forecast_items(contexts, fake, asked, sums, rows=[0, 1], cold=[])  # type: ignore[arg-type]
    # 5 units of 50 views and one of 30: the fake forecasts 100, which stands for the usual rate.
    assert first.conversion is not None and second.conversion is None
    assert np.shape(first.conversion) == (STEPS, len(WIRE_LEVELS))
    usual = (5.0 * CONTEXT + 0.9) / (50.0 * CONTEXT + 30.0)
    assert first.conversion[0][WIRE_LEVELS.index(0.5)] == pytest.approx(usual, rel=1e-3)
    plain, _ = forecast_items(
        contexts, fake, replace(asked, conversion=False), sums, rows=[0, 1], cold=[]
    )  # type: ignore[arg-type]
    assert plain.conversion is None and plain.quantiles == first.quantiles


def test_records_carry_the_sums_of_their_own_row_at_the_wire_levels() -> None:
    origin = Origin(HOUR_MS, 100 * HOUR_MS, 0, "v1", "ab", {"orders:0": 1}, ("sku",), False)
    origin = replace(origin, effects_sha256="ef")
    sums, contexts = StepSums(HOUR_MS, STEPS), FakeContexts(3)
    warm, *_, cold = forecast_items(contexts, weights(), origin, sums, rows=[0, 1], cold=["new"])  # type: ignore[arg-type]
    for record in (warm, cold):
        assert record.cumulative is not None
        assert record.cumulative.steps == sums.steps
        np.testing.assert_allclose(record.cumulative.quantiles[0], record.quantiles[0], atol=1.0)
        table = np.array(record.cumulative.quantiles)
        assert table.shape == (len(sums.steps), len(WIRE_LEVELS))
        assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()
    assert warm.cumulative is not None and cold.cumulative is not None
    row = FakeForecaster(100.0, 10.0).row_Q.expand(1, STEPS, -1)
    expected = sums.quantiles(torch.full((1, CONTEXT), 5.0), row, LEVELS)[0][
        :, wire_columns(LEVELS)
    ]
    np.testing.assert_allclose(warm.cumulative.quantiles, expected, rtol=1e-3)
    assert cold.cumulative.quantiles[-1][-1] > warm.cumulative.quantiles[-1][-1]
