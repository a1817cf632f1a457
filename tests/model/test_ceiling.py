"""No forecast explodes, whatever its covariates say; a ceiling by hand, and a property."""

from __future__ import annotations

import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.ceiling import ceiling
from freshet.model.features import DISCOUNT, EFFECT, EVENT, PROMOTION, Scaled, Scaling
from freshet.model.network import FreshetOutput
from freshet.model.predict.frame import Forecaster
from freshet.stream.arrays import Floats

WEEKS, AHEAD = 120, 8
LEVELS = (0.01, 0.5, 0.9, 0.99)


# By hand ------------------------------------------------------------------------------------------


def row_of(z: list[float], scale: float = 0.5) -> Scaled:
    """One row of 16 steps, of which the last ones were seen."""
    z_BT = torch.zeros(1, 16)
    seen_BT = torch.zeros(1, 16)
    if z:
        z_BT[0, -len(z) :] = torch.tensor(z)
        seen_BT[0, -len(z) :] = 1.0
    one = torch.ones(1)
    return Scaled(z_BT, seen_BT, Scaling(one, 0 * one, scale * one))


def known(slot: int = 0, values: dict[int, float] | None = None) -> torch.Tensor:
    known_BSK = torch.zeros(1, 18, len(KNOWN_SLOTS))
    for step, value in (values or {}).items():
        known_BSK[0, step, slot] = value
    return known_BSK


# The peak is 3, four noises are added, and 2 / sqrt(4 steps) log units are 2 on a scale of .5.
SEEN = [0.0, 3.0, -1.0, 1.0]


@pytest.mark.parametrize(("noise", "expected"), [(0.25, 6.0), (1.0, 9.0), (50.0, 9.0)])
def test_the_peak_the_noise_up_to_a_spread_and_what_few_steps_leave_open(noise, expected) -> None:
    found = ceiling(row_of(SEEN), known(), torch.tensor([noise]))
    assert found.tolist() == [[expected, expected]]


def test_a_single_step_leaves_twice_as_much_open_as_four() -> None:
    # The peak is 3, four noises are 1, and 2 / sqrt(1 step) log units are 4 on a scale of .5.
    assert ceiling(row_of([3.0]), known(), torch.tensor([0.25])).tolist() == [[8.0, 8.0]]


def test_a_peak_below_the_mean_is_one_and_without_history_there_is_no_ceiling() -> None:
    low = ceiling(row_of([-2.0] * 4), known(), torch.zeros(1))
    assert low.tolist() == [[0.0, 0.0]]
    none = ceiling(row_of([]), known(EFFECT, {16: 1.0}), torch.ones(1))
    assert none.tolist() == [[math.inf, math.inf]]


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ({16: 1.5}, [7.5, 6.0]),
        ({14: 1.0, 16: 1.5, 17: 0.5}, [6.5, 6.0]),
        ({3: 1.0, 16: 1.5}, [7.5, 6.0]),  # step 3 was not seen
        ({16: 90.0}, [10.0, 6.0]),  # two log units on a scale of .5
    ],
)
def test_what_other_series_showed_beyond_what_this_one_saw_is_added(effects, expected) -> None:
    found = ceiling(row_of(SEEN), known(EFFECT, effects), torch.tensor([0.25]))
    assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("slot", [PROMOTION, DISCOUNT, EVENT])
def test_the_first_promotion_may_do_what_none_did(slot) -> None:
    noise = torch.tensor([0.25])
    first = ceiling(row_of(SEEN), known(slot, {3: 1.0, 16: 0.2}), noise)
    assert first.tolist() == [[9.0, 6.0]]  # 1.5 log units on a scale of .5
    second = ceiling(row_of(SEEN), known(slot, {13: 0.1, 16: 0.2}), noise)
    assert second.tolist() == [[6.0, 6.0]]


def test_units_end_at_the_ceiling_of_each_step() -> None:
    one = torch.ones(1)
    z_BHQ = torch.tensor([[[-1.0, 1.0, 90.0], [0.5, 2.0, 2.5]]])
    output = FreshetOutput(
        z_BHQ, Scaling(4 * one, one, one), z_BHQ[..., 1], torch.full((1, 2), 2.0)
    )
    most_units = 4.0 * math.sinh(3.0)
    units = output.units()[0]
    assert units[:, 2].tolist() == pytest.approx([most_units, most_units])
    assert units[0, :2].tolist() == pytest.approx([0.0, 4.0 * math.sinh(2.0)])


# Whole forecasts ----------------------------------------------------------------------------------


@functools.cache
def forecaster() -> Forecaster:
    return Forecaster.from_pretrained(device="cpu", dtype="float32")


def sales(seed: int = 0) -> Floats:
    """Ordinary weekly sales with a season: three series of hundreds."""
    draw = np.random.default_rng(seed)
    season = 1.0 + 0.3 * np.sin(np.arange(WEEKS) * 2 * np.pi / 52)
    level = np.array([[80.0], [300.0], [900.0]])
    return draw.poisson(level * season).astype(float)


