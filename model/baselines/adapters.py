"""Pre-trained networks of others, for whoever has their libraries and weights: Chronos, TimesFM.

Neither library is a dependency of freshet and nothing is downloaded: weights are a folder on this
machine. Dimensions: N series, T context steps, H horizon steps, Q quantile levels, D levels that a
network gives itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np

from freshet.model.baselines.tidy import forward_filled, tidy
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError

LONGEST = 2_048  # newest steps a network is shown
BATCH = 256
TIMESFM_LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


class Chronos:
    """A Chronos, Chronos-Bolt or Chronos-2 model; only Chronos-2 is shown the covariates."""

    needs_fit = False

    def __init__(self, folder: Path) -> None:
        self.name = f"chronos:{folder}"
        library = _library("chronos", "chronos-forecasting")
        self._pipeline = library.BaseChronosPipeline.from_pretrained(str(folder), device_map="cpu")
        self._with_covariates = type(self._pipeline).__name__ == "Chronos2Pipeline"

    def fit(self, window: Window) -> None:
        """Nothing to learn: it is used as it is."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]; beyond the levels that it was trained on, its outermost ones."""
        parts = []
        for start in range(0, len(window), BATCH):
            some = window.rows(slice(start, start + BATCH))
            parts.append(self._batch(some, levels))
        return tidy(np.concatenate(parts), window)

    def _batch(self, window: Window, levels: tuple[float, ...]) -> Floats:
        import torch

        inputs: list[Any]
        if self._with_covariates:
            inputs = _chronos2_inputs(window)
        else:
            inputs = [torch.tensor(past_T, dtype=torch.float32) for past_T in _histories(window)]
        quantiles, _ = self._pipeline.predict_quantiles(
            inputs,
            prediction_length=window.horizon,
            quantile_levels=list(levels),
        )
        # Chronos-2 answers with a list of [1, H, Q], the others with one tensor [N, H, Q].
        rows = []
        for series in quantiles:
            values = np.asarray(series, np.float64)
            rows.append(values.reshape(window.horizon, -1))
        return np.stack(rows)


class TimesFM:
    """TimesFM 2.5, which looks at the target alone."""

    needs_fit = False

    def __init__(self, folder: Path) -> None:
        self.name = f"timesfm:{folder}"
        self._library = _library("timesfm", "timesfm[torch]")
        self._model = self._library.TimesFM_2p5_200M_torch.from_pretrained(str(folder))
        self._horizon = 0

    def fit(self, window: Window) -> None:
        """Nothing to learn: it is used as it is."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q], between its nine levels and beyond them on a normal scale."""
        if window.horizon > self._horizon:
            self._horizon = window.horizon
            self._model.compile(
                self._library.ForecastConfig(
                    max_context=LONGEST,
                    max_horizon=self._horizon,
                    normalize_inputs=True,
                    use_continuous_quantile_head=True,
                    infer_is_positive=True,
                    fix_quantile_crossing=True,
                )
            )
        inputs = [series_T.astype(np.float32) for series_T in _histories(window)]
        _, answer_NHX = self._model.forecast(horizon=window.horizon, inputs=inputs)
        # The first column is the mean.
        given_NHD = np.asarray(answer_NHX, np.float64)[:, : window.horizon, 1:]
        return tidy(at_normal_levels(given_NHD, TIMESFM_LEVELS, levels), window)


def make(kind: str, place: str) -> Chronos | TimesFM:
    """The network in a folder.

    Raises:
        InvalidInputError: the folder or the library is missing, or the library cannot read the
            folder.
    """
    folder = Path(place)
    if not place or not folder.is_dir():
        raise InvalidInputError(
            f"{kind}:{place} names no folder with weights",
            hint=f"download a model and give its folder: {kind}:FOLDER",
        )
    try:
        return Chronos(folder) if kind == "chronos" else TimesFM(folder)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InvalidInputError(
            f"the {kind} library cannot load the weights in {folder}: {error}",
            hint="the folder must hold what save_pretrained or a download of the whole model wrote",
        ) from error


def at_normal_levels(
    given_NHD: Floats, own_levels: Sequence[float], levels: Sequence[float]
) -> Floats:
    """Quantiles at other levels, linear in the normal score: [N, H, Q].

    So tails go on as a normal distribution's would, instead of ending at the outermost level.

    >>> given = np.array([[[1.0, 2.0, 3.0]]])
    >>> at_normal_levels(given, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9)).round(6).tolist()
    [[[1.0, 2.0, 3.0]]]
    >>> at_normal_levels(given, (0.1, 0.5, 0.9), (0.99,)).round(2).tolist()
    [[[3.82]]]
    """
    normal = NormalDist()
    own_D = np.array([normal.inv_cdf(level) for level in own_levels])
    asked_Q = np.array([normal.inv_cdf(level) for level in levels])
    # The two own levels around each one asked for; beyond the outermost, the line goes on.
    upper_Q = np.searchsorted(own_D, asked_Q).clip(1, len(own_D) - 1)
    lower_Q = upper_Q - 1
    distance_Q = own_D[upper_Q] - own_D[lower_Q]
    share_Q = (asked_Q - own_D[lower_Q]) / distance_Q
    below_NHQ = given_NHD[..., lower_Q] * (1 - share_Q)
    above_NHQ = given_NHD[..., upper_Q] * share_Q
    return np.asarray(below_NHQ + above_NHQ)


def _library(name: str, package: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise InvalidInputError(
            f"the library {name!r} is not installed", hint=f"pip install '{package}'"
        ) from error


def _histories(window: Window) -> list[Floats]:
    """Each series from its first value on, gaps filled; a single 0 where there is none."""
    found = []
    for filled_T in forward_filled(window.target_NT):
        series_T = filled_T[np.isfinite(filled_T)][-LONGEST:]
        found.append(series_T if len(series_T) else np.zeros(1))
    return found


def _chronos2_inputs(window: Window) -> list[dict[str, Any]]:
    """A dictionary a series: its target, and the covariates of the same steps."""
    inputs: list[dict[str, Any]] = []
    T = window.context_length
    for row, series_T in enumerate(_histories(window)):
        context = slice(T - len(series_T), T)
        known = dict(zip(window.known_names, window.known_NSK[row].T, strict=True))
        past = dict(zip(window.past_names, window.past_NTP[row].T, strict=True))
        before = {name: values[context] for name, values in (known | past).items()}
        ahead = {name: values[T:] for name, values in known.items()}
        inputs.append({"target": series_T, "past_covariates": before, "future_covariates": ahead})
    return inputs
