"""Pictures of a comparison: forecasts of a few telling series, and skill by stratum.

A page (.html) holds the picture as SVG and the tables as text, in one file without scripts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.backtest.compare import Results
from freshet.model.backtest.page import page
from freshet.model.backtest.report import ranked, rows
from freshet.model.backtest.score import stratify
from freshet.model.picture import date_axis, drawing, save, svg
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_YARDSTICK = "seasonal_naive"
_FANS = 6  # series drawn
_FANS_A_ROW = 3
_BARS = 5  # models in each group of bars
_INK = "#1f2933"
_FAN = "#2563eb"
_DOTTED = "#d97706"
_COLOURS = ("#2563eb", "#0d9488", "#be185d", "#7c3aed", "#64748b")
_KINDS = {
    "zero_share": "share of steps without a sale",
    "volume": "volume",
    "history": "history",
}
_TITLES = {
    "zero_share": "{} of steps without a sale",
    "volume": "{} by volume",
    "history": "{}",
}
# Each shade of the fan: its outer quantile level, and how opaque it is.
_SHADES = ((0.1, 0.18), (0.3, 0.25))
_MOST_DOTS = 60  # steps ahead; more dots run into one another

# What a report says of one model.
_Row = dict[str, Any]


def plot(results: Results, path: Path) -> None:
    """Draw the comparison into a .png, .svg, .pdf or .html file."""
    with drawing(**{"font.size": 9}):
        figure = _draw(results)
        if path.suffix.lower() == ".html":
            path.write_text(page(results, rows(results), svg(figure)), "utf-8")
        else:
            save(figure, path, dpi=150)


def _draw(results: Results) -> Figure:
    # A figure of its own, not pyplot's: nothing is left behind, and no display is asked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 11), layout="constrained")
    fans, bars = figure.subfigures(2, 1, height_ratios=[2, 1], squeeze=False).ravel()
    found = ranked(rows(results))
    if found and not found[0]["error"]:
        _draw_fans(results, _protagonist(found), fans)
        _draw_bars(found, bars)
    else:
        fans.text(0.5, 0.5, "No model gave forecasts for every window.", ha="center")
    return figure


def _protagonist(found: list[_Row]) -> str:
    """The model whose forecasts are drawn: freshet if it is there, else the best."""
    sound = [str(row["model"]) for row in found if not row["error"]]
    ours = [name for name in sound if name.startswith("freshet")]
    return (ours or sound)[0]


def _draw_fans(results: Results, name: str, figure: Any) -> None:
    """A pane for each telling series: its history, the forecasts, the yardstick, what came."""
    rolling = results.settings.rolling
    levels = results.settings.levels
    last = rolling.num_windows - 1
    window = rolling.window(results.panel, last)
    actual_NH = rolling.actual(results.panel, last)
    forecast_NHQ = _quantiles(results, name, last)
    naive_NH = None
    if _YARDSTICK in results.of_model and name != _YARDSTICK:
        naive_NHQ = _quantiles(results, _YARDSTICK, last)
        naive_NH = naive_NHQ[..., levels.index(0.5)]
    dotted = {"color": _DOTTED, "ls": ":", "lw": 1.3, "label": _YARDSTICK}
    chosen = sample(window, actual_NH)
    num_lines = -(-len(chosen) // _FANS_A_ROW)
    panes = figure.subplots(num_lines, _FANS_A_ROW, squeeze=False).ravel()
    # A line may hold fewer series than panes; those left are blanked below.
    for axes, (row, why) in zip(panes, chosen.items(), strict=False):
        title = f"{_short(window.item_ids[row])} · {why}"
        axes.set_title(title, fontsize=9, loc="left", color=_INK)
        _draw_fan(axes, window, row, forecast_NHQ[row], levels)
        _draw_after(axes, window, row, actual_NH[row])
        if naive_NH is not None:
            _draw_line(axes, window, row, naive_NH[row], dotted)
        _style(axes)
    for axes in panes[len(chosen) :]:
        axes.set_axis_off()
    _head(figure, f"Forecasts of {name} at the last cutoff", panes[0])


def _head(figure: Any, title: str, axes: Axes) -> None:
    """A title on the left, and on the right the legend of one pane, which holds for all."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        frameon=False,
        loc="outside upper right",
        ncols=len(labels),
    )


