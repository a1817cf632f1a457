"""The composition root of `freshet demo`: start everything, watch it, count it, stop it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from freshet.online.demo.display import Display, Status, open_display
from freshet.online.demo.options import RETRAIN_TOKEN, DemoOptions, claim_environ
from freshet.online.demo.processes import SOURCE, open_servers, services
from freshet.online.demo.story import of_resolutions
from freshet.online.demo.supervise import Supervisor
from freshet.online.demo.watch import DemoWatcher, read_plan
from freshet.stream.config import Settings, load
from freshet.stream.errors import FreshetError
from freshet.stream.kafka import ensure_topics
from freshet.stream.process import BackOff, Stop, on_signals, wait_until

TICK_S = 0.5
LOOK_S = 0.2
CATCH_UP_S = 60.0
SETTLE_S = 3.0
BACK_FILL_TIMEOUT_S = 600.0
RECENT_BUCKETS = 12


def run_demo(options: DemoOptions, config_file: Path | None) -> int:
    """Run until `--seconds` are over or Ctrl-C; returns the exit status.

    Exit status 1 when the books don't balance or no forecast came. Leaves nothing behind but
    `--data-dir`.
    """
    claim_environ(os.environ)
    with ExitStack() as stack:
        # What is opened last is closed first: the children, then what watches them, then broker
        # and Redis, and the display stays to say so.
        stop = stack.enter_context(_stop_on_first_signal())
        folder = _open_folder(options, stack)
        display = stack.enter_context(open_display(Console(file=sys.stdout)))
        display.show(Status("starting broker and Redis"))
        base = load(config_file).settings
        settings, demo_config = open_servers(options, folder, base, stack)
        ensure_topics(settings, live=False)
        watcher = DemoWatcher(settings, options.simulated_per_second, display.say)
        stack.enter_context(closing(watcher))
        supervisor = Supervisor(folder / "logs", say=display.say)
        stack.callback(supervisor.stop)
        plan_file = folder / "plan.json"
        for service in services(options, demo_config, plan_file):
            supervisor.start(service)
        page = "" if options.headless else f"http://127.0.0.1:{settings.dashboard.port}/"
        _introduce(display, settings, demo_config, page)
        demo = Demo(options, plan_file, page, stop, display, watcher, supervisor)
        demo.back_fill()
        demo.live()
        return demo.finish()


@contextmanager
def _stop_on_first_signal() -> Iterator[Stop]:
    """Set by the first Ctrl-C or SIGTERM; a second one ends the demo wherever it is."""
    stop = Stop()

    def asks_once(number: signal.Signals) -> Callable[[], None]:
        def ask() -> None:
            stop.set()
            signal.signal(number, signal.default_int_handler)

        return ask

    numbers = (signal.SIGINT, signal.SIGTERM)
    with on_signals({number: asks_once(number) for number in numbers}, within_s=None):
        yield stop


def _open_folder(options: DemoOptions, stack: ExitStack) -> Path:
    """Where everything of this demo lies: the one asked for, else one that goes with the demo."""
    folder = options.data_dir
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="freshet-demo-")
        folder = Path(stack.enter_context(temporary))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _introduce(display: Display, settings: Settings, config_file: Path, page: str) -> None:
    redis_url = settings.redis.url.get_secret_value()
    display.say(f"broker {settings.kafka.bootstrap_servers}, Redis {redis_url}")
    display.say(f"look inside with: freshet COMMAND --config {config_file}")
    if page:
        display.say(f"page {page}")
        display.say(f"the token with which the page asks for training: {RETRAIN_TOKEN}")


@dataclass(slots=True)
class Demo:
    """One demo that runs; its three phases are called in the order they are written.

    Attributes:
        plan_file: Where the source says what it planned and how far it is.
        page: The dashboard's address; empty without one.
    """

    options: DemoOptions
    plan_file: Path
    page: str
    stop: Stop
    display: Display
    watcher: DemoWatcher
    supervisor: Supervisor
    seen: tuple[float, int] = (0.0, 0)
    """When the books were last read (monotonic seconds), and how many records they held."""

    def back_fill(self) -> None:
        """Until the source says that history is sent and ingest has folded it.

        Raises:
            FreshetError: It takes far too long.
        """
        started_s = time.monotonic()
        while not self.stop.is_set():
            plan = read_plan(self.plan_file)
            elapsed_s = time.monotonic() - started_s
            if plan.get("backfill_done"):
                self.display.say(f"history is folded after {elapsed_s:.0f} s; live begins")
                return
            if elapsed_s > BACK_FILL_TIMEOUT_S:
                raise FreshetError(f"the back-fill did not end in {BACK_FILL_TIMEOUT_S:.0f} s")
            self._tick("sending and folding history", plan)

    def live(self) -> None:
        """Until `--seconds` have passed, the source has no more, or Ctrl-C."""
        seconds = self.options.seconds
        end_s = float("inf") if seconds is None else time.monotonic() + seconds
        phase = f"live at {self.options.simulated_per_second:,.0f} x"
        while not self.stop.is_set() and time.monotonic() < end_s:
            if self.supervisor.finished(SOURCE):
                self.display.say("the source has no more events")
                return
            self._tick(phase, read_plan(self.plan_file))

    def finish(self) -> int:
        """Stop the source, let the rest catch up, write the summary; returns the exit status."""
        self.supervisor.stop(SOURCE)
        self.display.show(Status("catching up, then counting"))
        wait_until(self._caught_up, CATCH_UP_S, BackOff(LOOK_S, LOOK_S))
        # The newest windows are folded; their forecasts and scores take a moment more.
        time.sleep(SETTLE_S)
        summary = self.watcher.summary()
        if self.options.summary:
            text = orjson.dumps(summary, option=orjson.OPT_INDENT_2)
            self.options.summary.write_bytes(text + b"\n")
        return self._verdict(summary)

    def _verdict(self, summary: dict[str, Any]) -> int:
        conserved, published = summary["conserved"], summary["forecasts"]["published"]
        self.display.say(f"events: {orjson.dumps(summary['events']).decode()}")
        for sentence in of_resolutions(summary):
            self.display.say(sentence)
        if not conserved:
            self.display.say("FAILED: the books do not balance")
        if not published:
            self.display.say("FAILED: no forecast was published")
        return 0 if conserved and published else 1

    def _caught_up(self) -> bool:
        self.supervisor.tend()
        self.watcher.look()
        return self.watcher.books()["read"] == self.watcher.produced()

    def _tick(self, phase: str, plan: dict[str, Any]) -> None:
        """Look after the children, show where things stand, and wait for the next look."""
        self.supervisor.tend()
        self.watcher.look()
        self.display.show(self._status(phase, plan))
        self.stop.wait(TICK_S)

    def _status(self, phase: str, plan: dict[str, Any]) -> Status:
        tally = self.watcher.tally
        swaps = tally.of_kind("swapped")
        read, events_per_s = self._read_rate()
        return Status(
            phase,
            # Before the source has a plan the clock shows the wall's time, which means nothing.
            self.watcher.clock.now_ms() if plan else None,
            events=read,
            events_per_s=events_per_s,
            items=len(tally.forecast_items),
            forecasts=tally.published,
            wql=tally.wql(RECENT_BUCKETS),
            weights_version=swaps[-1].version if swaps else ", ".join(tally.versions),
            page=self.page,
        )

    def _read_rate(self) -> tuple[int, float]:
        """Records that ingest has read, and how many a second since the last time."""
        before_s, before = self.seen
        now_s, read = time.monotonic(), self.watcher.books()["read"]
        self.seen = (now_s, read)
        return read, (read - before) / max(now_s - before_s, 1e-3)
