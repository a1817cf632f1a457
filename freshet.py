"""The front door: `freshet COMMAND`, one function a command, and the public names, everything imported when used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model import commands
from model.explain.command import explain
from model.training import command as train_command

if TYPE_CHECKING:
    from stream.config import Settings
    from stream.letters import Wanted

__version__ = "0.1.0"
__all__ = ["Forecaster", "FreshetError", "Settings", "WindowReader", "__version__"]

_PUBLIC = {
    "Forecaster": "model.forecaster",
    "FreshetError": "stream.errors",
    "Settings": "stream.config",
    "WindowReader": "stream.read",
}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import freshet` stays cheap."""
    import importlib

    if name not in _PUBLIC:
        raise AttributeError(f"module 'freshet' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


app = typer.Typer(
    name="freshet",
    help="Streaming, real-time sales forecasts: orders and clicks in through Kafka, quantile forecasts out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


topics = _group("topics", "Kafka topics.")
windows = _group("windows", "The windows in Redis.")
forecasts = _group("forecasts", "The forecast topic.")
dlq = _group("dlq", "Dead letters.")
model = _group("model", "Weights versions.")
config = _group("config", "Settings.")

Config = Annotated[Path | None, typer.Option("--config", help="TOML file; default freshet.toml if it is there.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Summary = Annotated[Path | None, typer.Option("--summary", help="Also write the result as JSON to this file.")]
Seconds = Annotated[int | None, typer.Option(min=1, help="Stop after so many seconds of live time; default: never.")]
Preset = Annotated[str | None, typer.Option(help="online_retail, taobao, olist or dunnhumby.")]
SourceTopic = Annotated[str | None, typer.Option("--topic", help="Only letters from this source topic.")]
ErrorName = Annotated[str | None, typer.Option("--error", help="Only this error class or stage.")]
LetterFrom = Annotated[str | None, typer.Option("--from", help="Only letters written since; ms or RFC 3339.")]
LetterTo = Annotated[str | None, typer.Option("--to", help="Only letters written before; ms or RFC 3339.")]
Late = Annotated[bool, typer.Option("--late", help="Records that came too late instead of dead letters.")]
Map = Annotated[list[str] | None, typer.Option("--map", help="field=column, repeated or joined by commas.")]


def _settings(path: Path | None) -> Settings:
    from stream.config import load
    from stream.telemetry import configure_logging

    settings = load(path).settings
    configure_logging(settings.telemetry)
    return settings


def _columns(pairs: list[str] | None) -> dict[str, str]:
    """`["a=x,b=y"]` to a table.

    >>> _columns(["sku=product,quantity=qty", "region=shop"])
    {'sku': 'product', 'quantity': 'qty', 'region': 'shop'}
    """
    parts = [part for pair in pairs or [] for part in pair.split(",")]
    wrong = [part for part in parts if "=" not in part]
    if wrong:
        raise typer.BadParameter(f"--map wants field=column, found {wrong[0]!r}")
    return dict(part.split("=", 1) for part in parts)


def _put(result: Any, as_json: bool, text: str, summary: Path | None = None) -> None:
    import orjson

    data = orjson.dumps(result, option=orjson.OPT_INDENT_2)
    if summary:
        summary.write_bytes(data + b"\n")
    typer.echo(data.decode() if as_json else text)


# Run --------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    config: Config = None,
    seconds: Seconds = None,
    headless: Annotated[bool, typer.Option(help="No web page; faster clock.")] = False,
    summary: Summary = None,
    items: Annotated[int | None, typer.Option(min=1, help="Series in the simulated shop.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 1,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Simulated seconds per second.")] = None,
    scenario: Annotated[str, typer.Option(help="calm, flash_sale or drift.")] = "drift",
    replay: Annotated[Path | None, typer.Option(help="A real file instead of the simulated shop.")] = None,
    preset: Preset = None,
    map: Map = None,
    broker: Annotated[str, typer.Option(help="embedded, or kafka (needs KAFKA_HOME and Java).")] = "embedded",
    data_dir: Annotated[Path | None, typer.Option(help="Keep Redis, logs and weights here.")] = None,
    port: Annotated[int | None, typer.Option(min=0, help="Port of the web page; 0 is any free one.")] = None,
) -> None:
    """Run everything on this machine: broker, Redis, a shop, forecasts, a web page."""
    from online.demo.options import DemoOptions
    from online.demo.run import run_demo

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
        columns=_columns(map),
        broker=broker,
        data_dir=data_dir,
        port=port,
    )
    raise typer.Exit(run_demo(options, config))


@app.command()
def ingest(
    config: Config = None,
    until_end: Annotated[bool, typer.Option(help="Stop at the log ends seen at start.")] = False,
    from_beginning: Annotated[bool, typer.Option(help="Fold the whole log anew; needs --into.")] = False,
    into: Annotated[
        int | None, typer.Option(min=1, help="The generation to build; readers switch to it when it has caught up.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of /livez, /readyz, /metrics.")] = None,
) -> None:
    """Fold orders and clicks into windows in Redis, exactly once."""
    from stream.ingest import run

    if from_beginning != (into is not None):
        raise typer.BadParameter("--from-beginning and --into go together: live windows are never overwritten")
    run(_with_http_port(_settings(config), "ingest", http_port), until_end=until_end, into=into)


@app.command()
def worker(
    config: Config = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of /livez, /readyz, /metrics.")] = None,
) -> None:
    """Forecast every item at each new cutoff, score what became final, watch for drift."""
    from online.worker import run

    run(_with_http_port(_settings(config), "worker", http_port))


@app.command()
def control(
    config: Config = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of /livez, /readyz, /metrics.")] = None,
) -> None:
    """Turn drift into alerts and retrain requests."""
    from online.control import run

    run(_with_http_port(_settings(config), "control", http_port))


@app.command()
def learn(
    config: Config = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of /livez, /readyz, /metrics.")] = None,
) -> None:
    """Fine-tune on request, pass or fail the gate, publish new weights."""
    from online.learn import run

    run(_with_http_port(_settings(config), "learn", http_port))


@app.command()
def dashboard(
    config: Config = None,
    http_port: Annotated[int | None, typer.Option(min=0, help="Port of the page.")] = None,
) -> None:
    """Serve the web page."""
    from dashboard.app import run

    settings = _settings(config)
    port = {} if http_port is None else {"port": http_port}
    run(settings.model_copy(update={"dashboard": settings.dashboard.model_copy(update=port)}))


def _with_http_port(settings: Settings, section: str, port: int | None) -> Settings:
    if port is None:
        return settings
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update={"http_port": port})})


