"""The composition root of `freshet demo`: start everything, watch it, count it, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import orjson
from rich.console import Console

from freshet.online.demo.display import Display, Status, open_display
from freshet.online.demo.options import (
    HISTORY_DAYS,
    REPLAY_HISTORY_DAYS,
    DemoOptions,
    claim_environ,
    config_text,
    dashboard_port,
)
from freshet.online.demo.supervise import Service, Supervisor
from freshet.online.demo.watch import Watcher, read_plan
from freshet.stream.config import Settings, load
from freshet.stream.errors import ConfigError, FreshetError
from freshet.stream.kafka import ensure_topics
from freshet.stream.kafka.servers import EmbeddedBroker, EmbeddedRedis, RealKafka
from freshet.stream.process import BackOff, wait_until

TICK_S = 0.5
LOOK_S = 0.2
CATCH_UP_S = 60.0
SETTLE_S = 3.0
BACK_FILL_TIMEOUT_S = 600.0
RECENT_BUCKETS = 12


class Stop:
    """Set by the first Ctrl-C or SIGTERM; the second one is left to Python."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.default_int_handler)


def run_demo(options: DemoOptions, config_file: Path | None) -> int:
    """Run until `--seconds` are over or Ctrl-C; returns the exit status.

    Exit status 1 when the books don't balance or no forecast came. Leaves nothing behind but
    `--data-dir`.
    """
    stop = Stop()
    claim_environ(os.environ)
    with ExitStack() as stack:
        folder = options.data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="freshet-demo-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        display = stack.enter_context(open_display(Console(file=sys.stdout)))
        demo = Demo(options, folder.resolve(), display, stop)
        stack.callback(demo.close)
        demo.start(config_file)
        demo.back_fill()
        demo.live()
        return demo.finish()


