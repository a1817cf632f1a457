"""Frames of any kind, by any of the usual names, and what comes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import freshet
from freshet.model.automodel import FreshetModel
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.predict.frame import Forecaster
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError, WeightsError
from tests.model.field.conftest import ahead_of, promoted, weekly_peak


def two() -> pd.DataFrame:
    return pd.concat(
        [weekly_peak("2024-01-01", 90), weekly_peak("2024-01-01", 90, item="b")],
        ignore_index=True,
    )


def amounts(found: pd.DataFrame) -> np.ndarray:
    return found[["predictions", "0.1", "0.9", "mean"]].to_numpy()


NAMES = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}
SAME = {
    "nixtla": lambda f: f.rename(columns=NAMES),
    "nullable": lambda f: f.convert_dtypes(),
    "arrow": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "categories": lambda f: f.astype({"item_id": "category"}),
    "periods": lambda f: f.assign(timestamp=f.timestamp.dt.to_period("D")),
    "dates": lambda f: f.assign(timestamp=f.timestamp.dt.date),
    "texts": lambda f: f.assign(timestamp=f.timestamp.dt.strftime("%Y-%m-%d")),
    "levels": lambda f: f.set_index(["item_id", "timestamp"]),
    "levels without names": lambda f: f.set_index(["item_id", "timestamp"]).rename_axis(
        index=[None, None]
    ),
    "an index of times": lambda f: f.set_index("timestamp"),
    "another index": lambda f: f.set_index(np.arange(len(f)) * 3 + 7),
    "wide": lambda f: f.pivot(index="timestamp", columns="item_id", values="target"),
    "a series of levels": lambda f: f.set_index(["item_id", "timestamp"]).target,
    "decimals": lambda f: f.assign(target=f.target.astype(int)),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_frame_of_any_kind_gives_the_same_forecasts(forecaster, kind: str) -> None:
    expected = forecaster.predict(two(), 7)
    found = forecaster.predict(SAME[kind](two()), 7)
    np.testing.assert_array_equal(amounts(found), amounts(expected))
    names = list(found.columns[:2])
    assert names == (["unique_id", "ds"] if kind == "nixtla" else ["item_id", "timestamp"])
    assert found[names[1]].tolist() == expected.timestamp.tolist()
    assert found[names[0]].tolist() == expected.item_id.tolist()


def test_a_table_of_pyarrow_gives_one_back(forecaster) -> None:
    found = forecaster.predict(pa.Table.from_pandas(two(), preserve_index=False), 7)
    assert isinstance(found, pa.Table)
    np.testing.assert_array_equal(amounts(found.to_pandas()), amounts(forecaster.predict(two(), 7)))


def test_a_frame_of_polars_gives_one_back(forecaster) -> None:
    polars = pytest.importorskip("polars")
    frame = promoted()
    expected = forecaster.predict(frame, 7, future_df=ahead_of(frame))
    for lazy in (False, True):
        given = polars.from_pandas(frame)
        ahead = polars.from_pandas(ahead_of(frame))
        found = forecaster.predict(given.lazy() if lazy else given, 7, future_df=ahead)
        assert isinstance(found, polars.DataFrame)
        np.testing.assert_array_equal(amounts(found.to_pandas()), amounts(expected))


def test_a_series_alone_needs_no_item(forecaster) -> None:
    frame = weekly_peak("2024-01-01", 90)
    expected = forecaster.predict(frame, 7)
    alone = frame.drop(columns="item_id")
    for given in (alone, alone.set_index("timestamp"), alone.set_index("timestamp").target):
        found = forecaster.predict(given, 7)
        np.testing.assert_array_equal(amounts(found), amounts(expected))


def test_the_words_of_others_and_the_older_ones_mean_the_same(forecaster) -> None:
    frame, ahead = promoted(), ahead_of(promoted())
    other = {"item_id": "sku", "timestamp": "day", "target": "sold"}
    usual = forecaster.predict(
        df=frame.rename(columns=other),
        future_df=ahead.rename(columns=other),
        prediction_length=7,
        quantile_levels=[0.001, 0.1, 0.9, 0.999],
        id_column="sku",
        timestamp_column="day",
        target="sold",
    )
    older = forecaster.predict(frame, 7, known=["promo"], future=ahead)
    np.testing.assert_array_equal(amounts(usual), amounts(older))
    assert (usual["0.001"] < usual["0.1"]).all() and (usual["0.9"] < usual["0.999"]).all()
    assert (usual.predictions > 70.0).all(), "what future_df shares with df is known"


def test_the_length_is_that_of_what_is_told_ahead(forecaster) -> None:
    frame = promoted()
    assert len(forecaster.predict(frame, future_df=ahead_of(frame, 5))) == 5
    with pytest.raises(InvalidInputError, match="prediction_length is missing"):
        forecaster.predict(frame)


def test_a_frequency_may_be_an_offset_of_pandas(forecaster) -> None:
    found = forecaster.predict(two(), 7, frequency=pd.offsets.Day())
    pd.testing.assert_frame_equal(found, forecaster.predict(two(), 7, frequency="D"))


def test_a_column_that_only_the_future_has_is_said(forecaster) -> None:
    frame = promoted()
    ahead = ahead_of(frame)
    with pytest.raises(InvalidInputError, match="no column 'Promo', which is told ahead"):
        forecaster.predict(frame, 7, future_df=ahead.rename(columns={"promo": "Promo"}))
    with pytest.warns(TableWarning, match="no column 'weather', which is told ahead: not used"):
        forecaster.predict(frame, 7, future_df=ahead.assign(weather=1.0))


def test_each_row_says_how_far_to_trust_it(forecaster) -> None:
    parts = [promoted(item="long"), promoted(item="short").tail(10)]
    new = promoted(item="new").tail(1).assign(target=np.nan)
    frame = pd.concat([*parts, new])
    ahead = ahead_of(frame, 70)
    ahead = ahead[(ahead.item_id != "long") | (ahead.timestamp != "2024-05-03")]
    found = forecaster.predict(frame, 70, future_df=ahead).set_index("item_id").status
    assert set(found["new"]) == {"cold_start"} and set(found["short"]) == {"short_history"}
    # The 3rd of May is the fourth day ahead; the network was trained for 64 steps.
    assert found["long"].tolist() == (
        ["ok"] * 3 + ["future_unknown"] + ["ok"] * 60 + ["beyond_horizon"] * 6
    )


def test_a_frame_of_the_steps_ahead_is_made_to_be_filled(forecaster) -> None:
    frame = promoted().assign(timestamp=lambda f: f.timestamp.dt.tz_localize("Europe/Berlin"))
    ahead = forecaster.make_future_frame(frame, 3)
    days = pd.date_range("2024-04-30", periods=3, tz="Europe/Berlin")
    assert ahead.timestamp.tolist() == days.tolist() and set(ahead.item_id) == {"a"}
    found = forecaster.predict(frame, future_df=ahead.assign(promo=1.0))
    assert (found.predictions > 70.0).all() and (found.status == "ok").all()


def test_cross_validation_gives_what_came_beside_what_was_forecast_before(forecaster) -> None:
    frame = two()
    found = forecaster.cross_validation(frame, 7, n_windows=2, step_size=3)
    assert found.cutoff.unique().tolist() == [
        pd.Timestamp("2024-03-20"),
        pd.Timestamp("2024-03-23"),
    ]
    came = found.merge(frame, on=["item_id", "timestamp"], suffixes=("", "_came"))
    assert len(came) == 28 and (came.target == came.target_came).all()
    first = found[found.cutoff == "2024-03-20"]
    then = forecaster.predict(frame[frame.timestamp <= "2024-03-20"], 7)
    np.testing.assert_array_equal(amounts(first), amounts(then))


def test_a_forecast_is_drawn(forecaster, tmp_path: Path) -> None:
    frame = two()
    found = forecaster.predict(frame, 7)
    figure = forecaster.plot(frame, found, items=["b"], path=tmp_path / "b.svg")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "b" and "<svg" in (tmp_path / "b.svg").read_text()
    sold, median = axes.lines
    assert sold.get_ydata()[-7:].tolist() == frame.target.tolist()[-7:]
    assert median.get_ydata().tolist() == found.predictions.tolist()[7:]
    with pytest.raises(InvalidInputError, match="is no picture"):
        forecaster.plot(frame, found, path=tmp_path / "b.txt")


def test_dates_with_the_day_first_are_drawn_where_they_are(forecaster) -> None:
    # The first of each month: read with the month first they would be twelve days of January.
    months = pd.date_range("2022-01-01", periods=36, freq="MS")
    frame = pd.DataFrame({"timestamp": months.strftime("%d.%m.%Y"), "target": 5.0 + months.month})
    found = forecaster.predict(frame, 3)
    assert found.timestamp.tolist() == pd.date_range("2025-01-01", periods=3, freq="MS").tolist()
    sold, median = forecaster.plot(frame, found).axes[0].lines
    assert pd.DatetimeIndex(sold.get_xdata()).tolist() == months.tolist()
    assert sold.get_ydata().tolist() == (5.0 + months.month).tolist()
    assert pd.DatetimeIndex(median.get_xdata()).tolist() == found.timestamp.tolist()


def test_each_cutoff_has_a_fan_of_its_own(forecaster) -> None:
    frame = weekly_peak("2024-01-01", 90)
    found = forecaster.cross_validation(frame, 7, n_windows=3, step_size=2)
    _, *medians = forecaster.plot(frame, found).axes[0].lines
    drawn = [line.get_ydata().tolist() for line in medians]
    assert drawn == [part.predictions.tolist() for _, part in found.groupby("cutoff")]


def test_an_item_that_was_not_forecast_is_not_drawn(forecaster) -> None:
    with pytest.raises(InvalidInputError, match="item 'zz' is not forecast; there is 'a'"):
        forecaster.plot(two(), forecaster.predict(two(), 7), items=["a", "zz"])


def test_on_a_cpu_forecasts_do_not_depend_on_how_busy_it_is() -> None:
    assert Forecaster.from_pretrained(device="cpu").dtype == torch.float32


def test_completion_knows_the_public_names() -> None:
    assert "Forecaster" in dir(freshet) and "importlib" not in dir(freshet)


def test_weights_go_to_a_folder_and_back(forecaster, tmp_path: Path) -> None:
    forecaster.save_pretrained(tmp_path)
    again = Forecaster.from_pretrained(tmp_path, device_map="cpu", torch_dtype=torch.float32)
    pd.testing.assert_frame_equal(again.predict(two(), 7), forecaster.predict(two(), 7))


def test_weights_that_transformers_saved_load_without_a_golden_forecast(
    forecaster, tmp_path: Path
) -> None:
    FreshetModel.from_pretrained(BASE_WEIGHTS, dtype=torch.float32).save_pretrained(tmp_path)
    again = Forecaster.from_pretrained(tmp_path, "cpu", "float32")
    pd.testing.assert_frame_equal(again.predict(two(), 7), forecaster.predict(two(), 7))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="cannot be read"):
        Forecaster.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device_map": "abacus"}, "no device 'abacus'"),
        ({"device_map": {"a": "cpu", "b": "cuda"}}, "names 2 devices"),
        ({"torch_dtype": torch.float16}, "dtype is 'float16'"),
    ],
)
def test_devices_and_types_that_there_are_none_of_are_said(given: dict, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Forecaster.from_pretrained(**given)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f: f.predict("sales.csv", 7), "a str is no frame"),
        (
            lambda f: f.predict(two(), two()),
            "expected a whole number of steps, at least 1; what is known ahead goes",
        ),
        (lambda f: f.predict(two(), 2.5), "prediction_length is 2.5"),
        (lambda f: f.predict(two(), 7, quantile_levels=["low"]), "expected numbers"),
        (lambda f: f.predict(two(), 7, frequenzy="D"), "did you mean frequency"),
        (lambda f: f.predict(two(), 7, missing="drop"), "missing is 'drop'; expected 'keep' or"),
        (lambda f: f.predict(two().rename(columns={"target": "sold"}), 7), "'target' or 'y'"),
        (lambda f: f.predict(two().assign(y=1), 7), "has both 'target' and 'y'; name it with"),
        (lambda f: f.predict(two().assign(target=[[1]] * 180), 7), "is no number|cannot be used"),
        (lambda f: f.predict(two()[["item_id", "target"]], 7), "'timestamp' or 'ds'"),
        (lambda f: f.predict(two().assign(target=pd.Timedelta("1D")), 7), "holds durations"),
        (lambda f: f.predict(two().assign(target=1j), 7), "holds complex numbers"),
        (lambda f: f.cross_validation(two(), 7, n_windows="x"), "n_windows is 'x'; expected"),
        (lambda f: f.predict(two(), 7, id_column="sku"), "no column 'sku'; name it with id_col"),
        (
            lambda f: f.predict(two()[["timestamp"]].assign(sold=1.0), 7),
            r"with target= \(--target\); it has timestamp, sold$",
        ),
        (lambda f: f.predict(two(), h=7), "no argument 'h'; did you mean prediction_length"),
        (lambda f: f.predict(two(), 7, level=[80]), "did you mean quantile_levels"),
        (lambda f: f.predict(two(), 7, X_df=two()), "did you mean future_df"),
    ],
)
def test_what_cannot_be_used_is_said_in_words_of_our_own(forecaster, call, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        call(forecaster)
