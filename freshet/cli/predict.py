"""`freshet predict`: forecasts of a file, as a table or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.options import joined
from freshet.cli.table_options import Engine, Levels, reading_of, reads_table, style_of


@reads_table
def predict(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(help="A long table, one row an item and time: CSV, parquet, .jsonl."),
    ],
    prediction_length: Annotated[
        int | None,
        typer.Option(min=1, help="Steps to forecast; default as many as are told ahead."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help=".parquet, .csv, .png, .svg or .pdf, repeated for several; default CSV to stdout.",
        ),
    ] = None,
    item_id: Annotated[
        str | None, typer.Option(help="Column of a series' name; default item_id or unique_id.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column with the time; default timestamp or ds.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column with what is forecast; default target or y.")
    ] = None,
    future: Annotated[
        Path | None,
        typer.Option(help="A table of the known columns of the steps ahead, or rows of DATA."),
    ] = None,
    quantile_levels: Annotated[
        str, typer.Option(metavar="P,Q", help="Between 0 and 1, rising.")
    ] = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    levels: Levels = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of weights; default those that ship.")
    ] = None,
    engine: Engine = None,
) -> None:
    """Forecast every series of a table."""
    from freshet.model.predict.files import predict_file
    from freshet.model.predict.frame import Forecaster
    from freshet.model.threads import use_threads

    use_threads()
    found = predict_file(
        Forecaster.from_pretrained(weights),
        data,
        prediction_length,
        future=future,
        outputs=output or [],
        reading=reading_of(context.params),
        style=style_of(context.params),
        quantile_levels=quantile_levels.split(","),
        levels=joined(levels),
        engine=engine,
    )
    if output:
        # With levels the first column is the level's name.
        series = len(found.iloc[:, : 2 if levels else 1].drop_duplicates())
        typer.echo(f"{len(found)} rows of {series} series in {', '.join(map(str, output))}")
    else:
        typer.echo(found.to_csv(index=False), nl=False)
