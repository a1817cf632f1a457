"""Kinds of series: by which static columns siblings are told apart, and what each series is.

Dimensions: N series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats, Ints

MAX_COLUMNS = 3
MAX_VALUES = 64
BANDS = 3  # of a number, as many series in each
MIN_IN_KIND = 4  # series of one value, on average
LEAST_GAIN = 0.01  # of what the kinds explain, for one more column


@dataclass(frozen=True, slots=True)
class Column:
    """A static column; of numbers, the edges of its bands.

    Attributes:
        name: as the window has it.
        edges: rising; empty for texts.
    """

    name: str
    edges: tuple[float, ...] = ()


def paths(window: Window, columns: tuple[Column, ...]) -> list[tuple[str, ...]]:
    """The kind of each series, by one column after the other: N paths."""
    told = [_told(window.static.get(column.name), column, len(window)) for column in columns]
    return [tuple(values[row] for values in told) for row in range(len(window))]


def articles(window: Window) -> Ints:
    """Which series are of one article as far as one can see, numbered: [N].

    Those whose static numbers are all alike: one price in four regions is one article, and four
    regions that sell alike say no more than one of them.
    """
    told = [
        np.nan_to_num(np.asarray(values, np.float64), nan=-1.0)
        for values in window.static.values()
        if values.dtype != object
    ]
    if not told:
        return np.arange(len(window))
    _, article_N = np.unique(np.stack(told, 1), axis=0, return_inverse=True)
    return article_N.reshape(-1).astype(np.int64)


def find_columns(window: Window, log_level_N: Floats) -> tuple[Column, ...]:
    """The columns that best tell who sells much and who little, the best first.

    One counts by what it explains beyond what as many drawn at random would.
    """
    num_articles = len(np.unique(articles(window)))
    open_columns = [
        column
        for name, values in window.static.items()
        if (column := _column(name, values)) is not None
    ]
    chosen: tuple[Column, ...] = ()
    explained = 0.0
    while open_columns and len(chosen) < MAX_COLUMNS:
        gains = [
            _explained(paths(window, (*chosen, column)), log_level_N, num_articles)
            for column in open_columns
        ]
        best = int(np.argmax(gains))
        if gains[best] < explained + LEAST_GAIN:
            break
        explained = gains[best]
        chosen = (*chosen, open_columns.pop(best))
    return chosen


def _column(name: str, values: Floats | NDArray[np.object_]) -> Column | None:
    """A static column by which series can be told apart, or None."""
    if values.dtype == object:
        known = {str(value) for value in values if value is not None}
        few = min(MAX_VALUES, len(values) // MIN_IN_KIND)
        return Column(name) if 2 <= len(known) <= few else None
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < BANDS * MIN_IN_KIND:
        return None
    edges = np.unique(np.quantile(numbers, np.arange(1, BANDS) / BANDS))
    return Column(name, tuple(edges.tolist())) if numbers.min() < edges[-1] else None


def _told(
    values: Floats | NDArray[np.object_] | None, column: Column, num_series: int
) -> list[str]:
    if values is None:
        return [""] * num_series
    if not column.edges:
        return ["" if value is None else str(value) for value in values]
    band_N: Ints = np.searchsorted(np.array(column.edges), np.asarray(values, np.float64))
    known_N = np.isfinite(np.asarray(values, np.float64))
    return [str(band) if known else "" for band, known in zip(band_N, known_N, strict=True)]


def _explained(path_N: list[tuple[str, ...]], values_N: Floats, num_articles: int) -> float:
    """The share of the variance that kinds explain, less what chance would: adjusted R squared.

    Chance is that of as many articles, not of their series.
    """
    number = {path: place for place, path in enumerate(dict.fromkeys(path_N))}
    kind_N = np.array([number[path] for path in path_N])
    count_G = np.bincount(kind_N)
    mean_G = np.bincount(kind_N, values_N) / count_G
    free = num_articles - len(count_G)
    total = float(((values_N - values_N.mean()) ** 2).sum())
    if free < 1 or not total > 0:
        return 0.0
    left = float(((values_N - mean_G[kind_N]) ** 2).sum())
    return 1.0 - left / free * (num_articles - 1) / total
