"""An explanation as a picture: the forecast after its history, where the network looked, and what
adds how much.
"""

from __future__ import annotations

import html
import io
import itertools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from freshet.model.explain.shapley import Contribution, step_name
from freshet.model.explain.words import (
    LOOKED_NOT_A_CAUSE,
    Explanation,
    headline,
    moment,
    noticeable,
    number,
)
from freshet.stream.arrays import Floats, Reals
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".html")
SHOWN_HORIZONS = 5  # of history, so that the forecast takes a sixth of the width
FEWEST_SHOWN = 96
INK, FAINT, SOLD, FAN = "#1c2733", "#8a94a0", "#4a5764", "#1f6f9f"
ADDS, TAKES, LOOK = "#2a8f6f", "#c8553d", "#7a5ea8"
FANS = ((0.05, 0.95, 0.15), (0.1, 0.9, 0.22), (0.25, 0.75, 0.35))


def plot(found: Explanation, path: Path) -> None:
    """Draw an explanation into a file; its suffix says how.

    Raises:
        InvalidInputError: the suffix is none of .png, .svg and .html.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInputError(
            f"{path} asks for a picture as {path.suffix or 'nothing'}",
            hint=f"end the name in {', '.join(SUFFIXES)}",
        )
    import matplotlib

    # Without a date and with known names inside, the same explanation is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "freshet"}):
        if path.suffix.lower() == ".html":
            path.write_text(_page(found, draw(found)), "utf-8")
        else:
            draw(found).savefig(
                path, dpi=144, metadata={"Date": None} if path.suffix.lower() == ".svg" else None
            )


def draw(found: Explanation) -> Figure:
    """The picture as a matplotlib figure; nothing of it is left behind, and no display is asked
    for.
    """
    from matplotlib.figure import Figure

    parts = noticeable(found.shapley)
    bars_height = 1.1 + 0.36 * (len(parts) + 3)
    figure = Figure(figsize=(10, 5.0 + bars_height), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[5.0, bars_height], squeeze=False).ravel()
    upper.suptitle(
        "\n".join(textwrap.wrap(headline(found), 112)), x=0.01, ha="left", fontsize=12, color=INK
    )
    sales, looked = upper.subplots(2, 1, sharex=True, height_ratios=[8, 1])
    _draw_sales(sales, found)
    _draw_looked(looked, found)
    _draw_bars(lower.subplots(), found, parts)
    return figure


def _shown(found: Explanation) -> int:
    """Steps of history in the picture: what was seen, but not so much that the forecast shrinks to
    a line.
    """
    seen = np.flatnonzero(np.isfinite(found.target_T))
    history = len(found.target_T) - int(seen[0]) if len(seen) else 1
    return max(1, min(history, max(SHOWN_HORIZONS * len(found.quantiles_HQ), FEWEST_SHOWN)))


def _draw_sales(axes: Axes, found: Explanation) -> None:
    horizon, shown = len(found.quantiles_HQ), _shown(found)
    times = _times(found, np.arange(-shown, 0))
    axes.plot(
        times,
        found.target_T[-shown:],
        color=SOLD,
        linewidth=1.1,
        marker=".",
        markersize=3,
        label="sold",
    )
    ahead, levels = _times(found, np.arange(horizon)), np.array(found.levels)
    width = {"marker": "o", "markersize": 4} if horizon == 1 else {}
    for low, high, alpha in FANS:
        low_H, high_H = (
            found.quantiles_HQ[:, int(np.abs(levels - level).argmin())] for level in (low, high)
        )
        _fill(axes, ahead, low_H, high_H, alpha)
    median_H, style = (
        found.quantiles_HQ[:, int(np.abs(levels - 0.5).argmin())],
        {"color": FAN, "linewidth": 1.8},
    )
    label = (
        f"forecast from {moment(found.cutoff_ms, found.resolution_ms)}, with 50, 80 and 90 % ranges"
    )
    axes.plot(ahead, median_H, label=label, **style, **width)  # type: ignore[arg-type]
    axes.axvline(
        _times(found, np.array([-0.5]))[0], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3))
    )
    explained = found.shapley.steps
    if len(explained) < horizon:
        edges = _times(found, np.array([explained.start - 0.5, explained.stop - 0.5]))
        axes.axvspan(
            edges[0], edges[1], color=FAINT, alpha=0.15, linewidth=0, label="explained steps"
        )
    start, end = _times(found, np.array([-shown - 0.5, horizon - 0.5]))
    axes.set_xlim(start, end + (end - start) // 100)
    top = max(axes.get_ylim()[1], 1.0)
    axes.set_ylim(0.0, 1.12 * top)
    axes.set_ylabel(f"units per {step_name(found.resolution_ms)}", color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9, ncols=3)
    axes.tick_params(labelbottom=False)
    _bare(axes)


def _fill(
    axes: Any, ahead: NDArray[np.datetime64], low_H: Floats, high_H: Floats, alpha: float
) -> None:
    if len(ahead) == 1:
        axes.vlines(ahead, low_H, high_H, color=FAN, alpha=alpha, linewidth=8)
    else:
        axes.fill_between(ahead, low_H, high_H, color=FAN, alpha=alpha, linewidth=0)


def _draw_looked(axes: Axes, found: Explanation) -> None:
    """A strip under the history, darker where the network looked more."""
    past = [part for part in found.looked if part.what == "past"]
    highest = max((part.share for part in past), default=1.0) or 1.0
    for part in past:
        assert part.first is not None and part.last is not None
        start, end = _times(found, np.array([part.first - 0.5, part.last + 0.5]))
        axes.axvspan(start, end, color=LOOK, alpha=0.85 * part.share / highest, linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("looked at", rotation=0, ha="right", va="center", color=INK, fontsize=9)
    shown = _shown(found)
    earlier = sum(part.share for part in past if part.last is not None and part.last < -shown)
    rest = {part.what: part.share for part in found.looked if part.what != "past"}
    aside = [
        f"{100 * share:.0f} % {what}"
        for share, what in (
            (earlier, "before what is shown"),
            (rest["plan"], "at the plan ahead"),
            (rest["item"], "at the item"),
        )
        if share >= 0.005
    ]
    text = f"Darker: looked there more. Beside that: {', '.join(aside)}. {LOOKED_NOT_A_CAUSE}"
    axes.set_xlabel(text, color=FAINT, fontsize=9, loc="left")
    _dates(axes)
    _bare(axes)
    axes.spines["left"].set_visible(False)


def _draw_bars(axes: Axes, found: Explanation, parts: list[Contribution]) -> None:
    """From what is expected of an unknown item to the forecast, one bar for each group of
    inputs.
    """
    shapley = found.shapley
    gains = [float(part.units_L[0]) for part in parts]
    names = ["An item about which it knows nothing", *(part.group.words for part in parts)]
    if len(parts) < len(shapley.contributions):
        gains.append(float(shapley.full_L[0] - shapley.empty_L[0]) - sum(gains))
        names.append("All else that it was told")
    names.append("Forecast (sum of medians)")
    ends = shapley.empty_L[0] + np.cumsum([0.0, *gains])
    rows = np.arange(len(names))
    axes.barh(rows[[0, -1]], [shapley.empty_L[0], shapley.full_L[0]], color=FAINT, height=0.62)
    for row, (start, end) in enumerate(itertools.pairwise(ends), start=1):
        axes.barh(row, end - start, left=start, color=ADDS if end >= start else TAKES, height=0.62)
        axes.plot([start, start], [row - 1 + 0.31, row + 0.31], color=FAINT, linewidth=0.7)
    signed = [f"{'+' if gain >= 0 else '−'}{number(abs(gain))}" for gain in gains]
    told = [number(shapley.empty_L[0]), *signed, number(shapley.full_L[0])]
    rights = [ends[0], *np.maximum(ends[1:], ends[:-1]), shapley.full_L[0]]
    for row, (right, text) in enumerate(zip(rights, told, strict=True)):
        axes.annotate(
            text,
            (right, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=INK,
        )
    axes.set_yticks(rows, names, fontsize=9.5)
    axes.invert_yaxis()
    low, high = min(0.0, float(ends.min())), max(float(ends.max()), float(shapley.full_L[0]))
    axes.set_xlim(low - 0.04 * (high - low) * (low < 0), high + 0.1 * (high - low))
    axes.axvline(0.0, color=FAINT, linewidth=0.8)
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.set_xlabel(
        "Units over the explained steps: exact Shapley values, what the forecast rests on and "
        "no causes.",
        color=FAINT,
        fontsize=9,
        loc="left",
    )
    _bare(axes)


def _times(found: Explanation, steps: Reals | NDArray[np.integer]) -> NDArray[np.datetime64]:
    """Middles of steps, counted from the cutoff."""
    return (found.cutoff_ms + (steps + 0.5) * found.resolution_ms).astype("datetime64[ms]")


def _dates(axes: Any) -> None:
    from matplotlib import dates as untyped

    dates: Any = untyped
    locator = dates.AutoDateLocator(minticks=3, maxticks=9)
    formats = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%S"]
    zero_formats = ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        dates.ConciseDateFormatter(
            locator, formats=formats, zero_formats=zero_formats, show_offset=False
        )
    )


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def _page(found: Explanation, figure: Figure) -> str:
    """A page that needs nothing else: the picture as SVG, and the words."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    words = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in found.sentences())
    title = html.escape(f"Why this forecast: {found.name}" if found.name else "Why this forecast")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem "
        "auto;padding:0 1rem;color:#1c2733}"
        "svg{width:100%;height:auto}</style></head>\n"
        f"<body><h1>{title}</h1>\n<ul>\n{words}\n</ul>\n{svg}</body></html>\n"
    )
