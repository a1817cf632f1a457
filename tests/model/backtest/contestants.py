"""Models for tests of a comparison: one that learns, one that fails, one that forgets to answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freshet.model.backtest.workers import FineTune
from freshet.model.baselines import Model
from freshet.model.baselines.yardsticks import SeasonalNaive
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError


@dataclass(slots=True)
class Constant:
    """Forecasts the mean of the window it was last fitted on; notes its calls in a file, if any."""

    name: str = "constant"
    diary: Path | None = None
    value: float = float("nan")
    needs_fit: bool = True

    def fit(self, window: Window) -> None:
        self.value = float(np.nanmean(window.target_NT))
        self._note(f"fit {window.context_length}")

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        self._note(f"predict {window.context_length}")
        return np.full((len(window), window.horizon, len(levels)), self.value)

    def _note(self, text: str) -> None:
        if self.diary:
            with self.diary.open("a") as file:
                file.write(text + "\n")


@dataclass(slots=True)
class Failing:
    """Fails as its name says."""

    name: str
    needs_fit: bool = False

    def fit(self, window: Window) -> None:
        """Nothing to learn."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        answer = seasonal(window, levels)
        if self.name == "raises" and window.context_length > 30:
            raise RuntimeError("no forecast today\nand more")
        if self.name == "dies":
            os._exit(3)
        if self.name == "forgets":
            answer[1, 2, 3] = np.nan
        return answer[:1] if self.name == "short" else answer


def seasonal(window: Window, levels: tuple[float, ...]) -> Floats:
    return SeasonalNaive().predict(window, levels)


def make(name: str, fine_tune: FineTune) -> Model:
    """Any contestant by name, importable by other processes."""
    if name == "seasonal_naive":
        return SeasonalNaive()
    if name.startswith("constant"):
        return Constant(name, Path(name.partition(":")[2]) if ":" in name else None)
    if name in {"raises", "dies", "forgets", "short"}:
        return Failing(name)
    if name == "unbuildable":
        raise RuntimeError("a library is missing")
    raise InvalidInputError(f"there is no model {name!r}")
