"""Levels above the items of a table: which items add up to what, and series of the sums.

Dimensions: N items, G groups of a level, T context steps, S context and horizon steps, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array, vstack

from freshet.model.tables.items import rows_of
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

TOTAL = "total"
# A sum is known where those of its items that were seen usually sell so much of it.
SEEN_SHARE = 0.5


class Grouping(NamedTuple):
    """Items in groups, each item in one: a level of a hierarchy.

    Attributes:
        name: the columns that make a group, joined by "/", or "total".
        groups: G different names, the values of those columns joined by "/", sorted.
        group_N: the group of each item.
    """

    name: str
    groups: tuple[str, ...]
    group_N: Ints

    @property
    def members_GN(self) -> csr_array:
        """1 where an item belongs to a group."""
        N = len(self.group_N)
        cells = (np.ones(N), (self.group_N, np.arange(N)))
        return csr_array(cells, shape=(len(self.groups), N))

    def sums(self, values_NX: Floats) -> Floats:
        """Values of items added up by group: [G, ...]."""
        flat_NX = values_NX.reshape(len(values_NX), -1)
        found_GX = np.asarray(self.members_GN @ flat_NX)
        return found_GX.reshape(len(self.groups), *values_NX.shape[1:])


def groupings_of(
    frame: pd.DataFrame, item_column: str, keys: Sequence[object], names: Sequence[str]
) -> tuple[Grouping, ...]:
    """How a table's items are grouped at each level, in the order asked for.

    Args:
        frame: a row says to which store, department, ... its item belongs.
        item_column: the name of the item.
        keys: N items, as the table calls them.
        names: of columns, joined by "/" where several make a group; "total" is all items together.

    Raises:
        InvalidInputError: a column is missing or has no value for an item, an item belongs to two
            groups, two groups would have one name, or a level is named twice.
    """
    if isinstance(names, str):
        raise InvalidInputError(f"levels is the text {names!r}", hint="give a list of texts")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or item_column in names:
        what = f"{twice[0]!r} is asked for twice" if twice else f"{item_column!r} is that of items"
        raise InvalidInputError(f"the level {what}", hint="name the levels above items, each once")
    row_R = rows_of(frame[item_column], tuple(keys))
    return tuple(_level(frame[row_R >= 0], row_R[row_R >= 0], keys, name) for name in names)


def _level(frame: pd.DataFrame, row_R: Ints, keys: Sequence[object], name: str) -> Grouping:
    if name == TOTAL and TOTAL not in frame.columns:
        return Grouping(name, (TOTAL,), np.zeros(len(keys), np.int64))
    # A column may have the "/" in its own name.
    columns = [name] if name in frame.columns else name.split("/")
    values = [_values(frame, row_R, keys, column, name) for column in columns]
    paths = list(zip(*values, strict=True))
    named: dict[str, tuple[str, ...]] = {}
    for path in paths:
        text = "/".join(path)
        if named.setdefault(text, path) != path:
            raise InvalidInputError(
                f"two groups of the level {name!r} would both be called {text!r}",
                hint=f"they are {named[text]} and {path}; write one of them without a slash",
            )
    groups = sorted(named)
    place = {text: index for index, text in enumerate(groups)}
    return Grouping(
        name, tuple(groups), np.array([place["/".join(path)] for path in paths], np.int64)
    )


def _values(
    frame: pd.DataFrame, row_R: Ints, keys: Sequence[object], column: str, level: str
) -> list[str]:
    """What a column says of each item, as text."""
    if column not in frame.columns:
        raise InvalidInputError(
            f"the level {level!r} needs a column {column!r}",
            hint=f"the table has {', '.join(map(str, frame.columns))}",
        )
    told_R = frame[column].notna().to_numpy(bool)
    text_R = frame[column].map(_text).to_numpy(object)
    found: dict[int, str] = {}
    for row, text in zip(row_R[told_R], text_R[told_R], strict=True):
        if found.setdefault(int(row), text) != text:
            raise InvalidInputError(
                f"item {keys[row]!r} belongs to two groups of {column!r}: {found[int(row)]!r} and "
                f"{text!r}",
                hint="make it two items, one a group",
            )
    without = [key for row, key in enumerate(keys) if row not in found]
    if without:
        raise InvalidInputError(
            f"{len(without)} of {len(keys)} items have no {column!r}, first {without[0]!r}, and "
            f"the level {level!r} would not add up",
            hint="give them one, such as 'other'",
        )
    return [found[row] for row in range(len(keys))]


def _text(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]


def members_of(groupings: Sequence[Grouping]) -> csr_array:
    """1 where an item belongs to a group, of all levels' groups one after the other: [G, N]."""
    return csr_array(vstack([grouping.members_GN for grouping in groupings]))


def summed(window: Window, grouping: Grouping) -> Window:
    """The series of groups, from those of their items.

    All series end together. Covariates are means over a group's items, by what these usually sell.
    """
    seen_NT = np.isfinite(window.target_NT)
    sold_NT = np.where(seen_NT, window.target_NT, 0.0)
    usual_N = sold_NT.sum(1) / np.maximum(seen_NT.sum(1), 1)
    begun_NT = _begun(window, seen_NT)
    # Nothing sells before it begins; a missing step of what did is filled by what others sold.
    due_GT = grouping.sums(usual_N[:, None] * begun_NT)
    shown_GT = grouping.sums(usual_N[:, None] * seen_NT)
    any_GT = grouping.sums(seen_NT.astype(float)) > 0
    known_GT = any_GT & (shown_GT >= SEEN_SHARE * due_GT)
    share_GT = np.where(shown_GT > 0, due_GT / np.maximum(shown_GT, 1e-12), 1.0)
    target_GT = np.where(known_GT, grouping.sums(sold_NT) * share_GT, np.nan)
    first_G = np.unique(grouping.group_N, return_index=True)[1]
    longest_G = None
    if window.length_N is not None:
        longest_G = np.zeros(len(grouping.groups), np.int64)
        np.maximum.at(longest_G, grouping.group_N, window.length_N)
    return replace(
        window,
        item_ids=grouping.groups,
        time_ms_NS=window.time_ms_NS[first_G],
        target_NT=target_GT,
        known_NSK=_mean(window.known_NSK, usual_N, grouping),
        past_NTP=_mean(window.past_NTP, usual_N, grouping),
        static={},
        length_N=longest_G,
        local_ms_NS=None if window.local_ms_NS is None else window.local_ms_NS[first_G],
    )


def _begun(window: Window, seen_NT: Bools) -> Bools:
    """From which step on each series is there: [N, T]."""
    if window.length_N is None:
        return np.logical_or.accumulate(seen_NT, axis=1)
    first_N = window.context_length - window.length_N
    return np.asarray(np.arange(window.context_length) >= first_N[:, None])


def _mean(values_NSK: Floats, usual_N: Floats, grouping: Grouping) -> Floats:
    seen_NSK = np.isfinite(values_NSK)
    # Items that never sold count a little, so that a group of none but such has a mean too.
    weight_N11 = (usual_N + 1e-6)[:, None, None]
    sum_GSK = grouping.sums(np.where(seen_NSK, values_NSK, 0.0) * weight_N11)
    weight_GSK = grouping.sums(seen_NSK * weight_N11)
    return np.where(weight_GSK > 0, sum_GSK / np.maximum(weight_GSK, 1e-12), np.nan)
