"""Pictures as files: the same picture is the same file, and nothing of it is left behind."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Text that stays text, and names inside that do not change from run to run.
REPEATABLE = {"svg.fonttype": "none", "svg.hashsalt": "freshet"}


@contextmanager
def drawing(**settings: Any) -> Iterator[None]:
    """Everything drawn meanwhile is repeatable; other settings of matplotlib on top."""
    import matplotlib

    with matplotlib.rc_context(REPEATABLE | settings):
        yield


def save(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure in the format that the suffix names; SVG without the date."""
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, dpi=dpi, metadata=metadata)


def svg(figure: Figure) -> str:
    """A figure as an SVG element, to be put into a page."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def date_axis(axes: Any, *, fewest: int, most: int, **formats: Any) -> None:
    """Label a time axis with that many dates, each as short as it can be."""
    from matplotlib import dates as untyped

    dates: Any = untyped
    locator = dates.AutoDateLocator(minticks=fewest, maxticks=most)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, **formats))
