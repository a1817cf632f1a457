"""An explanation as a picture: the forecast, where the network looked, what adds how much."""

from __future__ import annotations

import html
import itertools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from freshet.model.explain.groups import step_name
from freshet.model.explain.shapley import Contribution
from freshet.model.explain.words import (
    LOOKED_NOT_A_CAUSE,
    Explanation,
    headline,
    moment,
    noticeable,
    number,
)
from freshet.model.picture import date_axis, drawing, save, svg
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".html")
SHOWN_HORIZONS = 5  # of history, so that the forecast takes a sixth of the width
FEWEST_SHOWN = 96
INK = "#1c2733"
FAINT = "#8a94a0"
SOLD = "#4a5764"
FAN = "#1f6f9f"
ADDS = "#2a8f6f"
TAKES = "#c8553d"
LOOK = "#7a5ea8"
BAR = 0.62  # height, of the distance between two
DATES: dict[str, Any] = {
    "formats": ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%S"],
    "zero_formats": ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
    "show_offset": False,
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;"
    "padding:0 1rem;color:#1c2733}"
    "svg{width:100%;height:auto}"
)
# Low and high level of each range, and how dark it is on top of the wider ones.
FANS = (
    (0.05, 0.95, 0.15),
    (0.1, 0.9, 0.22),
    (0.25, 0.75, 0.35),
)
BARS_NOT_A_CAUSE = (
    "Units over the explained steps: exact Shapley values, what the forecast rests on and no "
    "causes."
)


