"""A window in, quantiles out, from whatever freshet is compared with.

Yardsticks, classical methods, learners on features, other people's networks: `make` gives each by
its name, and heavy libraries are imported only by the model that needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError


class Model(Protocol):
    """What forecasts windows; it may keep what `fit` learned, and sees nothing but windows."""

    @property
    def name(self) -> str:
        """The name in tables."""

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` must come before `predict`."""

    def fit(self, window: Window) -> None:
        """Learn from a window's own past; may be called again with a later window."""

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Finite, sorted quantiles [N, H, Q], also of series that `fit` never saw."""


_MODULES = {
    "seasonal_naive": "yardsticks",
    "naive": "yardsticks",
    "moving_average": "yardsticks",
    "croston_sba": "statistical",
    "tsb": "statistical",
    "auto_ets": "statistical",
    "auto_theta": "statistical",
    "snarimax": "online",
    "linear": "linear",
    "lightgbm": "lightgbm",
    "lstm": "lstm",
}
NAMES = tuple(_MODULES)
# These need weights: "chronos:FOLDER", "timesfm:FOLDER".
ADAPTERS = ("chronos", "timesfm")


def make(name: str) -> Model:
    """The baseline of a name in `NAMES`, or another network by "chronos:FOLDER", "timesfm:FOLDER".

    Raises:
        InvalidInputError: there is none of that name; for other networks, the folder or the library
            is missing.
    """
    kind, _, place = name.partition(":")
    if kind in ADAPTERS:
        adapter: Model = import_module("freshet.model.baselines.adapters").make(kind, place)
        return adapter
    if name not in _MODULES:
        raise InvalidInputError(
            f"there is no model {name!r}",
            hint=f"choose from {', '.join(NAMES)}, chronos:FOLDER or timesfm:FOLDER",
        )
    build: Callable[[str], Model] = import_module(f"freshet.model.baselines.{_MODULES[name]}").make
    return build(name)
