"""The dashboard process: one event loop follows the topics, looks at Redis and serves the page."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import orjson
import uvicorn

from freshet.dashboard import web
from freshet.dashboard.actuals import RedisSource, SnapshotSource
from freshet.dashboard.connections import SEND_BUFFER_BYTES, Connections
from freshet.dashboard.page import Page
from freshet.stream.config import DashboardSettings, Settings
from freshet.stream.errors import ConfigError, FreshetError, OtherFormatError
from freshet.stream.health import Watch
from freshet.stream.kafka import broker_question
from freshet.stream.process import BackOff, on_signals
from freshet.stream.store.connection import redis_question
from freshet.stream.telemetry import get_logger

LOOK_S = 1.0
SOONEST_LOOK_S = 0.2
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
BACKLOG = 128
DRAIN_S = 1

log = get_logger(__name__)


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
    stop, runner = asyncio.Event(), asyncio.Runner()
    wake = _waking(runner.get_loop(), stop)
    # The runner ends inside: what its threads wait for is bounded by the same seconds.
    with (
        contextlib.closing(listen(settings.dashboard)) as listener,
        on_signals({signal.SIGTERM: wake, signal.SIGINT: wake}),
        runner,
    ):
        runner.run(serve(settings, listener, on_ready=on_ready, stop=stop))


def listen(settings: DashboardSettings) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The port is taken or the host is not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
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
    """Everything inside the event loop, until `stop` is set."""
    page = Page(settings)
    server = _server(page)
    page.connections = Connections(lambda: server.server_state.connections)
    stop = stop or asyncio.Event()
    questions = {"kafka": broker_question(settings), "store": redis_question(settings.redis)}
    work: list[Coroutine[Any, Any, None]] = [
        _follow(page),
        _look(page, settings, source),
        page.hub.run(page.revision, lambda: orjson.dumps(page.summary())),
        page.connections.run(),
        _announce(server, listener, on_ready),
    ]
    tasks = [asyncio.create_task(part) for part in work]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        with Watch(page.servers, questions):
            await _until_stopped(stopping, serving, tasks)
    finally:
        # Live streams never end by themselves, so the hub ends them before uvicorn drains.
        page.hub.close()
        server.should_exit = True
        await serving
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait((*tasks, stopping), timeout=DRAIN_S)
    log.info("stopped")


def _server(page: Page) -> _Server:
    config = uvicorn.Config(
        web.build(page),
        # The same code whatever else is installed.
        http="h11",
        ws="none",
        # Who asks says who it is: a header would let one address pass for many.
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_S,
    )
    return _Server(config)


def _waking(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Callable[[], None]:
    """Sets the event from a signal handler, which runs beside the loop: the loop may be asleep."""

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # The loop has ended already.
            loop.call_soon_threadsafe(stop.set)

    return wake


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


async def _follow(page: Page) -> None:
    """Read the topics, once the clock says which records are of a time that has not come."""
    page.feed.problem = "topics are read once the shop's clock is known, which is in Redis"
    await page.clock_known.wait()
    page.feed.problem = "not connected yet"
    await page.feed.run()


async def _look(page: Page, settings: Settings, source: SnapshotSource | None) -> None:
    """Look at Redis each `LOOK_S`, sooner when somebody waits for an item that was not read yet.

    When it is away, ask again more and more slowly and say so.
    """
    back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
    while True:
        page.turned("look")
        try:
            if source is None:
                source = await asyncio.to_thread(RedisSource, settings)
            wanted = page.interest.wanted(time.monotonic())
            actuals, clock, few = await asyncio.to_thread(page.look, source, wanted)
            page.seen(actuals, clock, time.monotonic())
            page.seen_few(few, wanted)
            back_off.reset()
            await asyncio.sleep(SOONEST_LOOK_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(page.interest.news.wait(), LOOK_S - SOONEST_LOOK_S)
        except ConfigError:
            raise
        except Exception as error:
            before, page.redis_problem = page.redis_problem, str(error) or type(error).__name__
            expected = isinstance(error, FreshetError)
            if not isinstance(error, OtherFormatError) or page.redis_problem != before:
                log.warning(
                    "redis_away",
                    error=page.redis_problem,
                    retry_s=back_off.next_s,
                    exc_info=not expected,
                )
            await asyncio.sleep(back_off.grow())
