"""`freshet map`: what records would become, and the maps that come with freshet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freshet.cli.options import Config, Json, group, put, settings_of

if TYPE_CHECKING:
    from freshet.stream.config import Settings
    from freshet.stream.ops.trial import RawRecord

map_ = group("What records become, and maps of what shops send.")

Kind = Literal["orders", "clicks"]


@map_.command("show")
def show(
    preset: Annotated[
        str | None, typer.Argument(help="Its name; without one all are listed.")
    ] = None,
) -> None:
    """Print a preset as it would stand in freshet.toml, to copy and change."""
    from freshet.stream import presets
    from freshet.stream.errors import ConfigError

    if preset is None:
        for name in presets.names():
            typer.echo(f"{name:<22} {', '.join(presets.kinds_of(name))}")
        return
    try:
        typer.echo(presets.text_of(preset), nl=False)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@map_.command("try")
def try_(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Lines of JSON, an array, one object, or a folder of .json; - is standard input."
        ),
    ] = None,
    config: Config = None,
    preset: Annotated[
        str | None, typer.Option(help="This map instead of the configuration's.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="The newest records of a topic instead.")
    ] = None,
    newest: Annotated[int, typer.Option(min=1, help="So many of them.")] = 100,
    kind: Annotated[Kind | None, typer.Option(help="What the records are; default orders.")] = None,
    key: Annotated[str, typer.Option(help="Path of what is a record's key on the topic.")] = "",
    show: Annotated[int, typer.Option(min=0, help="Print so many records.")] = 100,
    json: Json = False,
) -> None:
    """Print what each record becomes, or why not; exit status 1 when none counts."""
    from freshet.stream.clock import wall_now_ms
    from freshet.stream.ops.agreement import placing_warnings
    from freshet.stream.ops.trial import trial
    from freshet.stream.ops.trial_records import newest as newest_of
    from freshet.stream.ops.trial_records import of_file
    from freshet.stream.ops.trial_report import TrialReport
    from freshet.stream.ops.trial_warnings import warnings_of

    if (file is None) == (topic is None):
        raise typer.BadParameter("records come from a file, or from --topic TOPIC")
    settings = settings_of(config)
    known_kind: Kind = kind or _kind_of(settings, topic, preset)
    if preset is not None:
        settings = _with_preset(settings, known_kind, preset)
    notes: list[str] = []
    now_ms = wall_now_ms()
    if topic is not None:
        records = newest_of(settings, topic, newest)
    else:
        assert file is not None
        records = of_file(file, typer.get_binary_stream("stdin"), key, now_ms)
        settings, notes = _without_keys(settings, known_kind, records)
    found = trial(settings, known_kind, records, old=topic is None)
    warnings = warnings_of(settings, known_kind, found, now_ms)
    if topic is not None:
        warnings += placing_warnings(settings, topic, known_kind, records)
    report = TrialReport(found, settings.events.series_by, warnings, notes)
    put(report.as_dict(), json, report.as_text(show))
    raise typer.Exit(0 if found.counts["applied"] else 1)


def _kind_of(settings: Settings, topic: str | None, preset: str | None) -> Kind:
    """What records are, where nobody says it."""
    from freshet.stream.errors import ConfigError
    from freshet.stream.presets import kinds_of

    if topic is not None and topic == settings.kafka.topics.clicks:
        return "clicks"
    if preset is None:
        return "orders"
    try:
        return "orders" if "orders" in kinds_of(preset) else "clicks"
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _with_preset(settings: Settings, kind: Kind, preset: str) -> Settings:
    from pydantic import ValidationError

    from freshet.stream.errors import ConfigError

    try:
        section = type(settings.events.section(kind)).model_validate({"preset": preset})
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(text) from None
    events = settings.events.model_copy(update={kind: section, f"{kind}_fields": {}})
    return settings.model_copy(update={"events": events})


def _without_keys(
    settings: Settings, kind: Kind, records: list[RawRecord]
) -> tuple[Settings, list[str]]:
    """Orders that are states need keys, which a file has only where somebody says what they are."""
    orders = settings.events.orders
    states = kind == "orders" and orders.mode == "state" and orders.key == "order_id"
    if not states or any(record.key is not None for record in records):
        return settings, []
    events = settings.events.model_copy(update={"orders": orders.model_copy(update={"key": "any"})})
    note = (
        "a file has no keys (--key PATH says what they are): on the topic each record's key must "
        "be its order_id"
    )
    return settings.model_copy(update={"events": events}), [note]
