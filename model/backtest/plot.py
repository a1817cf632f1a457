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
_FANS, _BARS = 6, 5  # series drawn, and models in each group of bars
_INK, _FAN, _DOTTED = "#1f2933", "#2563eb", "#d97706"
_COLOURS = ("#2563eb", "#0d9488", "#be185d", "#7c3aed", "#64748b")
_KINDS = {"zero_share": "share of steps without a sale", "volume": "volume", "history": "history"}
_TITLES = {"zero_share": "{} of steps without a sale", "volume": "{} by volume", "history": "{}"}


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


def _protagonist(found: list[dict[str, Any]]) -> str:
    """The model whose forecasts are drawn: freshet if it is there, else the best."""
    sound = [str(row["model"]) for row in found if not row["error"]]
    return next((name for name in sound if name.startswith("freshet")), sound[0])


def _draw_fans(results: Results, name: str, figure: Any) -> None:
    """A pane for each telling series: its history, the forecasts, the yardstick, what came."""
    rolling, levels = results.settings.rolling, results.settings.levels
    last = rolling.num_windows - 1
    window, actual_NH = rolling.window(results.panel, last), rolling.actual(results.panel, last)
    forecast_NHQ = _quantiles(results, name, last)
    naive_NH = None
    if _YARDSTICK in results.of_model and name != _YARDSTICK:
        naive_NH = _quantiles(results, _YARDSTICK, last)[..., levels.index(0.5)]
    dotted = {"color": _DOTTED, "ls": ":", "lw": 1.3, "label": _YARDSTICK}
    chosen = sample(window, actual_NH)
    panes = figure.subplots(-(-len(chosen) // 3), 3, squeeze=False).ravel()
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
    place: dict[str, Any] = {"loc": "outside upper right", "ncols": len(labels)}
    figure.legend(handles, labels, frameon=False, **place)


def sample(window: Window, actual_NH: Floats) -> dict[int, str]:
    """Up to six rows and why each is shown.

    The middle one by volume of each group of series, then the most sold. Groups of the share of
    steps without a sale come first, then thirds of volume, then cold starts. Rows that sold nothing
    lately, or have nothing to compare with, are not shown.
    """
    recent_NT = window.target_NT[:, -_shown(window) :]
    lively_N = np.asarray(np.isfinite(actual_NH).any(1) & (np.nan_to_num(recent_NT) > 0).any(1))
    order = np.argsort(np.nansum(window.target_NT, 1), kind="stable")
    order = order[lively_N[order]]
    chosen: dict[int, str] = {}
    for kind, groups in stratify(window).items():
        for name, rows_N in groups.items():
            left = [int(row) for row in order if rows_N[row] and int(row) not in chosen]
            if left and name != "established":
                chosen[left[len(left) // 2]] = _TITLES[kind].format(name)
    most = [int(row) for row in order[::-1] if int(row) not in chosen]
    chosen |= dict.fromkeys(most[: max(_FANS - len(chosen), 0)], "among the most sold")
    return dict(list(chosen.items())[:_FANS])


def _shown(window: Window) -> int:
    """Steps of history that are drawn."""
    return min(window.context_length, max(3 * window.horizon, 2 * window.season_length, 20))


def _draw_fan(
    axes: Axes, window: Window, row: int, quantiles_HQ: Floats, levels: tuple[float, ...]
) -> None:
    """The history, the fan between outer quantiles, and the median."""
    H, shown = window.horizon, _shown(window)
    times = window.time_ms_NS[row].astype("datetime64[ms]")
    history = slice(window.context_length - shown, window.context_length)
    axes.plot(times[history], window.target_NT[row, history], color=_INK, lw=0.9)
    ahead = times[-H:]
    for outer, alpha in ((0.1, 0.18), (0.3, 0.25)):
        low, high = levels.index(outer), levels.index(round(1 - outer, 10))
        label = f"{round(100 * (1 - 2 * outer))} % of outcomes"
        if H == 1:
            axes.errorbar(ahead, *_bar(quantiles_HQ, low, high), color=_FAN, alpha=0.5, label=label)
        else:
            between = quantiles_HQ[:, low], quantiles_HQ[:, high]
            axes.fill_between(ahead, *between, color=_FAN, alpha=alpha, lw=0, label=label)
    median_H = quantiles_HQ[:, levels.index(0.5)]
    _draw_line(axes, window, row, median_H, {"color": _FAN, "lw": 1.5, "label": "median"})
    axes.axvline(times[window.context_length - 1], color="#9aa5b1", lw=0.8, ls="--")


def _bar(quantiles_HQ: Floats, low: int, high: int) -> tuple[Floats, Floats]:
    middle_H = (quantiles_HQ[:, low] + quantiles_HQ[:, high]) / 2
    return middle_H, (quantiles_HQ[:, high] - quantiles_HQ[:, low]) / 2


def _draw_after(axes: Axes, window: Window, row: int, actual_H: Floats) -> None:
    """What came after the cutoff: dots where there are few, so that they stand out from the fan."""
    style = {"color": _INK, "lw": 0.9, "label": "actual"}
    if window.horizon <= 60:
        style |= {"marker": ".", "ms": 4}
    _draw_line(axes, window, row, actual_H, style)


def _draw_line(
    axes: Axes, window: Window, row: int, values_H: Floats, style: dict[str, Any]
) -> None:
    # A line through one point is nothing to see.
    wanted: Any = ({"marker": "o", "ms": 4} if window.horizon == 1 else {}) | style
    times_H = window.time_ms_NS[row, -window.horizon :].astype("datetime64[ms]")
    axes.plot(times_H, values_H, **wanted)


def _style(axes: Any) -> None:
    date_axis(axes, fewest=2, most=8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _draw_bars(found: list[dict[str, Any]], figure: Any) -> None:
    """Bars by stratum of 1 - WQL / WQL of the yardstick; of WQL itself where there is none."""
    sound = [row for row in found if not row["error"]]
    yardstick = next((row for row in sound if row["model"] == _YARDSTICK), None)
    shown = [row for row in sound if row is not yardstick][:_BARS] or sound
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
    axes: Axes, kind: str, shown: list[dict[str, Any]], yardstick: dict[str, Any] | None
) -> None:
    """One kind of stratum: its groups side by side, in each a bar for every model."""
    groups = shown[0]["strata"].get(kind, {})
    counts = {group: round(entry["series"]) for group, entry in groups.items()}
    place_G = np.arange(len(counts))
    # A single group would otherwise be as wide as the whole picture.
    width = min(0.8, 0.25 * len(counts)) / len(shown)
    for number, row in enumerate(shown):
        heights = [_height(row, yardstick, kind, group) for group in counts]
        offset = (number - (len(shown) - 1) / 2) * width
        axes.bar(place_G + offset, heights, width, color=_COLOURS[number], label=row["model"])
    axes.set_xlim(-0.5, max(len(counts), 1) - 0.5)
    labels = [f"{group}\n{count:,} series" for group, count in counts.items()]
    axes.set_xticks(range(len(counts)), labels)
    axes.axhline(0, color=_INK, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _height(row: dict[str, Any], yardstick: dict[str, Any] | None, kind: str, group: str) -> float:
    """Skill of a model in a group, 0 where unknown; at least -1, or one bar flattens the others."""
    wql = float(row["strata"][kind].get(group, {}).get("wql", np.nan))
    if yardstick:
        base = float(yardstick["strata"][kind].get(group, {}).get("wql", np.nan))
        wql = max(1 - wql / base, -1.0) if base > 0 else np.nan
    return wql if np.isfinite(wql) else 0.0


def _quantiles(results: Results, name: str, index: int) -> Floats:
    found = results.of_model[name][index].forecast.quantiles_NHQ
    assert found is not None, "only models without failures are drawn"
    return found


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