@topics.command("create")
def topics_create(config: Config = None, json: Json = False) -> None:
    """Create or check all topics; safe to repeat."""
    from dataclasses import asdict

    from stream.kafka import ensure_topics

    reports = ensure_topics(_settings(config), live=True)
    lines = [f"{report.state:<9} {report.name}  {'; '.join(report.problems)}".rstrip() for report in reports]
    _put([asdict(report) for report in reports], json, "\n".join(lines))
    raise typer.Exit(1 if any(report.state == "mismatch" for report in reports) else 0)


# Events -----------------------------------------------------------------------------------------------------


@app.command()
def simulate(
    config: Config = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 1,
    items: Annotated[int | None, typer.Option(min=1, help="Series in the shop.")] = None,
    scenario: Annotated[str, typer.Option(help="calm, flash_sale or drift.")] = "drift",
    speed: Annotated[float, typer.Option(min=0.001, help="Simulated seconds per second.")] = 900.0,
    seconds: Seconds = None,
    history_days: Annotated[int, typer.Option(min=0, help="Days sent at once before live begins.")] = 28,
    drift_after_ms: Annotated[int | None, typer.Option(min=0, help="Simulated time until the planted drift.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Write progress and plan to this JSON file.")] = None,
) -> None:
    """Send a simulated shop's events to the event topics."""
    from stream.source import simulate as run

    run(
        _settings(config),
        seed=seed,
        items=items,
        scenario=scenario,
        speed=speed,
        seconds=seconds,
        history_days=history_days,
        drift_after_ms=drift_after_ms,
        plan=plan,
    )


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A data file (or folder, for olist).")],
    config: Config = None,
    preset: Preset = None,
    map: Map = None,
    speed: Annotated[float, typer.Option(min=0.001, help="Times as fast as it happened.")] = 3_600.0,
    seconds: Seconds = None,
    history_days: Annotated[int, typer.Option(min=0, help="Days sent at once before live begins.")] = 0,
    plan: Annotated[Path | None, typer.Option(help="Write progress and plan to this JSON file.")] = None,
) -> None:
    """Send a real file's events to the event topics."""
    from stream.source import replay as run

    run(
        _settings(config),
        file,
        preset=preset,
        columns=_columns(map),
        speed=speed,
        seconds=seconds,
        history_days=history_days,
        plan=plan,
    )


# Look -------------------------------------------------------------------------------------------------------


@windows.command("export")
def windows_export(
    resolution_ms: Annotated[int, typer.Option(min=1, help="Width of the buckets.")],
    config: Config = None,
    from_: Annotated[str | None, typer.Option("--from", help="Inclusive; ms or RFC 3339.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Exclusive; ms or RFC 3339.")] = None,
    item: Annotated[str | None, typer.Option(help="Only this item_id.")] = None,
    format: Annotated[str, typer.Option(help="jsonl, csv or parquet.")] = "jsonl",
    include_open: Annotated[bool, typer.Option(help="Also buckets that may still change.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; default standard output.")] = None,
) -> None:
    """Write the closed windows, one row an item and bucket."""
    from stream.export import export

    export(
        _settings(config),
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
    generation: Annotated[int, typer.Argument(min=0, help="A generation that is not current.")], config: Config = None
) -> None:
    """Free the memory of an old generation of windows."""
    from stream.backfill import drop_generation

    typer.echo(f"{drop_generation(_settings(config), generation)} keys deleted")


