"""How tables and files are read: one list of options for every command that reads some."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from freshet.cli.options import joined

if TYPE_CHECKING:
    from freshet.model.tables.table import TableSettings
    from freshet.stream.files.read import FileStyle

Command = Callable[..., None]

Data = Annotated[
    Path,
    typer.Option(help="A long table, one row an item and time: CSV, parquet, .jsonl."),
]
ItemId = Annotated[str, typer.Option(help="Column with the name of a series.")]
Time = Annotated[str, typer.Option(help="Column with the time; its zone or --time-zone, else UTC.")]
Target = Annotated[
    str,
    typer.Option(
        help="Column with what is forecast; at least 0, empty where unknown or in rows that lie "
        "ahead."
    ),
]
PredictionLength = Annotated[int, typer.Option(min=1, help="Steps to forecast.")]

Levels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,A/B",
        help="Columns by which series add up, forecast too such that all adds up: store, "
        "store/dept, or total.",
    ),
]

Engine = Annotated[
    Literal["dask", "ray", "spark"] | None,
    typer.Option(
        help="Compute on its machines, as its own environment names them, and with the same "
        "numbers; default this machine."
    ),
]


def _file(
    day_first: Annotated[
        bool | None,
        typer.Option(
            "--day-first/--month-first", help="How 03/04/2024 is read; default: as all say."
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between fields: a character, or tab; default: found.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="SIGN", help="Of numbers, . or a comma; default: found.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of texts: utf-8, cp1252, ...; default: found.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose clock shows times that name no zone.")
    ] = None,
) -> None:
    """The options of every command that reads files; never called."""


def _table(
    frequency: Annotated[
        str | None,
        typer.Option(
            help="A pandas alias: h, D, W-SUN, MS, 15min, ...; default: what the rows tell."
        ),
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Columns known in advance, such as promotions."),
    ] = None,
    past: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Columns known up to the cutoff only.")
    ] = None,
    static: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Columns that do not change within a series."),
    ] = None,
    season_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of a season; default by frequency: 24 for h, 7 for D, 12 for MS."
        ),
    ] = None,
    missing: Annotated[
        Literal["keep", "zero"],
        typer.Option(help="A step without a value: unknown, or nothing sold."),
    ] = "keep",
    aggregate: Annotated[
        Literal["sum", "mean"] | None,
        typer.Option(help="How several rows of one step are combined; default: refused."),
    ] = None,
    country: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Whose public holidays count: DE, GB, US, ..."),
    ] = None,
    end: Annotated[
        Literal["own", "common"] | None,
        typer.Option(
            help="Series end at their own last row, or at that of all; default common with "
            "--missing zero."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse odd rows and negative targets, however few."),
    ] = False,
) -> None:
    """The options of every command that reads a table, beside those of a file; never called."""


def reads_files(command: Command) -> Command:
    """The command with the options of a file, which `style_of` reads from its context."""
    return _with_options(command, _file)


def reads_table(command: Command) -> Command:
    """The command with the options of a table, which `table_of` reads from its context."""
    return _with_options(command, _table, _file)


def _with_options(command: Command, *lists: Command) -> Command:
    own = inspect.signature(command, eval_str=True).parameters

    @functools.wraps(command)
    def with_options(**options: Any) -> None:
        command(**{name: options[name] for name in own})

    shared = [
        parameter
        for options in lists
        for parameter in inspect.signature(options, eval_str=True).parameters.values()
    ]
    # An option comes after those that must be given, whichever list they are of.
    keywords = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.values(), *shared)
    ]
    with_options.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return with_options


def table_of(options: Mapping[str, Any]) -> TableSettings:
    """How a command's table is to be read, from all of its options (`typer.Context.params`)."""
    from freshet.model.tables.table import Columns, TableSettings

    known, past, static = (joined(options[role]) for role in ("known", "past", "static"))
    return TableSettings(
        Columns(options["item_id"], options["time"], options["target"], known, past, static),
        options["frequency"],
        season_length=options["season_length"],
        missing=options["missing"],
        aggregate=options["aggregate"],
        country=options["country"],
        end=options["end"],
        dayfirst=options["day_first"],
        strict=options["strict"],
        file=style_of(options),
    )


def reading_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same in the words of `Forecaster.predict`, which finds what is not named."""
    known = joined(options["known"]) if options["known"] else None
    alike = ("frequency", "season_length", "missing", "aggregate", "country", "end", "strict")
    return {name: options[name] for name in ("target", *alike)} | {
        "id_column": options["item_id"],
        "timestamp_column": options["time"],
        "known": known,
        "past": joined(options["past"]),
        "static": joined(options["static"]),
        "dayfirst": options["day_first"],
    }


def style_of(options: Mapping[str, Any]) -> FileStyle:
    """How a command's files are written, from all of its options."""
    from freshet.stream.files.read import FileStyle
    from freshet.stream.files.separated import separator_of
    from freshet.stream.files.times import zone_named

    decimal, zone = options["decimal"], options["time_zone"]
    if decimal not in (None, ".", ","):
        raise typer.BadParameter(f"--decimal is . or , and not {decimal!r}")
    if zone is not None:
        zone_named(zone)
    return FileStyle(
        separator=separator_of(options["separator"]),
        decimal=decimal,
        encoding=options["encoding"],
        zone=zone,
        dayfirst=options["day_first"],
    )
