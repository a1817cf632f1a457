"""A comparison as people run it: progress on stderr, the table on stdout, files where asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freshet.model.backtest.compare import BacktestSettings, Results, backtest
from freshet.model.backtest.report import level_table, rows, table, write_forecasts, write_json
from freshet.model.backtest.workers import Make, WindowForecast
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from freshet.model.tables.panel import Panel

_PLOTS = {".png", ".svg", ".pdf", ".html"}


@dataclass(frozen=True, slots=True)
class Outputs:
    """The name of the data, where finished forecasts are kept, and which files are written."""

    data: str
    cache: Path | None = None
    json: Path | None = None
    forecasts: Path | None = None
    plot: Path | None = None


def run(panel: Panel, settings: BacktestSettings, outputs: Outputs, *, make: Make) -> int:
    """Compare, print and write; the exit status: 1 when a model failed, else 0.

    Raises:
        InvalidInputError: a file cannot be written where it is asked for, or the comparison cannot
            begin.
    """
    _check(outputs)
    _say_dropped(panel, settings)
    with _progress(settings) as on_done:
        results = backtest(panel, settings, make=make, cache_in=outputs.cache, on_done=on_done)
    if results.resumed:
        print(f"{results.resumed} forecasts taken from {outputs.cache}", file=sys.stderr)
    _print_table(results)
    if outputs.json:
        write_json(results, outputs.data, outputs.json)
    if outputs.forecasts:
        write_forecasts(results, outputs.forecasts)
    if outputs.plot:
        from freshet.model.backtest.plot import plot

        plot(results, outputs.plot)
    return 1 if results.failed else 0


def _check(outputs: Outputs) -> None:
    """Refuse at once what would fail after hours."""
    for path in (outputs.json, outputs.forecasts, outputs.plot):
        if path and not path.absolute().parent.is_dir():
            raise InvalidInputError(f"{path.parent} is no folder, so {path.name} cannot be written")
    if outputs.plot and outputs.plot.suffix.lower() not in _PLOTS:
        raise InvalidInputError(
            f"{outputs.plot} is no kind of picture that can be drawn",
            hint=f"end it with {', '.join(sorted(_PLOTS))}",
        )


def _say_dropped(panel: Panel, settings: BacktestSettings) -> None:
    steps = settings.rolling.steps_back(0)
    dropped = int((~panel.long_enough(steps)).sum())
    if 0 < dropped < len(panel):
        print(
            f"{dropped} of {len(panel)} series have {steps} steps or fewer: they are left out of "
            "the windows that they are too short for",
            file=sys.stderr,
        )


@contextmanager
def _progress(settings: BacktestSettings) -> Iterator[Callable[[WindowForecast], None]]:
    """A bar on stderr, or a line a forecast where that is no terminal; failures as they come."""
    from rich.console import Console

    from freshet.stream.bars import progress_bar

    console = Console(stderr=True)
    made = 0
    total = len(settings.models) * settings.rolling.num_windows
    with progress_bar(total, "forecasts", console=console) as bar:

        def done(forecast: WindowForecast) -> None:
            nonlocal made
            made += 1
            bar.done(made, forecast.model)
            name = f"{forecast.model} window {forecast.index + 1} of {settings.rolling.num_windows}"
            if forecast.error:
                console.print(
                    f"{name} failed: {forecast.error}\n{forecast.trace}", markup=False, style="red"
                )
            elif not console.is_terminal:
                seconds = forecast.fit_s + forecast.predict_s
                console.print(f"{name}: {seconds:.1f} s", markup=False, highlight=False)

        yield done


def _print_table(results: Results) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # A pipe has no width; without one the table would be cut to 80 columns.
        console = Console(width=160)
    found = rows(results)
    console.print(table(found))
    of_levels = level_table(found)
    if of_levels is not None:
        console.print(of_levels)
    for row in found:
        if row["error"]:
            console.print(f"{row['model']} failed {row['error']}", markup=False, style="red")