@app.command()
def verify(config: Config = None, json: Json = False, summary: Summary = None) -> None:
    """Recount the log independently and compare with the windows; exit status 1 when anything differs."""
    from stream.verify import verify as run

    report = run(_settings(config))
    _put(report.as_dict(), json, report.as_text(), summary)
    raise typer.Exit(0 if report.agrees else 1)


@forecasts.command("tail")
def forecasts_tail(
    config: Config = None,
    item: Annotated[str | None, typer.Option(help="Only this item_id.")] = None,
    max: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    json: Json = False,
) -> None:
    """Print forecasts as they come."""
    from online.tail import tail

    tail(_settings(config), item_id=item, most=max, as_json=json)


@app.command()
def doctor(config: Config = None, json: Json = False) -> None:
    """Check broker, topics, Redis, weights and device; exit status 1 when something must be mended."""
    from online.doctor import examine

    report = examine(_settings(config))
    _put(report.as_dict(), json, report.as_text())
    raise typer.Exit(0 if report.healthy else 1)


@dlq.command("list")
def dlq_list(
    config: Config = None,
    topic: SourceTopic = None,
    error: ErrorName = None,
    from_: LetterFrom = None,
    to: LetterTo = None,
    late: Late = False,
    max: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """Show dead letters: where each came from and what is wrong with it."""
    from stream.letters import list_letters

    letters = list_letters(_settings(config), _wanted(topic, error, from_, to, late), most=max)
    _put([letter.as_dict() for letter in letters], json, "\n".join(letter.as_text() for letter in letters))


@dlq.command("redrive")
def dlq_redrive(
    config: Config = None,
    topic: SourceTopic = None,
    error: ErrorName = None,
    from_: LetterFrom = None,
    to: LetterTo = None,
    late: Late = False,
    max: Annotated[int | None, typer.Option(min=1, help="At most so many; default: all.")] = None,
    from_start: Annotated[bool, typer.Option(help="Also those sent before; windows count each once.")] = False,
) -> None:
    """Send dead letters to the partitions they came from again; windows count each at most once."""
    from stream.letters import redrive

    done = redrive(_settings(config), _wanted(topic, error, from_, to, late), most=max, from_start=from_start)
    typer.echo(f"{done} sent again")


@dlq.command("show")
def dlq_show(
    place: Annotated[str, typer.Argument(help="topic-partition-offset, as `list` shows it.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Show one letter whole: what is wrong with it, its headers, its value."""
    from stream.letters import show_letter

    letter = show_letter(_settings(config), place)
    _put(letter.as_dict(), json, letter.as_page())


def _wanted(topic: str | None, error: str | None, from_: str | None, to: str | None, late: bool) -> Wanted:
    from stream.export import parse_time_ms
    from stream.letters import Wanted

    return Wanted(topic, late, error, parse_time_ms(from_, "--from"), parse_time_ms(to, "--to"))


@config.command("show")
def config_show(config: Config = None, json: Json = False) -> None:
    """Every setting, its value, and where the value comes from."""
    from stream.config import load, shown

    loaded = load(config)
    rows = shown(loaded.settings, loaded.sources)
    width = max(len(name) for name, _, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value}  ({source})" for name, value, source in rows)
    _put([{"name": n, "value": v, "source": s} for n, v, s in rows], json, text)


app.add_typer(commands.data, name="data")
app.command()(commands.backtest)
app.command()(explain)
app.command()(train_command.train)
app.command()(train_command.pretrain)


# Weights ----------------------------------------------------------------------------------------------------


@model.command("list")
def model_list(config: Config = None, json: Json = False) -> None:
    """All versions and the aliases that point at them."""
    from online.models import versions

    rows = versions(_settings(config))
    _put(rows, json, "\n".join(f"{row['version']}  {', '.join(row['aliases'])}".rstrip() for row in rows))


@model.command("show")
def model_show(version: Annotated[str, typer.Argument(help="A version or an alias.")], config: Config = None) -> None:
    """The manifest of one version, after checking its files."""
    from online.models import show

    _put(show(_settings(config), version), True, "")


@model.command("promote")
def model_promote(version: Annotated[str, typer.Argument(help="A version, or base.")], config: Config = None) -> None:
    """Make a version the champion, past the gate, and tell the workers."""
    from online.models import promote

    typer.echo(promote(_settings(config), version))


@model.command("rollback")
def model_rollback(config: Config = None) -> None:
    """Make the champion's parent the champion again and tell the workers."""
    from online.models import rollback

    typer.echo(rollback(_settings(config)))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run a command; a known error is one clear line and exit status 1."""
    from stream.errors import FreshetError

    try:
        app()
    except FreshetError as error:
        typer.echo(f"freshet: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
