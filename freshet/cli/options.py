"""What several commands share: their options, and how settings, tables and results come of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from freshet.stream.config import Settings

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


def settings_of(path: Path | None) -> Settings:
    """The settings of a file and the environment; from here on the process logs as they say."""
    from freshet.stream.config import load
    from freshet.stream.telemetry import configure_logging

    settings = load(path).settings
    configure_logging(settings.telemetry)
    return settings


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