def sample(window: Window, actual_NH: Floats) -> dict[int, str]:
    """Up to six rows and why each is shown.

    The middle one by volume of each group of series, then the most sold. Groups of the share of
    steps without a sale come first, then thirds of volume, then cold starts. Rows that sold nothing
    lately, or have nothing to compare with, are not shown.
    """
    order = _lively_by_volume(window, actual_NH)
    chosen: dict[int, str] = {}
    for kind, groups in stratify(window).items():
        for name, rows_N in groups.items():
            left = [row for row in order if rows_N[row] and row not in chosen]
            if not left or name == "established":
                continue
            middle = left[len(left) // 2]
            chosen[middle] = _TITLES[kind].format(name)
    most = [row for row in reversed(order) if row not in chosen]
    wanted = max(_FANS - len(chosen), 0)
    chosen |= dict.fromkeys(most[:wanted], "among the most sold")
    return dict(list(chosen.items())[:_FANS])


def _lively_by_volume(window: Window, actual_NH: Floats) -> list[int]:
    """Rows that sold something lately and have actuals, the least sold first."""
    recent_NT = window.target_NT[:, -_shown(window) :]
    sold_N = (np.nan_to_num(recent_NT) > 0).any(1)
    comparable_N = np.isfinite(actual_NH).any(1)
    lively_N = np.asarray(sold_N & comparable_N)
    volume_N = np.nansum(window.target_NT, 1)
    order_N = np.argsort(volume_N, kind="stable")
    return [int(row) for row in order_N if lively_N[row]]


def _shown(window: Window) -> int:
    """Steps of history that are drawn: enough to see the season, few enough to see the forecast."""
    wanted = max(3 * window.horizon, 2 * window.season_length, 20)
    return min(window.context_length, wanted)


def _draw_fan(
    axes: Axes,
    window: Window,
    row: int,
    quantiles_HQ: Floats,
    levels: tuple[float, ...],
) -> None:
    """The history, the fan between outer quantiles, and the median."""
    T = window.context_length
    times_S = window.time_ms_NS[row].astype("datetime64[ms]")
    history = slice(T - _shown(window), T)
    sold = window.target_NT[row, history]
    axes.plot(times_S[history], sold, color=_INK, lw=0.9)
    for outer, alpha in _SHADES:
        low_H = quantiles_HQ[:, levels.index(outer)]
        high_H = quantiles_HQ[:, levels.index(round(1 - outer, 10))]
        label = f"{round(100 * (1 - 2 * outer))} % of outcomes"
        _draw_shade(axes, times_S[T:], low_H, high_H, alpha, label)
    median_H = quantiles_HQ[:, levels.index(0.5)]
    style = {"color": _FAN, "lw": 1.5, "label": "median"}
    _draw_line(axes, window, row, median_H, style)
    axes.axvline(times_S[T - 1], color="#9aa5b1", lw=0.8, ls="--")


def _draw_shade(
    axes: Axes,
    times_H: Any,
    low_H: Floats,
    high_H: Floats,
    alpha: float,
    label: str,
) -> None:
    """What lies between two quantiles: an area, or a bar where there is a single step."""
    if len(times_H) > 1:
        axes.fill_between(times_H, low_H, high_H, color=_FAN, alpha=alpha, lw=0, label=label)
        return
    middle_H = (low_H + high_H) / 2
    half_H = (high_H - low_H) / 2
    axes.errorbar(times_H, middle_H, half_H, color=_FAN, alpha=0.5, label=label)


def _draw_after(axes: Axes, window: Window, row: int, actual_H: Floats) -> None:
    """What came after the cutoff: dots where there are few, so that they stand out from the fan."""
    style = {"color": _INK, "lw": 0.9, "label": "actual"}
    if window.horizon <= _MOST_DOTS:
        style |= {"marker": ".", "ms": 4}
    _draw_line(axes, window, row, actual_H, style)


def _draw_line(
    axes: Axes,
    window: Window,
    row: int,
    values_H: Floats,
    style: dict[str, Any],
) -> None:
    wanted = style
    if window.horizon == 1:
        # A line through one point is nothing to see.
        wanted = {"marker": "o", "ms": 4} | style
    time_ms_H = window.time_ms_NS[row, -window.horizon :]
    axes.plot(time_ms_H.astype("datetime64[ms]"), values_H, **wanted)


def _style(axes: Any) -> None:
    date_axis(axes, fewest=2, most=8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _draw_bars(found: list[_Row], figure: Any) -> None:
    """Bars by stratum of 1 - WQL / WQL of the yardstick; of WQL itself where there is none."""
    sound = [row for row in found if not row["error"]]
    yardstick = next((row for row in sound if row["model"] == _YARDSTICK), None)
    others = [row for row in sound if row is not yardstick]
    shown = others[:_BARS] or sound
    if yardstick is shown[0]:
        yardstick = None
    panes = figure.subplots(1, len(_KINDS), sharey=True)
    for axes, (kind, text) in zip(panes, _KINDS.items(), strict=True):
        _draw_stratum(axes, kind, shown, yardstick)
        axes.set_title(text, fontsize=9, loc="left")
    title = "WQL, lower is better"
    if yardstick:
        title = f"Skill: share of {_YARDSTICK}'s WQL that is saved"
    _head(figure, f"{title}, by what was known at the cutoff", panes[0])


def _draw_stratum(
    axes: Axes,
    kind: str,
    shown: list[_Row],
    yardstick: _Row | None,
) -> None:
    """One kind of stratum: its groups side by side, in each a bar for every model."""
    groups = shown[0]["strata"].get(kind, {})
    counts = {group: round(entry["series"]) for group, entry in groups.items()}
    place_G = np.arange(len(counts))
    # A single group would otherwise be as wide as the whole picture.
    group_width = min(0.8, 0.25 * len(counts))
    width = group_width / len(shown)
    middle = (len(shown) - 1) / 2
    for number, row in enumerate(shown):
        heights = [_height(row, yardstick, kind, group) for group in counts]
        offset = (number - middle) * width
        colour = _COLOURS[number]
        axes.bar(place_G + offset, heights, width, color=colour, label=row["model"])
    axes.set_xlim(-0.5, max(len(counts), 1) - 0.5)
    labels = [f"{group}\n{count:,} series" for group, count in counts.items()]
    axes.set_xticks(range(len(counts)), labels)
    axes.axhline(0, color=_INK, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _height(row: _Row, yardstick: _Row | None, kind: str, group: str) -> float:
    """Skill of a model in a group, 0 where unknown; at least -1, or one bar flattens the others."""
    height = _wql(row, kind, group)
    if yardstick:
        base = _wql(yardstick, kind, group)
        height = max(1 - height / base, -1.0) if base > 0 else np.nan
    return height if np.isfinite(height) else 0.0


def _wql(row: _Row, kind: str, group: str) -> float:
    metrics = row["strata"][kind].get(group, {})
    return float(metrics.get("wql", np.nan))


def _quantiles(results: Results, name: str, index: int) -> Floats:
    found = results.of_model[name][index].forecast.quantiles_NHQ
    assert found is not None, "only models without failures are drawn"
    return found


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
