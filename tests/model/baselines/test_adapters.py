"""Other people's networks, faked: what they are given and how their answers are read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from freshet.model.baselines import make
from freshet.model.tables.panel import Window
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

LEVELS = (0.05, 0.5, 0.9)


def window() -> Window:
    """Two series of five days, one younger and with a gap; two days ahead; a flag and visits."""
    target_NT = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [np.nan, np.nan, 6.0, np.nan, 8.0]])
    known_NSK = np.arange(14.0).reshape(2, 7, 1)
    time_NS = np.tile(np.arange(7) * DAY_MS, (2, 1))
    past_NTP = np.arange(10.0).reshape(2, 5, 1)
    return Window(
        ("a", "b"),
        "D",
        DAY_MS,
        7,
        time_NS,
        target_NT,
        known_NSK,
        past_NTP,
        ("flag",),
        ("visits",),
        {},
    )


class BoltPipeline:
    """Answers the last value plus the level, as one tensor; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @classmethod
    def from_pretrained(cls, folder: str, device_map: str) -> BoltPipeline:
        if "broken" in folder:
            raise OSError("no config.json")
        return cls()

    def predict_quantiles(
        self, inputs: list[Any], prediction_length: int, quantile_levels: list[float]
    ) -> Any:
        self.asked += inputs
        last = torch.stack([series[-1] for series in inputs])
        steps = torch.ones(len(inputs), prediction_length, 1)
        return last[:, None, None] * steps + torch.tensor(quantile_levels), last


class Chronos2Pipeline(BoltPipeline):
    """Takes dictionaries and answers with a list of [1, H, Q]."""

    def predict_quantiles(
        self, inputs: list[Any], prediction_length: int, quantile_levels: list[float]
    ) -> Any:
        self.asked += inputs
        last = [torch.tensor(series["target"][-1]) for series in inputs]
        return [
            value + torch.zeros(1, prediction_length, 1) + torch.tensor(quantile_levels)
            for value in last
        ], last


class FakeTimesFM:
    """Answers the mean first, then the last value plus ten times each of nine levels."""

    def __init__(self) -> None:
        self.compiled: list[int] = []

    @classmethod
    def from_pretrained(cls, folder: str) -> FakeTimesFM:
        return cls()

    def compile(self, config: Any) -> None:
        self.compiled.append(config["max_horizon"])

    def forecast(self, horizon: int, inputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        last = np.array([series[-1] for series in inputs])
        levels = np.array([99.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        # The library answers with as many steps as it was compiled for.
        return last, last[:, None, None] + np.tile(levels, (1, horizon + 3, 1))


def install(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    library = ModuleType(name)
    vars(library).update(content)
    monkeypatch.setitem(sys.modules, name, library)


def test_chronos_bolt_sees_each_series_from_its_first_value_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "chronos", BaseChronosPipeline=BoltPipeline)
    model: Any = make(f"chronos:{tmp_path}")
    found_NHQ = model.predict(window(), LEVELS)
    np.testing.assert_allclose(found_NHQ[:, 0], [[5.05, 5.5, 5.9], [8.05, 8.5, 8.9]], rtol=1e-6)
    assert [series.tolist() for series in model._pipeline.asked] == [[1, 2, 3, 4, 5], [6, 6, 8]]
    assert model.name == f"chronos:{tmp_path}" and not model.needs_fit


def test_chronos_2_is_shown_covariates_of_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "chronos", BaseChronosPipeline=Chronos2Pipeline)
    model: Any = make(f"chronos:{tmp_path}")
    found_NHQ = model.predict(window(), LEVELS)
    np.testing.assert_allclose(found_NHQ[:, 1], [[5.05, 5.5, 5.9], [8.05, 8.5, 8.9]], rtol=1e-6)
    second = model._pipeline.asked[1]
    assert second["past_covariates"]["flag"].tolist() == [9, 10, 11]
    assert second["past_covariates"]["visits"].tolist() == [7, 8, 9]
    assert {name: values.tolist() for name, values in second["future_covariates"].items()} == {
        "flag": [12, 13]
    }


def test_timesfm_is_compiled_once_per_horizon_and_read_without_its_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "timesfm", TimesFM_2p5_200M_torch=FakeTimesFM, ForecastConfig=dict)
    model: Any = make(f"timesfm:{tmp_path}")
    found_NHQ = model.predict(window(), (0.1, 0.5, 0.95))
    model.predict(window(), LEVELS)
    assert found_NHQ.shape == (2, 2, 3)
    np.testing.assert_allclose(found_NHQ[:, 0, :2], [[6.0, 10.0], [9.0, 13.0]])
    # Beyond the last level the normal score goes on: 9 + (1.645 - 1.282) / (1.282 - 0.842).
    np.testing.assert_allclose(found_NHQ[0, 0, 2], 5 + 9.826, rtol=1e-3)
    assert model._model.compiled == [2]


def test_a_missing_folder_a_missing_library_and_broken_weights_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("chronos:", "timesfm:/nowhere/at/all"):
        with pytest.raises(InvalidInputError, match="names no folder with weights"):
            make(name)
    monkeypatch.setitem(sys.modules, "chronos", None)
    with pytest.raises(InvalidInputError, match="pip install 'chronos-forecasting'"):
        make(f"chronos:{tmp_path}")
    install(monkeypatch, "chronos", BaseChronosPipeline=BoltPipeline)
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(
        InvalidInputError, match=r"cannot load the weights in .*broken: no config\.json"
    ):
        make(f"chronos:{broken}")