def plot(found: Explanation, path: Path) -> None:
    """Draw an explanation into a file; its suffix says how.

    Raises:
        InvalidInputError: the suffix is none of .png, .svg and .html.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInputError(
            f"{path} asks for a picture as {path.suffix or 'nothing'}",
            hint=f"end the name in {', '.join(SUFFIXES)}",
        )
    with drawing():
        figure = draw(found)
        if suffix == ".html":
            path.write_text(_page(found, figure), "utf-8")
        else:
            save(figure, path, dpi=144)


def draw(found: Explanation) -> Figure:
    """The picture as a matplotlib figure of its own, for which no display is asked."""
    from matplotlib.figure import Figure

    parts = noticeable(found.shapley)
    bars_height = 1.1 + 0.36 * (len(parts) + 3)
    figure = Figure(figsize=(10, 5.0 + bars_height), layout="constrained")
    halves = figure.subfigures(2, 1, height_ratios=[5.0, bars_height], squeeze=False)
    upper, lower = halves.ravel()
    title_lines = textwrap.wrap(headline(found), 112)
    title = "\n".join(title_lines)
    upper.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    sales, looked = upper.subplots(2, 1, sharex=True, height_ratios=[8, 1])
    _draw_sales(sales, found)
    _draw_looked(looked, found)
    _draw_bars(lower.subplots(), found, parts)
    return figure


def _shown(found: Explanation) -> int:
    """Steps of history in the picture: all that was seen, unless the forecast shrinks to a line."""
    T = len(found.target_T)
    H = len(found.quantiles_HQ)
    seen = np.flatnonzero(np.isfinite(found.target_T))
    history = T - int(seen[0]) if len(seen) else 1
    most = max(SHOWN_HORIZONS * H, FEWEST_SHOWN)
    return max(1, min(history, most))


def _draw_sales(axes: Axes, found: Explanation) -> None:
    """What sold, the forecast after it, and which of its steps are explained."""
    horizon = len(found.quantiles_HQ)
    shown = _shown(found)
    dots: dict[str, Any] = {"marker": ".", "markersize": 3, "linewidth": 1.1}
    times = _times(found, np.arange(-shown, 0))
    sold = found.target_T[-shown:]
    axes.plot(times, sold, color=SOLD, label="sold", **dots)
    _draw_forecast(axes, found)
    _draw_explained(axes, found)
    edges = np.array([-shown - 0.5, horizon - 0.5])
    start, end = _times(found, edges)
    axes.set_xlim(start, end + (end - start) // 100)
    # Room for the legend, and a scale of at least one unit where nothing sells.
    top = max(axes.get_ylim()[1], 1.0)
    axes.set_ylim(0.0, 1.12 * top)
    axes.set_ylabel(f"units per {step_name(found.resolution_ms)}", color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9, ncols=3)
    axes.tick_params(labelbottom=False)
    _bare(axes)


def _draw_forecast(axes: Axes, found: Explanation) -> None:
    """Fans of ever likelier outcomes with the median inside, behind a line at the cutoff."""
    index_H = np.arange(len(found.quantiles_HQ))
    ahead = _times(found, index_H)
    for low, high, alpha in FANS:
        low_H = _quantile(found, low)
        high_H = _quantile(found, high)
        _fill(axes, ahead, low_H, high_H, alpha)
    since = moment(found.cutoff_ms, found.resolution_ms)
    style: dict[str, Any] = {
        "label": f"forecast from {since}, with 50, 80 and 90 % ranges",
        "color": FAN,
        "linewidth": 1.8,
    }
    # A line through one point is nothing to see.
    if len(ahead) == 1:
        style |= {"marker": "o", "markersize": 4}
    axes.plot(ahead, _quantile(found, 0.5), **style)
    cutoff = _times(found, np.array([-0.5]))[0]
    axes.axvline(cutoff, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))


def _draw_explained(axes: Axes, found: Explanation) -> None:
    steps = found.shapley.steps
    if len(steps) == len(found.quantiles_HQ):
        return
    edges = np.array([steps.start - 0.5, steps.stop - 0.5])
    start, end = _times(found, edges)
    style: dict[str, Any] = {"color": FAINT, "alpha": 0.15, "linewidth": 0}
    axes.axvspan(start, end, label="explained steps", **style)


def _quantile(found: Explanation, level: float) -> Floats:
    """The forecast at the nearest level that there is: [H]."""
    distance_Q = np.abs(np.array(found.levels) - level)
    nearest = int(distance_Q.argmin())
    return found.quantiles_HQ[:, nearest]


def _fill(
    axes: Any,
    ahead: NDArray[np.datetime64],
    low_H: Floats,
    high_H: Floats,
    alpha: float,
) -> None:
    style = {"color": FAN, "alpha": alpha}
    if len(ahead) == 1:
        axes.vlines(ahead, low_H, high_H, linewidth=8, **style)
    else:
        axes.fill_between(ahead, low_H, high_H, linewidth=0, **style)


def _draw_looked(axes: Axes, found: Explanation) -> None:
    """A strip under the history, darker where the network looked more."""
    past = [part for part in found.looked if part.what == "past"]
    highest = max((part.share for part in past), default=1.0) or 1.0
    for part in past:
        assert part.first is not None and part.last is not None
        edges = np.array([part.first - 0.5, part.last + 0.5])
        start, end = _times(found, edges)
        darkness = 0.85 * part.share / highest
        axes.axvspan(start, end, color=LOOK, alpha=darkness, linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("looked at", rotation=0, ha="right", va="center", color=INK, fontsize=9)
    axes.set_xlabel(_looked_beside(found), color=FAINT, fontsize=9, loc="left")
    date_axis(axes, fewest=3, most=9, **DATES)
    _bare(axes)
    axes.spines["left"].set_visible(False)


def _looked_beside(found: Explanation) -> str:
    """What the strip cannot show: looks at what lies before it, at the plan and at the item."""
    shown = _shown(found)
    shares = {part.what: part.share for part in found.looked if part.what != "past"}
    earlier = 0.0
    for part in found.looked:
        if part.what == "past" and part.last is not None and part.last < -shown:
            earlier += part.share
    beside = {
        "before what is shown": earlier,
        "at the plan ahead": shares["plan"],
        "at the item": shares["item"],
    }
    # Less than half a per cent would be written as 0 %.
    aside = [f"{100 * share:.0f} % {what}" for what, share in beside.items() if share >= 0.005]
    return f"Darker: looked there more. Beside that: {', '.join(aside)}. {LOOKED_NOT_A_CAUSE}"


def _draw_bars(axes: Axes, found: Explanation, parts: list[Contribution]) -> None:
    """From the forecast of an unknown item to that of this one, a bar for each group of inputs."""
    shapley = found.shapley
    empty = float(shapley.empty_L[0])
    full = float(shapley.full_L[0])
    gains = [float(part.units_L[0]) for part in parts]
    words = [part.group.words for part in parts]
    if len(parts) < len(shapley.contributions):
        # What is too small for a bar of its own, or the bars would not lead to the forecast.
        gains.append(full - empty - sum(gains))
        words.append("All else that it was told")
    ends = empty + np.cumsum([0.0, *gains])
    _draw_steps(axes, ends, full)

    signed = [f"{'+' if gain >= 0 else '−'}{number(abs(gain))}" for gain in gains]
    rights = [ends[0], *np.maximum(ends[1:], ends[:-1]), full]
    _write_amounts(axes, rights, [number(empty), *signed, number(full)])
    names = ["An item about which it knows nothing", *words, "Forecast (sum of medians)"]
    axes.set_yticks(np.arange(len(names)), names, fontsize=9.5)
    axes.invert_yaxis()

    low = min(0.0, float(ends.min()))
    high = max(float(ends.max()), full)
    width = high - low
    left_room = 0.04 * width * (low < 0)
    axes.set_xlim(low - left_room, high + 0.1 * width)
    axes.axvline(0.0, color=FAINT, linewidth=0.8)
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.set_xlabel(BARS_NOT_A_CAUSE, color=FAINT, fontsize=9, loc="left")
    _bare(axes)


def _draw_steps(axes: Axes, ends: Floats, full: float) -> None:
    """A bar from each end to the next, between the whole ones of the first end and of `full`."""
    last = len(ends)
    axes.barh([0, last], [ends[0], full], color=FAINT, height=BAR)
    for row, (start, end) in enumerate(itertools.pairwise(ends), start=1):
        color = ADDS if end >= start else TAKES
        axes.barh(row, end - start, left=start, color=color, height=BAR)
        # A thread from the end of the bar above to the start of this one.
        thread = [row - 1 + BAR / 2, row + BAR / 2]
        axes.plot([start, start], thread, color=FAINT, linewidth=0.7)


def _write_amounts(axes: Axes, rights: list[float], texts: list[str]) -> None:
    """Each bar's amount, a little to the right of it."""
    style: dict[str, Any] = {"va": "center", "fontsize": 9.5, "color": INK}
    for row, (right, text) in enumerate(zip(rights, texts, strict=True)):
        place = (right, row)
        axes.annotate(text, place, (5, 0), textcoords="offset points", **style)


def _times(
    found: Explanation,
    steps: NDArray[np.floating] | NDArray[np.integer],
) -> NDArray[np.datetime64]:
    """Middles of steps, counted from the cutoff."""
    since_cutoff_ms = (steps + 0.5) * found.resolution_ms
    times_ms = found.cutoff_ms + since_cutoff_ms
    return times_ms.astype("datetime64[ms]")


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def _page(found: Explanation, figure: Figure) -> str:
    """A page that needs nothing else: the picture as SVG, and the words."""
    sentences = [html.escape(sentence) for sentence in found.sentences()]
    words = "\n".join(f"<li>{sentence}</li>" for sentence in sentences)
    title = "Why this forecast"
    if found.name:
        title = f"{title}: {found.name}"
    title = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n<ul>\n{words}\n</ul>\n{svg(figure)}</body></html>\n"
    )