def forecast(target_NT: Floats, columns: dict[str, Floats]) -> Floats:
    """Quantiles [N, H, Q] with covariates [N, S] known ahead."""
    weeks = pd.date_range("2020-01-05", periods=WEEKS + AHEAD, freq="7D")
    parts = []
    for row in range(len(target_NT)):
        part = pd.DataFrame({"item_id": row, "timestamp": weeks})
        part["target"] = np.append(target_NT[row], np.full(AHEAD, np.nan))
        for name, values_NS in columns.items():
            part[name] = values_NS[row]
        parts.append(part)
    whole = pd.concat(parts)
    ahead = whole.timestamp >= weeks[WEEKS]
    found = forecaster().predict(
        whole[~ahead],
        AHEAD,
        frequency="W-SUN",
        known=tuple(columns),
        future=whole[ahead].drop(columns="target") if columns else None,
        quantile_levels=LEVELS,
    )
    return found[[str(level) for level in LEVELS]].to_numpy().reshape(len(target_NT), AHEAD, -1)


def most(target_NT: Floats) -> Floats:
    """What a series' own history can explain, from its numbers alone: [N].

    On a scale of arcsinh(y / unit), with a quarter of the mean as the unit, its largest value, four
    mean absolute deviations, two over the root of its steps, two for what other series showed, and
    1.5 for a first promotion.
    """
    found = []
    for y_T in target_NT:
        unit = max(1.0, y_T.mean() / 4)
        arc_T = np.arcsinh(y_T / unit)
        spread = (np.abs(arc_T - arc_T.mean()).sum() + 2) / (len(y_T) + 2)
        top = arc_T.max() + 4 * max(spread, 0.05) + 2 / math.sqrt(len(y_T)) + 2 + 1.5
        found.append(unit * math.sinh(top))
    return np.array(found)


NAMES = ("MarkDown", "price", "promo", "holiday", "weather", "DiscountDepth")


@st.composite
def covariates(draw: st.DrawFn) -> dict[str, Floats]:
    """Up to ten columns of any size: late, trending, collinear, constant, spiked, with gaps."""
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    columns: dict[str, Floats] = {}
    for number in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(["late", "trend", "same", "constant", "spike", "jump"]))
        size = 10.0 ** draw(st.integers(-6, 12))
        values_NS = random.normal(size=(3, WEEKS + AHEAD))
        if kind == "trend":
            values_NS += np.arange(WEEKS + AHEAD)
        if kind == "same" and columns:
            values_NS = 2.0 * next(iter(columns.values())) / size
        if kind == "constant":
            values_NS[:] = 1.0
        if kind == "spike":
            values_NS[:, random.integers(WEEKS + AHEAD)] = 1e9
        if kind == "jump":
            values_NS[:, WEEKS:] *= 1e6
        if draw(st.booleans()):
            values_NS = np.abs(values_NS)
        values_NS = values_NS * size
        if kind == "late":
            values_NS[:, : WEEKS - WEEKS // 10] = np.nan
        columns[f"{draw(st.sampled_from(NAMES))}{number}"] = values_NS
    return columns


@settings(max_examples=6, deadline=None, derandomize=True)
@given(covariates(), st.integers(0, 3))
def test_whatever_covariates_say_no_quantile_leaves_what_the_history_explains(
    columns: dict[str, Floats], seed: int
) -> None:
    """Every quantile is at most `most`: unit * sinh(peak + 4 deviations + 2 / sqrt(n) + 3.5)."""
    target_NT = sales(seed)
    found_NHQ = forecast(target_NT, columns)
    assert np.isfinite(found_NHQ).all()
    assert (found_NHQ <= 1.001 * most(target_NT)[:, None, None]).all()


@pytest.mark.parametrize("name", NAMES)
def test_thousands_in_the_last_tenth_move_a_median_by_less_than_a_half(name) -> None:
    """Before, the median of a mark-down in euros was a thousand times what was ever sold."""
    target_NT = sales()
    late_NS = np.random.default_rng(4).uniform(1_000.0, 9_000.0, (3, WEEKS + AHEAD))
    if name == "price":
        late_NS = late_NS / 10 + 4_000.0  # a price of a tenth is another matter
    late_NS[:, : WEEKS - WEEKS // 10] = np.nan
    plain_NHQ = forecast(target_NT, {})
    found_NHQ = forecast(target_NT, {name: late_NS})
    ratio_NH = found_NHQ[..., 1] / plain_NHQ[..., 1]
    assert ratio_NH.min() > 1 / 1.5
    assert ratio_NH.max() < 1.5
    assert (found_NHQ[..., 3] < 2.0 * target_NT.max(1)[:, None]).all()


def test_a_covariate_that_helps_still_helps() -> None:
    """A flag that triples sales, seen on a fifth of the weeks, brings most of that."""
    flag_NS = np.tile((np.arange(WEEKS + AHEAD) % 5 == 0) * 1.0, (3, 1))
    draw = np.random.default_rng(2)
    target_NT = draw.poisson(100.0 * (1.0 + 2.0 * flag_NS[:, :WEEKS])).astype(float)
    for name in ("promo", "MarkDown", "weather"):
        size = 5_000.0 if name == "MarkDown" else 1.0
        median_NH = forecast(target_NT, {name: flag_NS * size})[..., 1]
        np.testing.assert_allclose(median_NH[:, flag_NS[0, WEEKS:] > 0], 300.0, rtol=0.12)
        np.testing.assert_allclose(median_NH[:, flag_NS[0, WEEKS:] == 0], 100.0, rtol=0.12)