class Demo:
    """One demo from start to end; the phases are called in the order they are written."""

    def __init__(self, options: DemoOptions, folder: Path, display: Display, stop: Stop) -> None:
        self._options, self._folder, self._display, self._stop = options, folder, display, stop
        self._plan_file = folder / "plan.json"
        self._services = ExitStack()
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)
        self._supervisor = Supervisor(logs, say=display.say)
        self._watcher: Watcher | None = None
        self._page = ""
        self._seen = (time.monotonic(), 0)

    def start(self, config_file: Path | None) -> None:
        """Broker, Redis, topics, then every process."""
        options, display = self._options, self._display
        display.show(Status("starting broker and Redis"))
        settings = self._open_services(load(config_file).settings)
        ensure_topics(settings, live=False)
        watcher = Watcher(settings, options.simulated_per_second, display.say)
        self._watcher = watcher
        for name in ("ingest", "worker", "control", "learn"):
            self._start_child(name, [name])
        if not options.headless:
            self._page = f"http://127.0.0.1:{settings.dashboard.port}/"
            self._start_child("dashboard", ["dashboard"])
        self._start_child("source", self._source_command(), once=True)
        display.say(
            f"broker {settings.kafka.bootstrap_servers}, Redis "
            f"{settings.redis.url.get_secret_value()}"
        )
        display.say(f"look inside with: freshet COMMAND --config {self._config_file}")
        if self._page:
            display.say(f"page {self._page}")

    @property
    def _config_file(self) -> Path:
        return self._folder / "freshet.toml"

    def _open_services(self, base: Settings) -> Settings:
        port = dashboard_port(self._options.port, base)
        redis = EmbeddedRedis(self._folder / "redis")
        self._services.callback(redis.stop)
        broker = (
            RealKafka(_kafka_home(), self._folder / "kafka")
            if self._options.broker == "kafka"
            else EmbeddedBroker()
        )
        self._services.callback(broker.stop)
        self._config_file.write_text(
            config_text(broker.bootstrap_servers, redis.url, port, self._folder), "utf-8"
        )
        return load(self._config_file).settings

    def _start_child(self, name: str, command: list[str], *, once: bool = False) -> None:
        argv = [sys.executable, "-m", "freshet", *command, "--config", str(self._config_file)]
        self._supervisor.start(Service(name, argv, once=once))

    def _source_command(self) -> list[str]:
        options = self._options
        common = ["--speed", str(options.simulated_per_second), "--plan", str(self._plan_file)]
        common += ["--history-days", str(REPLAY_HISTORY_DAYS if options.replay else HISTORY_DAYS)]
        if options.replay:
            columns = [
                part
                for field, column in options.columns.items()
                for part in ("--map", f"{field}={column}")
            ]
            preset = ["--preset", options.preset] if options.preset else []
            return ["replay", str(options.replay), *preset, *columns, *common]
        items = ["--items", str(options.items)] if options.items else []
        drift = ["--drift-after-ms", str(options.drift_after_ms)]
        return [
            "simulate",
            "--seed",
            str(options.seed),
            "--scenario",
            options.scenario,
            *items,
            *drift,
            *common,
        ]

    def back_fill(self) -> None:
        """Until the source says that history is sent and ingest has folded it.

        Raises:
            FreshetError: It takes far too long.
        """
        started = time.monotonic()
        while not self._stop.asked:
            plan = read_plan(self._plan_file)
            if plan.get("backfill_done"):
                self._display.say(
                    f"history is folded after {time.monotonic() - started:.0f} s; live begins"
                )
                return
            if time.monotonic() - started > BACK_FILL_TIMEOUT_S:
                raise FreshetError(f"the back-fill did not end in {BACK_FILL_TIMEOUT_S:.0f} s")
            self._tick("sending and folding history", plan)

    def live(self) -> None:
        """Until `--seconds` have passed, the source has no more, or Ctrl-C."""
        started = time.monotonic()
        seconds = self._options.seconds
        while not self._stop.asked and (seconds is None or time.monotonic() - started < seconds):
            if any(one.name == "source" and one.finished for one in self._supervisor.services):
                self._display.say("the source has no more events")
                return
            self._tick(
                f"live at {self._options.simulated_per_second:,.0f} x", read_plan(self._plan_file)
            )

    def finish(self) -> int:
        """Stop the source, let the rest catch up, count, write the summary; returns the exit
        status.
        """
        watcher = self._watcher
        assert watcher is not None
        self._supervisor.stop("source")
        self._display.show(Status("catching up, then counting"))
        wait_until(self._caught_up, CATCH_UP_S, BackOff(LOOK_S, LOOK_S))
        time.sleep(SETTLE_S)
        summary = watcher.summary()
        if self._options.summary:
            self._options.summary.write_bytes(
                orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n"
            )
        return self._verdict(summary)

    def _verdict(self, summary: dict[str, object]) -> int:
        conserved, forecasts = summary["conserved"], summary["forecasts"]
        assert isinstance(forecasts, dict)
        self._display.say(f"events: {orjson.dumps(summary['events']).decode()}")
        self._display.say(f"scores: {orjson.dumps(summary['scores']).decode()}")
        if not conserved:
            self._display.say("FAILED: the books do not balance")
        if not forecasts["published"]:
            self._display.say("FAILED: no forecast was published")
        return 0 if conserved and forecasts["published"] else 1

    def _caught_up(self) -> bool:
        assert self._watcher is not None
        self._supervisor.tend()
        self._watcher.look()
        return self._watcher.books()["read"] == self._watcher.produced()

    def _tick(self, phase: str, plan: dict[str, object]) -> None:
        watcher = self._watcher
        assert watcher is not None
        self._supervisor.tend()
        watcher.look()
        self._display.show(self._status(watcher, phase, plan))
        time.sleep(TICK_S)

    def _status(self, watcher: Watcher, phase: str, plan: dict[str, object]) -> Status:
        tally, (before_s, before) = watcher.tally, self._seen
        read, now_s = watcher.books()["read"], time.monotonic()
        self._seen = (now_s, read)
        served = tally.of_kind("swapped")
        return Status(
            phase,
            watcher.clock.now_ms() if plan else None,
            events=read,
            events_per_s=(read - before) / max(now_s - before_s, 1e-3),
            items=len(tally.forecast_items),
            forecasts=sum(tally.versions.values()),
            wql=tally.wql(RECENT_BUCKETS),
            weights_version=served[-1].version if served else ", ".join(tally.versions),
            page=self._page,
        )

    def close(self) -> None:
        """Stop every child, then Redis and the broker."""
        self._supervisor.stop()
        if self._watcher:
            self._watcher.close()
        self._services.close()
        shutil.rmtree(self._folder / "kafka", ignore_errors=True)


def _kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME", "")
    if not home:
        hint = "set it to the folder of an unpacked Apache Kafka 4 release, or leave --broker out"
        raise ConfigError("--broker kafka needs KAFKA_HOME, which is not set", hint=hint)
    return Path(home).resolve()
