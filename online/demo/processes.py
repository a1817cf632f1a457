"""What a demo starts: a broker, a Redis, and freshet's own commands with their arguments."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from freshet.online.demo.options import (
    HISTORY_DAYS,
    REPLAY_HISTORY_DAYS,
    DemoOptions,
    config_text,
    dashboard_port,
    free_port,
)
from freshet.online.demo.supervise import Service
from freshet.stream.config import Settings, load
from freshet.stream.errors import ConfigError
from freshet.stream.kafka.servers import EmbeddedBroker, RealKafka
from freshet.stream.store.server import EmbeddedRedis

SOURCE = "source"


def open_servers(
    options: DemoOptions, folder: Path, base: Settings, stack: ExitStack
) -> tuple[Settings, Path]:
    """Start broker and Redis, which the stack will stop, and write the file that names them.

    Returns:
        The settings of every process of this demo, and the file they came from.
    """
    port = dashboard_port(options.port, base)
    redis = EmbeddedRedis(folder / "redis")
    stack.callback(redis.stop)
    broker: RealKafka | EmbeddedBroker
    if options.broker == "kafka":
        # The data of a broker that is gone are of no use to anybody.
        stack.callback(shutil.rmtree, folder / "kafka", ignore_errors=True)
        broker = RealKafka(_kafka_home(), folder / "kafka")
    else:
        broker = EmbeddedBroker()
    stack.callback(broker.stop)
    config_file = folder / "freshet.toml"
    transactions = options.broker == "kafka"
    text = config_text(
        broker.bootstrap_servers,
        redis.url,
        port,
        folder,
        control_port=free_port(),
        transactions=transactions,
    )
    config_file.write_text(text, "utf-8")
    return load(config_file).settings, config_file


def _kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME", "")
    if not home:
        hint = "set it to the folder of an unpacked Apache Kafka 4 release, or leave --broker out"
        raise ConfigError("--broker kafka needs KAFKA_HOME, which is not set", hint=hint)
    return Path(home).resolve()


def services(options: DemoOptions, config_file: Path, plan_file: Path) -> list[Service]:
    """Every command of a demo in the order of their start; the source last."""
    names = ["ingest", "worker", "control", "learn"]
    if not options.headless:
        names.append("dashboard")
    running = [Service(name, _argv([name], config_file)) for name in names]
    source = _argv(source_command(options, plan_file), config_file)
    return [*running, Service(SOURCE, source, once=True)]


def _argv(command: list[str], config_file: Path) -> list[str]:
    return [sys.executable, "-m", "freshet", *command, "--config", str(config_file)]


def source_command(options: DemoOptions, plan_file: Path) -> list[str]:
    """`simulate` or `replay` with its options, as a person would type it.

    >>> " ".join(source_command(DemoOptions(replay=Path(), preset="olist"), Path("plan")))
    'replay . --preset olist --speed 900.0 --plan plan --history-days 56'
    """
    speed = ["--speed", str(options.simulated_per_second), "--plan", str(plan_file)]
    if options.replay:
        return [*_replay_command(options), *speed, "--history-days", str(REPLAY_HISTORY_DAYS)]
    return [*_simulate_command(options), *speed, "--history-days", str(HISTORY_DAYS)]


def _replay_command(options: DemoOptions) -> list[str]:
    command = ["replay", str(options.replay)]
    if options.preset:
        command += ["--preset", options.preset]
    for field, column in options.columns.items():
        command += ["--map", f"{field}={column}"]
    return command


def _simulate_command(options: DemoOptions) -> list[str]:
    command = ["simulate", "--seed", str(options.seed), "--scenario", options.scenario]
    if options.items:
        command += ["--items", str(options.items)]
    return [*command, "--drift-after-ms", str(options.drift_after_ms)]
