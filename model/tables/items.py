"""The names of series: each row's series, and which of them the rows of another table mean.

Dimensions: R rows, N series.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from freshet.stream.arrays import Ints

if TYPE_CHECKING:
    import pandas as pd

NOBODY = -1


class Items(NamedTuple):
    """The series of a table.

    Attributes:
        names: N different texts, sorted.
        keys: what each is called in the table: a number, a text.
        code_R: the series of each row.
    """

    names: tuple[str, ...]
    keys: tuple[object, ...]
    code_R: Ints


def items_of(column: pd.Series) -> Items:
    """The series of a column without missing values; the number 1 and the text "1" are two."""
    import pandas as pd

    code_R, found = pd.factorize(column)
    keys = [_plain(key) for key in found]
    texts = [str(key) for key in keys]
    twice = {text for text, count in Counter(texts).items() if count > 1}
    names = [
        repr(key) if text in twice and isinstance(key, str) else text
        for key, text in zip(keys, texts, strict=True)
    ]
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return Items(
        tuple(names[index] for index in order),
        tuple(keys[index] for index in order),
        place[code_R] if len(order) else np.zeros(0, np.int64),
    )


def rows_of(column: pd.Series, keys: tuple[object, ...]) -> Ints:
    """Which of the series each row means: by its value, else by its text; NOBODY for others.

    A table that came through a file knows texts where another knows numbers.
    """
    import pandas as pd

    by_key = {key: row for row, key in enumerate(keys)}
    texts = Counter(str(key) for key in keys)
    by_text = {str(key): row for key, row in by_key.items() if texts[str(key)] == 1}
    code_R, found = pd.factorize(column)
    values = [_plain(value) for value in found]
    row = [by_key.get(value, by_text.get(str(value), NOBODY)) for value in values]
    # Rows without an item have the code -1: the last entry.
    meant_R: Ints = np.array([*row, NOBODY], np.int64)[code_R]
    return meant_R


def _plain(key: object) -> object:
    """A name as Python knows it; 7.0, which is what a 7 becomes beside missing ones, is 7."""
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, float) and key.is_integer():
        return int(key)
    return key
