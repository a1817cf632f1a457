"""Commands that run until told to stop: the demo, the five processes, the two sources of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.options import (
    Config,
    HistoryDays,
    HttpPort,
    Items,
    Map,
    Plan,
    Preset,
    Scenario,
    Seconds,
    Seed,
    Summary,
    columns_of,
    settings_of,
    with_http_port,
)
from freshet.cli.table_options import reads_files, style_of


def demo(
    config: Config = None,
    seconds: Seconds = None,
    headless: Annotated[bool, typer.Option(help="No web page; faster clock.")] = False,
    summary: Summary = None,
    items: Items = None,
    seed: Seed = 1,
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="Simulated seconds per second.")
    ] = None,
    scenario: Scenario = "drift",
    replay: Annotated[
        Path | None, typer.Option(help="A real file instead of the simulated shop.")
    ] = None,
    preset: Preset = None,
    map: Map = None,
    broker: Annotated[
        str, typer.Option(help="embedded, or kafka (needs KAFKA_HOME and Java).")
    ] = "embedded",
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep Redis, logs and weights here.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, help="Port of the web page; 0 is any free one.")
    ] = None,
) -> None:
    """Run everything on this machine: broker, Redis, a shop, forecasts, a web page."""
    from freshet.online.demo.options import DemoOptions
    from freshet.online.demo.run import run_demo

    options = DemoOptions(
        seconds=seconds,
        headless=headless,
        summary=summary,
        items=items,
        seed=seed,
        speed=speed,
        scenario=scenario,
        replay=replay,
        preset=preset,
        columns=columns_of(map),
        broker=broker,
        data_dir=data_dir,
        port=port,
    )
    raise typer.Exit(run_demo(options, config))


def ingest(
    config: Config = None,
    until_end: Annotated[bool, typer.Option(help="Stop at the log ends seen at start.")] = False,
    from_beginning: Annotated[
        bool, typer.Option(help="Fold the whole log anew; needs --into.")
    ] = False,
    into: Annotated[
        int | None,
        typer.Option(
            min=1, help="The generation to build; readers switch to it when it has caught up."
        ),
    ] = None,
    http_port: HttpPort = None,
) -> None:
    """Fold orders and clicks into windows in Redis, exactly once; at the end print the books.

    With --until-end the exit status is 1 when more is lost than ingest.max_lost_share.
    """
    from freshet.stream.ingest.process import run

    if from_beginning != (into is not None):
        raise typer.BadParameter(
            "--from-beginning and --into go together: live windows are never overwritten"
        )
    settings = with_http_port(settings_of(config), "ingest", http_port)
    report = run(settings, until_end=until_end, into=into)
    typer.echo(report.as_text())
    raise typer.Exit(1 if until_end and report.too_much else 0)


def worker(
    config: Config = None,
    http_port: HttpPort = None,
) -> None:
    """Forecast every item at each new cutoff, score what became final, watch for drift."""
    from freshet.online.worker.process import run

    run(with_http_port(settings_of(config), "worker", http_port))


def control(
    config: Config = None,
    http_port: HttpPort = None,
) -> None:
    """Turn drift into alerts and retrain requests."""
    from freshet.online.control.process import run

    run(with_http_port(settings_of(config), "control", http_port))


def learn(
    config: Config = None,
    http_port: HttpPort = None,
) -> None:
    """Fine-tune on request, pass or fail the gate, publish new weights."""
    from freshet.online.learn.process import run

    run(with_http_port(settings_of(config), "learn", http_port))


def dashboard(
    config: Config = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of the page.")] = None,
) -> None:
    """Serve the web page."""
    from freshet.dashboard.app import run

    settings = settings_of(config)
    port = {} if http_port is None else {"port": http_port}
    run(settings.model_copy(update={"dashboard": settings.dashboard.model_copy(update=port)}))


def simulate(
    config: Config = None,
    seed: Seed = 1,
    items: Items = None,
    scenario: Scenario = "drift",
    speed: Annotated[float, typer.Option(min=0.001, help="Simulated seconds per second.")] = 900.0,
    seconds: Seconds = None,
    history_days: HistoryDays = 28,
    drift_after_ms: Annotated[
        int | None, typer.Option(min=0, help="Simulated time until the planted drift.")
    ] = None,
    plan: Plan = None,
) -> None:
    """Send a simulated shop's events to the event topics."""
    from freshet.stream.source.process import simulate as run

    run(
        settings_of(config),
        seed=seed,
        items=items,
        scenario=scenario,
        speed=speed,
        seconds=seconds,
        history_days=history_days,
        drift_after_ms=drift_after_ms,
        plan=plan,
    )


@reads_files
def replay(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A data file (or folder, for olist).")],
    config: Config = None,
    preset: Preset = None,
    map: Map = None,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Times as fast as it happened.")
    ] = 3_600.0,
    seconds: Seconds = None,
    history_days: HistoryDays = 0,
    plan: Plan = None,
) -> None:
    """Send a real file's events to the event topics."""
    from freshet.stream.source.process import replay as run

    run(
        settings_of(config),
        file,
        preset=preset,
        columns=columns_of(map),
        speed=speed,
        seconds=seconds,
        history_days=history_days,
        plan=plan,
        style=style_of(context.params),
    )
