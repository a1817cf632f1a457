"""Commands on what runs: topics, windows, forecasts, settings, doctor, verify, retrain."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from freshet import __version__
from freshet.cli.options import Config, Json, Summary, group, put, settings_of

topics = group("Kafka topics.")
windows = group("The windows in Redis.")
forecasts = group("The forecast topic.")
config = group("Settings.")


def retrain(
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Whose windows come first and whose gain is tested; default the shop."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Say what learn does, until it has answered.")] = True,
    config: Config = None,
) -> None:
    """Ask learn for new weights; they serve if they pass the gate, within days."""
    from freshet.online.control.ask import ask, progress

    settings = settings_of(config)
    request_id = ask(settings, segment or [])
    typer.echo(request_id)
    for line in progress(settings, request_id) if wait else ():
        typer.echo(line)


@windows.command("export")
def windows_export(
    resolution_ms: Annotated[int, typer.Option(min=1, help="Width of the buckets.")],
    config: Config = None,
    from_: Annotated[str | None, typer.Option("--from", help="Inclusive; ms or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Exclusive; ms or RFC 3339.")] = None,
    item: Annotated[str | None, typer.Option(help="Only this item_id.")] = None,
    format: Annotated[str, typer.Option(help="jsonl, csv or parquet.")] = "jsonl",
    include_open: Annotated[bool, typer.Option(help="Also buckets that may still change.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File; default standard output.")
    ] = None,
) -> None:
    """Write the closed windows, one row an item and bucket."""
    from freshet.stream.read.export import export

    export(
        settings_of(config),
        resolution_ms=resolution_ms,
        start=from_,
        end=to,
        item_id=item,
        format=format,
        include_open=include_open,
        output=output,
    )


@windows.command("drop")
def windows_drop(
    generation: Annotated[int, typer.Argument(min=0, help="A generation that is not current.")],
    config: Config = None,
) -> None:
    """Free the memory of an old generation of windows."""
    from freshet.stream.ingest.generations import drop_generation

    typer.echo(f"{drop_generation(settings_of(config), generation)} keys deleted")


@windows.command("forget")
def windows_forget(
    topic: Annotated[str, typer.Argument(help="A topic of the shop's tables.")],
    config: Config = None,
) -> None:
    """Give up what Redis keeps of a table whose log is another one now; ingest reads that anew."""
    from freshet.stream.store.connection import connect
    from freshet.stream.store.versions import VersionStore

    found = VersionStore(connect(settings_of(config).redis)).forget(topic)
    typer.echo(f"{found} versions deleted")


@topics.command("create")
def topics_create(
    config: Config = None,
    json: Json = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="For events of another time than now: simulate.")
    ] = False,
) -> None:
    """Create or check all topics; safe to repeat; exit status 1 when one will not do."""
    from freshet.stream.kafka import ensure_topics

    reports = ensure_topics(settings_of(config), live=not simulated)
    lines = []
    for report in reports:
        said = [*report.problems, *(f"warning: {text}" for text in report.warnings)]
        lines.append(f"{report.state:<9} {report.name}  {'; '.join(said)}".rstrip())
    put([asdict(report) for report in reports], json, "\n".join(lines))
    raise typer.Exit(1 if any(report.state == "mismatch" for report in reports) else 0)


def verify(config: Config = None, json: Json = False, summary: Summary = None) -> None:
    """Recount the log on its own and compare the windows; exit status 1 when anything differs."""
    from freshet.stream.verify.verify import verify as run

    report = run(settings_of(config))
    put(report.as_dict(), json, report.as_text(), summary)
    raise typer.Exit(0 if report.agrees else 1)


@forecasts.command("tail")
def forecasts_tail(
    config: Config = None,
    item: Annotated[str | None, typer.Option(help="Only this item_id.")] = None,
    resolution_ms: Annotated[int | None, typer.Option(min=1, help="Only steps so long.")] = None,
    max: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    json: Json = False,
) -> None:
    """Print forecasts as they come."""
    from freshet.online.tail import tail

    tail(settings_of(config), item_id=item, resolution_ms=resolution_ms, most=max, as_json=json)


def doctor(config: Config = None, json: Json = False) -> None:
    """Look at everything freshet depends on; exit status 1 when something must be mended."""
    # Before anything that takes time to load.
    if not json:
        typer.echo(f"freshet {__version__} looks at Kafka, Redis, records, weights and ports ...")
    settings = settings_of(config)
    from freshet.online.doctor import examine, line_of
    from freshet.stream.telemetry import configure_logging

    # What clients say while they are refused, the findings say better.
    configure_logging(settings.telemetry.model_copy(update={"log_level": "error"}))
    found = []
    for check in examine(settings):
        found.append(check)
        if not json:
            typer.echo(line_of(check))
    healthy = all(check.state != "problem" for check in found)
    if json:
        put({"healthy": healthy, "checks": [asdict(check) for check in found]}, json, "")
    # Threads of checks that hang would be waited for.
    sys.stdout.flush()
    os._exit(0 if healthy else 1)


@config.command("show")
def config_show(config: Config = None, json: Json = False) -> None:
    """Every setting, its value, and where the value comes from."""
    from freshet.stream.config import load, shown

    loaded = load(config)
    rows = shown(loaded.settings, loaded.sources)
    width = max(len(name) for name, _, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value}  ({source})" for name, value, source in rows)
    told = [{"name": name, "value": value, "source": source} for name, value, source in rows]
    put(told, json, text)
