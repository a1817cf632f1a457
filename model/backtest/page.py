"""A comparison as one web page without scripts: the tables as text, the picture inside."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from freshet.model.backtest.compare import Results
from freshet.model.backtest.report import ranked
from freshet.model.backtest.score import METRICS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e4e7eb; }
th:first-child, td:first-child { text-align: left; }
tr.best td { font-weight: 600; } tr.failed td { color: #b91c1c; }
svg { width: 100%; height: auto; }
@media (max-width: 700px) { div.wide { overflow-x: auto; } }
"""
_HEADS = (
    *("model", "SQL", "WQL", "MASE", "WAPE", "coverage 80 %", "bias"),
    *("fit s", "predict s", "series"),
)
_KINDS = {"zero_share": "Share of steps without a sale", "volume": "Volume", "history": "History"}


def page(results: Results, found: list[dict[str, Any]], svg: str) -> str:
    """The page of a comparison, with the rows of `report.rows` and a picture."""
    best_first = ranked(found)
    failures = "".join(
        f"<p>{escape(row['model'])} failed {escape(row['error'])}</p>"
        for row in found
        if row["error"]
    )
    strata = "".join(
        f"<h2>{title}</h2>{_strata(kind, best_first)}" for kind, title in _KINDS.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>freshet backtest</title>'
        f"<style>{_STYLE}</style></head><body><h1>Backtest</h1><p>{_facts(results)}</p>"
        f"{_overall(best_first)}{failures}{svg}{strata}</body></html>\n"
    )


def _facts(results: Results) -> str:
    """What was compared, and how to read the numbers."""
    rolling, panel = results.settings.rolling, results.panel
    return (
        f"{len(panel):,} series, steps of {escape(panel.frequency)}, season of "
        f"{panel.season_length}; {rolling.num_windows} cutoffs, {rolling.horizon} steps ahead "
        "each. Means over the cutoffs; lower is better, coverage should be 80 %, a bias above 0 "
        "is too much forecast."
    )


def _overall(found: list[dict[str, Any]]) -> str:
    lines = []
    for place, row in enumerate(found):
        kind = "failed" if row["error"] else "best" if place == 0 else ""
        cells = [row["model"], *(_number(row[name]) for name in METRICS)]
        cells += [f"{row['fit_s']:.1f}", f"{row['predict_s']:.1f}", f"{row['series']:,}"]
        lines.append(f'<tr class="{kind}">{_cells("td", cells)}</tr>')
    return _table(_HEADS, lines)


def _strata(kind: str, found: list[dict[str, Any]]) -> str:
    """WQL of each model in each group."""
    sound = [row for row in found if not row["error"]]
    groups = list(sound[0]["strata"].get(kind, {})) if sound else []
    counts = [round(sound[0]["strata"][kind][group]["series"]) for group in groups]
    heads = ["WQL", *(f"{group} ({count:,})" for group, count in zip(groups, counts, strict=True))]
    lines = []
    for row in sound:
        values = [
            _number(row["strata"].get(kind, {}).get(group, {}).get("wql")) for group in groups
        ]
        lines.append(f"<tr>{_cells('td', [row['model'], *values])}</tr>")
    return _table(heads, lines)


def _table(heads: tuple[str, ...] | list[str], lines: list[str]) -> str:
    head = f"<tr>{_cells('th', list(heads))}</tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _cells(tag: str, texts: list[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.4f}"
