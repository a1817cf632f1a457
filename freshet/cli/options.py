"""Options that several commands share, and what they do: read the settings, parse a map, print a
result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from freshet.stream.config import Settings

Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default freshet.toml if it is there.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Summary = Annotated[
    Path | None, typer.Option("--summary", help="Also write the result as JSON to this file.")
]
Seconds = Annotated[
    int | None, typer.Option(min=1, help="Stop after so many seconds of live time; default: never.")
]
Preset = Annotated[str | None, typer.Option(help="online_retail, taobao, olist or dunnhumby.")]
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
Map = Annotated[
    list[str] | None, typer.Option("--map", help="field=column, repeated or joined by commas.")
]


def settings_of(path: Path | None) -> Settings:
    """The settings of a file and the environment; from here on the process logs as they say."""
    from freshet.stream.config import load
    from freshet.stream.telemetry import configure_logging

    settings = load(path).settings
    configure_logging(settings.telemetry)
    return settings


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
