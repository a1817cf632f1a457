"""`freshet COMMAND`: every command under its name, and a known error as one clear line."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer

from freshet import __version__
from freshet.cli import (
    explain,
    history,
    letters,
    maps,
    operations,
    predict,
    processes,
    tables,
    training,
    weights,
)

app = typer.Typer(
    name="freshet",
    help="Streaming, real-time sales forecasts: orders and clicks in through Kafka, quantile "
    "forecasts out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


COMMANDS = (
    *(processes.demo, processes.ingest, processes.worker, processes.control, processes.learn),
    *(processes.dashboard, processes.simulate, processes.replay),
    *(predict.predict, tables.backtest, explain.explain, training.train, training.pretrain),
    *(operations.verify, operations.doctor, operations.retrain),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(operations.topics, name="topics")
app.add_typer(operations.windows, name="windows")
app.add_typer(operations.forecasts, name="forecasts")
app.add_typer(letters.dlq, name="dlq")
app.add_typer(history.history, name="history")
app.add_typer(maps.map_, name="map")
app.add_typer(operations.config, name="config")
app.add_typer(weights.model, name="model")
app.add_typer(tables.data, name="data")


def _told(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """What a table holds that was changed or left out, as a line; other warnings as ever."""
    if category.__name__ == "TableWarning":
        typer.echo(f"freshet: {message}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno), err=True, nl=False)


def main() -> None:
    """Run a command; a known error is one clear line and exit status 1."""
    from freshet.stream.cores import sleep_where_threads_wait
    from freshet.stream.errors import FreshetError

    # Before any command imports torch, which would load OpenMP as it is set by then.
    sleep_where_threads_wait(os.environ)
    warnings.showwarning = _told
    try:
        app()
    except FreshetError as error:
        typer.echo(f"freshet: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
