"""A pandas frame in, a tidy frame of forecasts out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from freshet.model.predict.frame import LEVELS, Forecaster
from freshet.model.predict.out import mean_weights
from freshet.stream.errors import InvalidInputError


@pytest.fixture
def forecaster(tiny_network) -> Forecaster:
    return Forecaster(tiny_network, device="cpu", dtype="float32")


def history(item: str, days: int, end: str = "2024-06-30") -> pd.DataFrame:
    rng = np.random.default_rng(days)
    day = pd.date_range(end=end, periods=days)
    promo = (np.arange(days) % 10 < 2).astype(float)
    sold = rng.poisson(20 * (1 + promo)).astype(float)
    return pd.DataFrame({"item_id": item, "timestamp": day, "target": sold, "promo": promo})


def two_items() -> pd.DataFrame:
    """A long and a short one, which ends a week earlier, in no order."""
    both = pd.concat([history("shoe", 120), history("hat", 40, "2024-06-23")])
    return both.sample(frac=1.0, random_state=1)


def ahead(promo: float) -> pd.DataFrame:
    days = pd.date_range("2024-07-01", periods=7)
    return pd.DataFrame({"item_id": "shoe", "timestamp": days, "promo": promo})


def test_two_items_of_different_length_in_no_order_give_a_tidy_frame(forecaster) -> None:
    frame = two_items()
    before = frame.copy()
    found = forecaster.predict(frame, 7)
    names = [*map(str, LEVELS), "mean", "status"]
    assert list(found.columns) == ["item_id", "timestamp", "predictions", *names]
    assert found.item_id.tolist() == ["hat"] * 7 + ["shoe"] * 7
    for item, first in (("hat", "2024-06-24"), ("shoe", "2024-07-01")):
        assert (
            found[found.item_id == item].timestamp.tolist()
            == pd.date_range(first, periods=7).tolist()
        )
    quantiles = found[list(map(str, LEVELS))].to_numpy()
    assert np.isfinite(quantiles).all() and (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    pd.testing.assert_frame_equal(frame, before)


def test_the_order_of_the_rows_does_not_matter(forecaster) -> None:
    ordered = two_items().sort_values(["item_id", "timestamp"])
    pd.testing.assert_frame_equal(
        forecaster.predict(two_items(), 7), forecaster.predict(ordered, 7)
    )


def test_a_horizon_beyond_the_networks_reach_goes_on(forecaster) -> None:
    assert forecaster.prediction_length_max == 32
    long, short = forecaster.predict(two_items(), 70), forecaster.predict(two_items(), 32)
    assert len(long) == 140 and np.isfinite(long["mean"]).all()
    shoe = long[long.item_id == "shoe"].reset_index(drop=True)
    assert shoe.timestamp.iloc[-1] == pd.Timestamp("2024-07-01") + pd.Timedelta(days=69)
    # What items share is fitted with a view to the calendar ahead, so that the first steps are
    # alike but not equal.
    np.testing.assert_allclose(shoe["0.9"][:32], short[short.item_id == "shoe"]["0.9"], rtol=0.05)


def test_known_covariates_of_the_future_are_used_and_may_be_missing(forecaster) -> None:
    def forecast(future: pd.DataFrame | None) -> np.ndarray:
        frame = two_items()
        frame = frame[frame.item_id == "shoe"]
        found = forecaster.predict(frame, 7, known=["promo"], future=future)
        return found[found.item_id == "shoe"]["0.5"].to_numpy()

    on, off, unknown = forecast(ahead(1.0)), forecast(ahead(0.0)), forecast(None)
    assert np.abs(on - off).max() > 1e-3
    assert np.isfinite(unknown).all()
    unsaid = ahead(1.0).assign(item_id="shoes")
    with pytest.raises(InvalidInputError, match="it has 'shoes'; the table has 'shoe'"):
        forecast(unsaid)


def test_columns_keep_their_names_items_their_kind_and_times_their_zone(forecaster) -> None:
    frame = pd.concat([history("1", 60), history("2", 60)])
    named = pd.DataFrame(
        {
            "sku": frame.item_id.astype(int),
            "day": frame.timestamp.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
            "sold": frame.target,
        }
    )
    found = forecaster.predict(
        named, 3, item_id="sku", timestamp="day", target="sold", quantile_levels=(0.05, 0.5, 0.975)
    )
    levels = ["0.05", "0.5", "0.975"]
    assert list(found.columns) == ["sku", "day", "predictions", *levels, "mean", "status"]
    assert found.sku.tolist() == [1, 1, 1, 2, 2, 2]
    assert str(found.day.dt.tz) == "Europe/Berlin"
    assert found.day.iloc[0] == pd.Timestamp("2024-07-01", tz="UTC")


def test_the_mean_is_that_of_the_quantile_function() -> None:
    levels = np.linspace(0.05, 0.95, 19)
    weights = mean_weights(levels)
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ np.full(19, 3.0) == pytest.approx(3.0)
    assert weights @ levels == pytest.approx(0.5)  # The uniform distribution.
    rng = np.random.default_rng(0)
    draws = rng.gamma(4.0, 2.0, 200_000)
    assert weights @ np.quantile(draws, levels) == pytest.approx(draws.mean(), rel=0.02)


def test_the_mean_lies_within_the_fan(forecaster) -> None:
    found = forecaster.predict(two_items(), 7, quantile_levels=(0.01, 0.99))
    assert ((found["mean"] >= found["0.01"]) & (found["mean"] <= found["0.99"])).all()


@pytest.mark.parametrize("levels", [(), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5)])
def test_levels_that_make_no_sense_are_refused(forecaster, levels) -> None:
    with pytest.raises(InvalidInputError, match="between 0 and 1, rising"):
        forecaster.predict(two_items(), 7, quantile_levels=levels)


def test_frames_that_cannot_be_used_are_refused(forecaster) -> None:
    with pytest.raises(InvalidInputError, match="of steps, at least 1"):
        forecaster.predict(two_items(), 0)
    with pytest.raises(InvalidInputError, match="sold"):
        forecaster.predict(two_items(), 7, target="sold")
    with pytest.raises(InvalidInputError, match="'Atlantis'"):
        forecaster.predict(two_items(), 7, country="Atlantis")
    with pytest.raises(InvalidInputError, match="more than one row"):
        forecaster.predict(pd.concat([two_items(), two_items()]), 7)


def test_a_new_item_is_forecast_by_its_siblings_and_others_as_without_it(forecaster) -> None:
    rng = np.random.default_rng(1)
    days = pd.date_range(end="2024-06-30", periods=60)
    rows = [
        {
            "item_id": f"i{item:02d}",
            "timestamp": day,
            "target": float(rng.poisson(mean)),
            "kind": kind,
        }
        for item, (kind, mean) in enumerate([("tea", 10.0)] * 12 + [("salt", 200.0)] * 12)
        for day in days
    ]
    known = pd.DataFrame(rows)
    new = pd.DataFrame(
        {"item_id": ["new"], "timestamp": days[-1:], "target": [np.nan], "kind": ["tea"]}
    )
    found = forecaster.predict(pd.concat([known, new]), 7, static=["kind"])
    of_new = found[found.item_id == "new"]
    assert of_new["0.5"].between(8.0, 12.0).all() and of_new["mean"].between(8.0, 12.0).all()
    assert of_new["0.9"].max() <= known[known.kind == "tea"].target.max()
    without = forecaster.predict(known, 7, static=["kind"])
    pd.testing.assert_frame_equal(found[found.item_id != "new"], without)
