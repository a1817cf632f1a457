"""What several commands share: their options, and how settings, tables and results come of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from freshet.model.tables.table import TableSettings
    from freshet.stream.config import Settings
    from freshet.stream.files.read import FileStyle

# Of all ------------------------------------------------------------------------------------------

Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default freshet.toml if it is there.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Summary = Annotated[
    Path | None, typer.Option("--summary", help="Also write the result as JSON to this file.")
]

# Of processes and sources ------------------------------------------------------------------------

HttpPort = Annotated[int | None, typer.Option(min=0, help="Port of /livez, /readyz, /metrics.")]
Seconds = Annotated[
    int | None, typer.Option(min=1, help="Stop after so many seconds of live time; default: never.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same shop and events.")]
Items = Annotated[int | None, typer.Option(min=1, help="Series in the simulated shop.")]
Scenario = Annotated[str, typer.Option(help="calm, flash_sale or drift.")]
HistoryDays = Annotated[int, typer.Option(min=0, help="Days sent at once before live begins.")]
Plan = Annotated[Path | None, typer.Option(help="Write progress and plan to this JSON file.")]
Preset = Annotated[
    str | None, typer.Option(help="shopify_csv, online_retail, taobao, olist or dunnhumby.")
]
Map = Annotated[
    list[str] | None, typer.Option("--map", help="field=column, repeated or joined by commas.")
]

# Of dead letters ---------------------------------------------------------------------------------

SourceTopic = Annotated[
    str | None, typer.Option("--topic", help="Only letters from this source topic.")
]
ErrorName = Annotated[str | None, typer.Option("--error", help="Only this error class or stage.")]
LetterFrom = Annotated[
    str | None, typer.Option("--from", help="Only letters written since; ms or RFC 3339.")
]
LetterTo = Annotated[
    str | None, typer.Option("--to", help="Only letters written before; ms or RFC 3339.")
]
Late = Annotated[
    bool, typer.Option("--late", help="Records that came too late instead of dead letters.")
]

# Of tables ---------------------------------------------------------------------------------------

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
Frequency = Annotated[
    str | None,
    typer.Option(help="A pandas alias: h, D, W-SUN, MS, 15min, ...; default: what the rows tell."),
]
PredictionLength = Annotated[int, typer.Option(min=1, help="Steps to forecast.")]
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

SeasonLength = Annotated[
    int | None,
    typer.Option(
        min=1, help="Steps of a season; default by frequency: 24 for h, 7 for D, 12 for MS."
    ),
]
End = Annotated[
    Literal["own", "common"] | None,
    typer.Option(
        help="Series end at their own last row, or at that of all; default common with --missing "
        "zero."
    ),
]
DayFirst = Annotated[
    bool | None,
    typer.Option("--day-first/--month-first", help="How 03/04/2024 is read; default: as all say."),
]
Separator = Annotated[
    str | None, typer.Option(help="Between fields: a character, or tab; default: found.")
]
Decimal = Annotated[
    str | None, typer.Option(metavar="SIGN", help="Of numbers, . or a comma; default: found.")
]
Encoding = Annotated[str | None, typer.Option(help="Of texts: utf-8, cp1252, ...; default: found.")]
TimeZone = Annotated[
    str | None, typer.Option(metavar="NAME", help="Whose clock shows times that name no zone.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse odd rows and negative targets, however few.")
]


def settings_of(path: Path | None) -> Settings:
    """The settings of a file and the environment; from here on the process logs as they say."""
    from freshet.stream.config import load
    from freshet.stream.telemetry import configure_logging

    settings = load(path).settings
    configure_logging(settings.telemetry)
    return settings


def table_of(options: Mapping[str, Any]) -> TableSettings:
    """How a command's table is to be read, from all of its options (`typer.Context.params`)."""
    from freshet.model.tables.table import Columns, TableSettings

    known, past, static = (joined(options[role]) for role in ("known", "past", "static"))
    return TableSettings(
        Columns(options["item_id"], options["time"], options["target"], known, past, static),
        options["frequency"],
        season_length=options.get("season_length"),
        missing=options["missing"],
        aggregate=options["aggregate"],
        country=options["country"],
        end=options["end"],
        dayfirst=options["day_first"],
        strict=options["strict"],
        file=style_of(options),
    )


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


def joined(parts: list[str] | None) -> tuple[str, ...]:
    """Names from options that were repeated, joined by commas, or both; each once.

    >>> joined(["promo, price", "promo", "event"])
    ('promo', 'price', 'event')
    """
    names = [name.strip() for part in parts or [] for name in part.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def columns_of(pairs: list[str] | None) -> dict[str, str]:
    """`["a=x,b=y"]` to a table.

    >>> columns_of(["sku=product,quantity=qty", "region=shop"])
    {'sku': 'product', 'quantity': 'qty', 'region': 'shop'}
    """
    parts = [part for pair in pairs or [] for part in pair.split(",")]
    wrong = [part for part in parts if "=" not in part]
    if wrong:
        raise typer.BadParameter(f"--map wants field=column, found {wrong[0]!r}")
    return dict(part.split("=", 1) for part in parts)


def put(result: Any, as_json: bool, text: str, summary: Path | None = None) -> None:
    """Print a result as text or as JSON, and write it to a file where one is named."""
    import orjson

    data = orjson.dumps(result, option=orjson.OPT_INDENT_2)
    if summary:
        summary.write_bytes(data + b"\n")
    typer.echo(data.decode() if as_json else text)


def with_http_port(settings: Settings, section: str, port: int | None) -> Settings:
    """The settings with another port for the process of this section."""
    if port is None:
        return settings
    return settings.model_copy(
        update={section: getattr(settings, section).model_copy(update={"http_port": port})}
    )


def group(text: str) -> typer.Typer:
    """A command with commands of its own; without one of them it prints its help."""
    return typer.Typer(help=text, no_args_is_help=True)
