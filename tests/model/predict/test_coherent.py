"""A table with levels: every level's rows, means that add up, and what cannot be grouped."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from freshet.model.predict import coherent
from freshet.model.predict.coherent import coherent_forecast, earlier_cutoffs, levels_of
from freshet.model.predict.files import predict_file
from freshet.model.predict.frame import Forecaster
from freshet.model.tables.hierarchy import groupings_of
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import window_of

DAYS = 60
STORE = {1: "north", 2: "north", 3: "south"}


@pytest.fixture
def forecaster(tiny_network) -> Forecaster:
    return Forecaster(tiny_network, device="cpu", dtype="float32")


@pytest.fixture
def fewer_cutoffs(monkeypatch) -> None:
    monkeypatch.setattr(coherent, "CUTOFFS", 1)
    monkeypatch.setattr(coherent, "STEPS", 1)


def table() -> pd.DataFrame:
    """Three items of two stores; the third begins late, the second ends early."""
    rng = np.random.default_rng(4)
    day = pd.date_range("2024-03-01", periods=DAYS)
    parts = [
        pd.DataFrame({"sku": sku, "day": day, "sold": rng.poisson(5.0 * sku, DAYS), "store": store})
        for sku, store in STORE.items()
    ]
    frame = pd.concat(parts, ignore_index=True)
    late = (frame.sku == 3) & (frame.day < day[20])
    early = (frame.sku == 2) & (frame.day > day[-4])
    return frame[~late & ~early].sample(frac=1.0, random_state=2)


READING = {"id_column": "sku", "timestamp_column": "day", "target": "sold"}


def test_every_level_has_its_rows_and_means_add_up(forecaster) -> None:
    found = forecaster.predict(table(), 5, levels=["total", "store"], **READING)
    names = [("total", "total"), ("store", "north"), ("store", "south")]
    names += [("sku", "1"), ("sku", "2"), ("sku", "3")]
    assert list(found.columns[:4]) == ["level", "sku", "day", "predictions"]
    told = list(found[["level", "sku"]].itertuples(index=False, name=None))
    assert told == [name for name in names for _ in range(5)]
    # The one that ended early too: all are forecast from the end of all.
    assert found.day.tolist() == pd.date_range("2024-04-30", periods=5).tolist() * 6
    mean = {name: part["mean"].to_numpy() for name, part in found.groupby(["level", "sku"])}
    np.testing.assert_allclose(mean["sku", "1"] + mean["sku", "2"], mean["store", "north"])
    np.testing.assert_allclose(mean["sku", "3"], mean["store", "south"])
    np.testing.assert_allclose(
        mean["store", "north"] + mean["store", "south"], mean["total", "total"]
    )
    quantiles = found[["0.1", "0.5", "0.9"]].to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all() and (quantiles >= 0).all()


def test_earlier_cutoffs_of_all_levels_are_what_was_forecast_then_beside_what_came(
    forecaster, fewer_cutoffs
) -> None:
    frame = table()
    found = forecaster.cross_validation(
        frame, 5, n_windows=2, levels=["total", "store"], quantile_levels=[0.2], **READING
    )
    cutoffs = [pd.Timestamp("2024-04-19"), pd.Timestamp("2024-04-24")]
    assert list(found.columns[:5]) == ["level", "sku", "day", "cutoff", "sold"]
    for cutoff in cutoffs:
        seen = forecaster.predict(
            frame[frame.day <= cutoff], 5, levels=["total", "store"], quantile_levels=[0.2],
            **READING,
        )  # fmt: skip
        then = found[found.cutoff == cutoff].reset_index(drop=True)
        pd.testing.assert_frame_equal(then[list(seen.columns)], seen, rtol=1e-6)
    came = frame.groupby("day").sold.sum()
    totals = found[found.level == "total"]
    assert totals.cutoff.tolist() == [cutoff for cutoff in cutoffs for _ in range(5)]
    # Of the last three days, on which an item of the north is missing, it is as others tell.
    whole = totals[totals.day <= came.index[-4]]
    assert whole.sold.tolist() == came[whole.day].tolist()
    assert (totals.sold[-3:].to_numpy() > came[-3:].to_numpy()).all()


def test_the_order_of_rows_does_not_matter(forecaster, fewer_cutoffs) -> None:
    found, again = (
        forecaster.predict(frame, 5, levels=["store"], **READING)
        for frame in (table(), table().sort_values(["sku", "day"]))
    )
    pd.testing.assert_frame_equal(found, again)


def test_columns_of_groups_are_no_covariates(forecaster, fewer_cutoffs) -> None:
    ahead = forecaster.make_future_frame(table(), 5, end="common", **READING)
    ahead["store"] = ahead.sku.map(STORE)
    told, untold = (
        forecaster.predict(table(), 5, levels=["store"], future_df=future, **READING)
        for future in (ahead, None)
    )
    pd.testing.assert_frame_equal(told, untold)


def test_a_plan_of_items_reaches_their_groups(forecaster, fewer_cutoffs) -> None:
    frame = table().assign(promo=lambda rows: (rows.day.dt.day % 5 == 0).astype(float))
    ahead = forecaster.make_future_frame(frame, 5, end="common", **READING)
    on, off = (
        forecaster.predict(frame, future_df=ahead.assign(promo=promo), levels=["total"], **READING)
        for promo in (1.0, 0.0)
    )
    total_on, total_off = (found[found.level == "total"]["mean"] for found in (on, off))
    assert np.abs(total_on - total_off).max() > 1e-3


def test_what_cannot_be_grouped_is_refused(forecaster) -> None:
    with pytest.raises(InvalidInputError, match="needs a column 'shop'"):
        forecaster.predict(table(), 5, levels=["shop"], **READING)
    with pytest.raises(InvalidInputError, match="do not add up"):
        forecaster.predict(table(), 5, levels=["store"], end="own", **READING)
    called = table().rename(columns={"sku": "level"})
    with pytest.raises(InvalidInputError, match="where the answer names a row's level"):
        forecaster.predict(called, 5, levels=["store"], **READING | {"id_column": "level"})


@pytest.mark.parametrize(("sign", "wide"), [(1.0, True), (-1.0, False)])
def test_how_errors_moved_together_before_says_how_wide_their_sum_is(sign, wide) -> None:
    levels = tuple(np.arange(0.05, 1.0, 0.05).round(2))
    error_T = np.random.default_rng(5).standard_normal(60)
    odd_T = np.arange(60) % 2
    sold_NT = 100.0 * odd_T + 20.0 + 4.0 * np.stack([error_T, sign * error_T])
    window = window_of(sold_NT, horizon=9)

    def forecast(_: int, part: Window, levels: tuple[float, ...]) -> Floats:
        """Right but for the errors; of the total itself hardly anything is known."""
        scale_Q = np.array([NormalDist().inv_cdf(level) for level in levels])
        odd_H1 = (part.time_ms_NS[0, -9:] // DAY_MS % 2)[:, None]
        each_HQ = 100.0 * odd_H1 + 20.0 + 4.0 * scale_Q
        all_HQ = 200.0 * odd_H1 + 40.0 + 80.0 * scale_Q
        return np.stack([each_HQ, each_HQ] if len(part) == 2 else [all_HQ])

    (total,) = groupings_of(
        pd.DataFrame({"sku": ["item0", "item1"]}), "sku", window.item_ids, ["total"]
    )
    parts = levels_of(window, [total])
    found = coherent_forecast(forecast, parts, total.members_GN, levels).quantiles_XHQ
    width = (found[0, 0, levels.index(0.9)] - found[0, 0, levels.index(0.1)]) / 2.56
    # Alike they are 8 wide together; opposite they cancel but for what is not believed of it.
    assert (7.0 < width < 10.0) if wide else width < 4.0


def test_what_nobody_could_buy_is_no_less_sold_of_a_group() -> None:
    window = window_of(np.array([[4.0, 0.0, 4.0], [6.0, 6.0, 6.0]]), horizon=1)
    in_stock_NTP = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])[..., None]
    window = replace(window, past_NTP=in_stock_NTP, past_names=("in_stock",))
    (total,) = groupings_of(
        pd.DataFrame({"sku": ["item0", "item1"]}), "sku", window.item_ids, ["total"]
    )
    np.testing.assert_allclose(levels_of(window, [total])[0].target_NT, [[10.0, 10.0, 10.0]])


def test_earlier_cutoffs_are_four_or_more_where_horizons_are_short() -> None:
    def of(steps: int, horizon: int) -> list[int]:
        return earlier_cutoffs(window_of(np.ones((1, steps)), horizon=horizon))

    assert of(100, 10) == [10, 20, 30, 40]
    assert of(100, 5) == [5, 10, 15, 20, 25, 30, 35]  # 32 steps of 5
    assert of(100, 1) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert of(40, 10) == [10, 20]  # two horizons before the earliest
    assert of(29, 10) == []


def test_a_file_gives_a_table_and_a_picture_of_all_levels(
    forecaster, fewer_cutoffs, tmp_path, monkeypatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        "freshet.model.predict.plot._draw_item",
        lambda axes, item, past, ahead, columns: drawn.append(
            (item, int((past[columns.item_id] == item).sum()))
        ),
    )
    source, out, picture = (tmp_path / name for name in ("sold.csv", "out.csv", "out.png"))
    table().to_csv(source, index=False)
    predict_file(
        forecaster,
        source,
        3,
        future=None,
        outputs=[out, picture],
        reading=dict(READING),
        quantile_levels=["0.5"],
        levels=["total", "store"],
    )
    assert pd.read_csv(out).groupby("level").size().to_dict() == {"sku": 9, "store": 6, "total": 3}
    assert drawn == [
        ("total", DAYS), ("store north", DAYS), ("store south", DAYS),
        ("1", DAYS), ("2", DAYS), ("3", DAYS),
    ]  # fmt: skip
    assert picture.stat().st_size > 0
