"""Frames as people have them, brought to one long pandas frame with plain columns.

pandas with any types and indexes, long or wide; polars, pyarrow and whatever else narwhals knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.tables.table import Columns
from freshet.model.tables.told import tell
from freshet.stream.errors import FreshetError, InvalidInputError
from freshet.stream.files.times import times_of, unreadable

if TYPE_CHECKING:
    import pandas as pd

ITEM_NAMES = ("item_id", "unique_id")
TIME_NAMES = ("timestamp", "ds")
TARGET_NAMES = ("target", "y")
ONLY_SERIES = "series"
# What the command line calls the arguments.
OPTIONS = {"id_column": "--item-id", "timestamp_column": "--time", "target": "--target"}


@dataclass(frozen=True, slots=True)
class Named:
    """What the caller calls the columns of its frames; None: by one of the usual names.

    Attributes:
        item_id: column with the name of a series.
        timestamp: column with the time.
        target: column with what is forecast.
        known: columns known in advance; None: those that the frame of the steps ahead shares.
        past: columns known up to the last row only.
        static: columns that do not change within a series.
    """

    item_id: str | None = None
    timestamp: str | None = None
    target: str | None = None
    known: Sequence[str] | None = None
    past: Sequence[str] = ()
    static: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A long pandas frame, that of the steps ahead where there is one, and their columns."""

    frame: pd.DataFrame
    columns: Columns
    future: pd.DataFrame | None = None


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a library says of a frame that it cannot use, as one of our own errors."""
    try:
        yield
    except FreshetError:
        raise
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        OverflowError,
        ArithmeticError,
    ) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise InvalidInputError(
            f"the table cannot be used: {text[0]}",
            hint="give a long frame: an item, a time and a number a row",
        ) from error


def given(frame: Any, named: Named, future: Any = None) -> Given:
    """The frames as they are read from here on.

    Raises:
        InvalidInputError: it is no frame, or its columns are none of the usual and were not named.
    """
    long = _long(plain(frame), named)
    item_id = _column(long, named.item_id, ITEM_NAMES, "id_column", optional=True)
    timestamp = _column(long, named.timestamp, TIME_NAMES, "timestamp_column")
    target = _column(long, named.target, TARGET_NAMES, "target")
    assert timestamp is not None and target is not None
    if item_id is None:
        item_id = ITEM_NAMES[0]
        long = long.assign(**{item_id: ONLY_SERIES})
    told = _told(plain(future), item_id, timestamp, long) if future is not None else None
    known = tuple(named.known or ())
    roles = {item_id, timestamp, target, *named.past, *named.static}
    if named.known is None:
        known = _known(long, told, roles, timestamp, target)
    for name in (*known, *named.past, *named.static):
        if not isinstance(name, str):
            raise InvalidInputError(f"the column {name!r} is called by no text", hint="rename it")
    columns = Columns(item_id, timestamp, target, known, tuple(named.past), tuple(named.static))
    return Given(long, columns, told)


def plain(frame: Any) -> pd.DataFrame:
    """Any frame as pandas, its index as columns where that has a name or holds times."""
    import pandas as pd

    if isinstance(frame, pd.Series):
        frame = frame.to_frame(frame.name if frame.name is not None else TARGET_NAMES[0])
    if not isinstance(frame, pd.DataFrame):
        frame = _from_elsewhere(frame)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InvalidInputError(f"the frame has two columns {twice[0]!r}", hint="rename one")
    if any(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes):
        frame = _without_arrow(frame)
    return frame


def like(frame: pd.DataFrame, original: Any) -> Any:
    """A pandas frame as the kind of frame that the original is."""
    import narwhals as nw
    import pandas as pd

    if isinstance(original, pd.DataFrame | pd.Series):
        return frame
    import pyarrow as pa

    backend = nw.from_native(original).implementation
    if backend.is_pyarrow():
        return pa.Table.from_pandas(frame, preserve_index=False)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return nw.from_arrow(table, backend=backend).to_native()


def _from_elsewhere(frame: Any) -> pd.DataFrame:
    import narwhals as nw

    try:
        found = nw.from_native(frame)
    except TypeError:
        raise InvalidInputError(
            f"a {type(frame).__name__} is no frame", hint="give pandas, polars or pyarrow"
        ) from None
    if isinstance(found, nw.LazyFrame):
        found = found.collect()
    pandas: pd.DataFrame = found.to_pandas()
    return pandas


def _without_arrow(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of Arrow's types as those that pandas always had."""
    import pandas as pd
    import pyarrow as pa

    changed = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.ArrowDtype):
            values = pa.Table.from_pandas(frame[[name]], preserve_index=False).column(0)
            changed[name] = values.to_pandas().set_axis(frame.index)
    return frame.assign(**changed)


