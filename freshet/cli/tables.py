"""The commands that need files only: `freshet data prepare` and `freshet backtest`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from freshet.cli.options import group, joined
from freshet.cli.table_options import (
    Data,
    Engine,
    ItemId,
    Levels,
    PredictionLength,
    Target,
    Time,
    reads_table,
    table_of,
)

data = group("Data sets as tidy tables.")


@data.command("prepare")
def data_prepare(
    preset: Annotated[
        str,
        typer.Argument(
            help="rossmann_1D, rossmann_1W, car_parts, online_retail_daily or online_retail_hourly."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The table: .parquet, or .csv.")],
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder with the raw files; default FRESHET_DATA, ./data or ../shared/data.",
        ),
    ] = None,
) -> None:
    """Make a tidy table from your copy of a well-known data set."""
    from freshet.model.tables.prepare import prepare

    rows = prepare(preset, from_ or _raw_folder(), output)
    typer.echo(f"{rows:,} rows in {output}")


def _raw_folder() -> Path:
    """Where raw files lie when nobody says: FRESHET_DATA, else the first folder that is there."""
    named = os.environ.get("FRESHET_DATA")
    places = [Path(named)] if named else [Path("data"), Path("../shared/data")]
    return next((place for place in places if place.is_dir()), places[0])


@reads_table
def backtest(
    context: typer.Context,
    data: Data,
    item_id: ItemId,
    time: Time,
    target: Target,
    prediction_length: PredictionLength,
    windows: Annotated[
        int, typer.Option(min=1, help="Rolling cutoffs, counted back from the end of a series.")
    ] = 1,
    window_step: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between cutoffs; default the prediction length."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Names joined by commas, freshet:FOLDER too, A+B is the mean of two, coherent:A "
            "adds up with --levels; default all."
        ),
    ] = None,
    levels: Levels = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the weights of freshet; default those that ship.")
    ] = None,
    fine_tune: Annotated[
        Literal["none", "once", "each"],
        typer.Option(
            help="freshet learns: not at all, at the first cutoff, or at each; the others: "
            "once, once, each."
        ),
    ] = "none",
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    engine: Engine = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of finished forecasts, to go on after a stop; default beside --json."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write scores, strata and windows here.")
    ] = None,
    forecasts: Annotated[
        Path | None, typer.Option(help="Write every forecast here, as parquet.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw forecasts and skill: .png, .svg, .pdf or .html.")
    ] = None,
) -> None:
    """Compare models on rolling cutoffs of your own table; exit status 1 when a model failed."""
    from freshet.model.backtest.compare import BacktestSettings, contest_of, with_weights
    from freshet.model.backtest.run import Outputs, run
    from freshet.model.tables.panel import Rolling
    from freshet.model.threads import use_threads

    use_threads()
    contest = contest_of(data, table_of(context.params), joined(levels))
    rolling = Rolling(prediction_length, windows, window_step)
    chosen = with_weights(joined([models]) if models else contest.models, weights)
    settings = BacktestSettings(rolling, chosen, fine_tune, jobs, engine=engine)
    beside_json = json.with_name(json.name + ".cache") if json else None
    outputs = Outputs(str(data), cache or beside_json, json, forecasts, plot)
    raise typer.Exit(run(contest.panel, settings, outputs, make=contest.make))
