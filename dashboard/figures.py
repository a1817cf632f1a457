"""Numbers as the page gets them: few digits, and None for what nobody knows."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

Json = dict[str, Any]


def numbers(values: npt.NDArray[Any]) -> list[float | None]:
    """Four significant digits, None for NaN: what a chart needs, in few bytes."""
    return [None if value != value else float(f"{value:.4g}") for value in values.tolist()]


def figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
