"""The commands that need files only: `freshet data prepare` and `freshet backtest`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from freshet.cli.options import group

data = group("Data sets as tidy tables.")

Known = Annotated[
    list[str] | None,
    typer.Option(metavar="A,B", help="Columns known in advance, such as promotions."),
]
Past = Annotated[
    list[str] | None, typer.Option(metavar="A,B", help="Columns known up to the cutoff only.")
]
Static = Annotated[
    list[str] | None,
    typer.Option(metavar="A,B", help="Columns that do not change within a series."),
]
Country = Annotated[
    str | None, typer.Option(metavar="CODE", help="Whose public holidays count: DE, GB, US, ...")
]
Missing = Annotated[
    Literal["keep", "zero"], typer.Option(help="A step without a value: unknown, or nothing sold.")
]
Aggregate = Annotated[
    Literal["sum", "mean"] | None,
    typer.Option(help="How several rows of one step are combined; default: refused."),
]


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
    """Where raw files lie when nobody says: the environment's word, else the first folder that is
    there.
    """
    named = os.environ.get("FRESHET_DATA")
    places = [Path(named)] if named else [Path("data"), Path("../shared/data")]
    return next((place for place in places if place.is_dir()), places[0])


def backtest(
    data: Annotated[
        Path, typer.Option(help="A long table: parquet or CSV, one row an item and time.")
    ],
    item_id: Annotated[str, typer.Option(help="Column with the name of a series.")],
    time: Annotated[str, typer.Option(help="Column with the time; UTC unless it names a zone.")],
    target: Annotated[
        str, typer.Option(help="Column with what is forecast; at least 0, empty where unknown.")
    ],
    frequency: Annotated[str, typer.Option(help="A pandas alias: h, D, W-SUN, MS, 15min, ...")],
    prediction_length: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    windows: Annotated[
        int, typer.Option(min=1, help="Rolling cutoffs, counted back from the end of a series.")
    ] = 1,
    known: Known = None,
    past: Past = None,
    static: Static = None,
    window_step: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between cutoffs; default the prediction length."),
    ] = None,
    season_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of a season; default by frequency: 24 for h, 7 for D, 12 for MS."
        ),
    ] = None,
    missing: Missing = "keep",
    aggregate: Aggregate = None,
    country: Country = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Names joined by commas, freshet:FOLDER too, A+B is the mean of two; default all."
        ),
    ] = None,
    fine_tune: Annotated[
        Literal["none", "once", "each"],
        typer.Option(
            help="freshet learns: not at all, at the first cutoff, or at each; the others: "
            "once, once, each."
        ),
    ] = "none",
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
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
    from freshet.model.backtest.compare import BacktestSettings, make, names
    from freshet.model.backtest.run import Outputs, run
    from freshet.model.tables.panel import Rolling
    from freshet.model.tables.table import Columns, TableSettings, read_panel

    columns = Columns(item_id, time, target, joined(known), joined(past), joined(static))
    panel = read_panel(
        data, TableSettings(columns, frequency, season_length, missing, aggregate, country)
    )
    chosen = joined([models]) if models else names()
    settings = BacktestSettings(
        Rolling(prediction_length, windows, window_step), chosen, fine_tune, jobs
    )
    beside = json.with_name(json.name + ".cache") if json else None
    raise typer.Exit(
        run(panel, settings, Outputs(str(data), cache or beside, json, forecasts, plot), make=make)
    )


def joined(parts: list[str] | None) -> tuple[str, ...]:
    """Names from options that were repeated, joined by commas, or both; each once.

    >>> joined(["promo, price", "promo", "event"])
    ('promo', 'price', 'event')
    """
    names = [name.strip() for part in parts or [] for name in part.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))