def _long(frame: pd.DataFrame, named: Named) -> pd.DataFrame:
    """A long frame: an index of times or names becomes columns, a wide table is turned."""
    import pandas as pd

    index = frame.index
    times = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)
    time = named.timestamp or TIME_NAMES[0]
    if isinstance(index, pd.MultiIndex):
        return _with_levels(frame, named)
    if not times:
        return frame.reset_index() if index.name is not None else frame
    if _is_wide(frame, named):
        item, target = named.item_id or ITEM_NAMES[0], named.target or TARGET_NAMES[0]
        turned = frame.rename_axis(index=time).reset_index()
        return turned.melt(id_vars=time, var_name=item, value_name=target)
    if index.name is None:
        index = index.rename(time)
    return frame.set_axis(index).reset_index()


def _with_levels(frame: pd.DataFrame, named: Named) -> pd.DataFrame:
    """The levels of an index as columns: that of times, and that of items."""
    import pandas as pd

    names = []
    for level, name in enumerate(frame.index.names):
        values = frame.index.levels[level]
        times = isinstance(values, pd.DatetimeIndex | pd.PeriodIndex)
        usual = (named.timestamp or TIME_NAMES[0]) if times else (named.item_id or ITEM_NAMES[0])
        names.append(name if name is not None else usual)
    return frame.rename_axis(index=names).reset_index()


def _is_wide(frame: pd.DataFrame, named: Named) -> bool:
    """Whether each column of an index of times is a series."""
    import pandas as pd

    usual = {*ITEM_NAMES, *TIME_NAMES, *TARGET_NAMES, named.item_id, named.target}
    numbers = all(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
    return numbers and not usual & set(frame.columns)


def _column(
    frame: pd.DataFrame,
    name: str | None,
    usual: tuple[str, ...],
    argument: str,
    *,
    optional: bool = False,
) -> str | None:
    """The column of a role, as it was named or by one of its usual names."""
    there = [name] if name is not None else [each for each in usual if each in frame.columns]
    if not there and optional:
        return None
    if len(there) != 1 or there[0] not in frame.columns:
        names = [repr(each) for each in ([name] if name is not None else usual)]
        both = len(there) > 1
        message = (
            f"has both {' and '.join(names)}" if both else f"has no column {' or '.join(names)}"
        )
        has = ", ".join(map(str, frame.columns))
        raise InvalidInputError(
            f"the table {message}",
            hint=f"name it with {argument}= ({OPTIONS[argument]}); it has {has}",
        )
    return there[0]


def _told(future: pd.DataFrame, item_id: str, timestamp: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of the steps ahead, long and with an item."""
    long = _long(future, Named(item_id, timestamp))
    only = frame[item_id].drop_duplicates()
    if item_id not in long.columns and len(only) == 1:
        long = long.assign(**{item_id: only.iloc[0]})
    return long


def _known(
    frame: pd.DataFrame,
    future: pd.DataFrame | None,
    roles: set[str],
    timestamp: str,
    target: str,
) -> tuple[str, ...]:
    """Columns that are told of steps ahead: of another frame, or of rows without a target."""
    if future is None:
        ahead = frame[_after_last_target(frame, timestamp, target)]
        return tuple(n for n in ahead.columns if n not in roles and ahead[n].notna().any())
    told = [name for name in future.columns if name not in roles]
    shared = tuple(name for name in told if name in frame.columns)
    strange = [name for name in told if name not in frame.columns]
    if strange:
        message = f"the table has no column {', '.join(map(repr, strange))}, which is told ahead"
        if not shared:
            raise InvalidInputError(message, hint=f"it has {', '.join(map(str, frame.columns))}")
        tell(f"{message}: not used")
    return shared


def _after_last_target(frame: pd.DataFrame, timestamp: str, target: str) -> Any:
    times, sold = frame[timestamp], frame[target].notna().to_numpy(bool)
    if not sold.any() or sold.all() or times.isna().any() or unreadable(times).any():
        return np.zeros(len(frame), bool)
    clock_ms_R = times_of(times).clock_ms_R
    return clock_ms_R > clock_ms_R[sold].max()
