"""The dashboard process: one event loop that follows the topics, looks at Redis in a thread, and
serves the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import orjson
import uvicorn
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from freshet.dashboard import api, web
from freshet.dashboard.actuals import Actuals, Rate, RedisSource, SnapshotSource
from freshet.dashboard.feed import Feed
from freshet.dashboard.hub import Hub
from freshet.dashboard.state import TopicState
from freshet.stream.config import DashboardSettings, Settings
from freshet.stream.errors import ConfigError, FreshetError
from freshet.stream.process import BackOff
from freshet.stream.telemetry import get_logger, new_registry

LOOK_S = 1.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
BACKLOG = 128
DRAIN_S = 1

log = get_logger(__name__)


class Page:
    """What the routes look at: the topics, the newest actuals, the clock, and what is wrong at the
    moment.
    """

    def __init__(self, settings: Settings) -> None:
        self.topics = TopicState(settings.worker, settings.events.series_by)
        self.hub = Hub(settings.dashboard.max_subscribers)
        self.feed = Feed(settings.kafka, self.topics)
        self.max_points = settings.dashboard.max_points
        self.actuals = Actuals(settings.worker.resolution_ms)
        self.redis_problem: str | None = "not connected yet"
        self.registry = new_registry()
        self.registry.register(_Figures(self))
        self._clock: tuple[float, int, float] = (time.monotonic(), time.time_ns() // 1_000_000, 1.0)
        self._events, self._forecasts = Rate(), Rate()
        self._events_per_s = self._forecasts_per_s = 0.0

    def moment(self) -> api.Moment:
        """Time, rates and what is wrong."""
        read_s, clock_ms, speed = self._clock
        now_ms = clock_ms + round((time.monotonic() - read_s) * 1_000 * speed)
        return api.Moment(
            now_ms,
            speed,
            self._events_per_s,
            self._forecasts_per_s,
            self.feed.problem,
            self.redis_problem,
        )

    def summary(self) -> dict[str, Any]:
        """The overview."""
        return api.overview(self.topics, self.actuals, self.moment())

    def revision(self) -> object:
        """Changes when a subscriber should hear of it; the clock alone counts once a second."""
        return self.topics.revision, self.feed.problem, self.redis_problem, int(time.monotonic())

    def not_ready(self) -> str | None:
        """Why the page is not ready; None when it is."""
        problems = {"kafka": self.feed.problem, "redis": self.redis_problem}
        return (
            "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem) or None
        )

    def look(self, source: SnapshotSource) -> tuple[Actuals | None, tuple[int, float]]:
        """One blocking look at Redis, for a thread."""
        return source.read(), source.clock()

    def seen(self, actuals: Actuals | None, clock: tuple[int, float], at_s: float) -> None:
        """Take over what a look at Redis found."""
        self.redis_problem = None
        self._clock = (at_s, *clock)
        if actuals is not None:
            self.actuals = actuals
            self.topics.touch("items", "flash")
        self._events_per_s = self._events.note(at_s, self.actuals.books.read)
        self._forecasts_per_s = self._forecasts.note(at_s, self.topics.book.seen)


class _Figures:
    """The page's own figures for /metrics; never labelled by item."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        page = self._page
        yield _gauge("freshet_dashboard_subscribers", "Open live streams.", page.hub.subscribers)
        yield _gauge(
            "freshet_dashboard_items", "Items with a forecast.", len(page.topics.book.items)
        )
        age_ms = (
            page.moment().now_ms - page.topics.book.newest_cutoff_ms
            if page.topics.book.items
            else float("nan")
        )
        yield _gauge(
            "freshet_dashboard_forecast_age_ms",
            "Clock time since the newest forecast's cutoff.",
            age_ms,
        )
        refused = CounterMetricFamily(
            "freshet_dashboard_subscribers_refused", "Streams refused for want of room."
        )
        refused.add_metric([], page.hub.refused)
        yield refused
        records = CounterMetricFamily(
            "freshet_dashboard_records", "Records read.", labels=["kind", "usable"]
        )
        for kind, count in page.topics.applied.items():
            records.add_metric([kind, "yes"], count)
        for kind, count in page.topics.malformed.items():
            records.add_metric([kind, "no"], count)
        yield records


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


class _Server(uvicorn.Server):
    """Leaves signals to `run`, which ends the live streams first and then exits with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the page until SIGTERM or SIGINT. Blocks.

    A broker or a Redis that is away is asked again and again; the page and /readyz say so
    meanwhile.

    Args:
        settings: All settings; `dashboard.port` 0 picks a free port.
        on_ready: Called with the page's address once it answers.

    Raises:
        ConfigError: The port is taken or the host is not ours, or TLS settings cannot be used.
    """
    listener = listen(settings.dashboard)
    with contextlib.closing(listener):
        asyncio.run(serve(settings, listener, on_ready=on_ready))


def listen(settings: DashboardSettings) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The port is taken or the host is not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "the port is taken" if taken else str(error)
        raise ConfigError(
            f"the dashboard cannot listen on {settings.host}:{settings.port}: {why}",
            hint="choose another dashboard.port (0 picks a free one) or dashboard.host",
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """The page's address as a person would open it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"


async def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    on_ready: Callable[[str], None] | None = None,
    source: SnapshotSource | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Everything inside the event loop, until `stop` is set or a signal comes."""
    page = Page(settings)
    config = uvicorn.Config(
        web.build(page),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config)
    stop = stop or asyncio.Event()
    _stop_on_signals(stop)
    work: list[Coroutine[Any, Any, None]] = [
        page.feed.run(),
        _look(page, settings, source),
        page.hub.run(page.revision, lambda: orjson.dumps(page.summary())),
        _announce(server, listener, on_ready),
    ]
    tasks = [asyncio.create_task(part) for part in work]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await _until_stopped(stopping, serving, tasks)
    finally:
        page.hub.close()
        server.should_exit = True
        await serving
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait((*tasks, stopping), timeout=DRAIN_S)
    log.info("stopped")


async def _until_stopped(
    stopping: asyncio.Task[Any], serving: asyncio.Task[None], tasks: list[asyncio.Task[None]]
) -> None:
    """Return at the stop signal; a task that failed raises here."""
    waiting: set[asyncio.Task[Any]] = {stopping, serving, *tasks}
    while not stopping.done() and not serving.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _announce(
    server: uvicorn.Server, listener: socket.socket, on_ready: Callable[[str], None] | None
) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    log.info("serving", address=address(listener))
    if on_ready is not None:
        on_ready(address(listener))


async def _look(page: Page, settings: Settings, source: SnapshotSource | None) -> None:
    """Look at Redis each `LOOK_S`; when it is away, ask again more and more slowly and say so."""
    back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
    while True:
        try:
            if source is None:
                source = await asyncio.to_thread(RedisSource, settings)
            found = await asyncio.to_thread(page.look, source)
            page.seen(*found, time.monotonic())
            back_off.reset()
            await asyncio.sleep(LOOK_S)
        except FreshetError as error:
            page.redis_problem = str(error)
            log.warning("redis_away", error=str(error), retry_s=back_off.next_s)
            await asyncio.sleep(back_off.grow())


def _stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT stop the process, when this loop runs in the main thread (a test's may
    not).
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
