"""Connections that ask for nothing, or take nothing, are dropped; others are left alone."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from freshet.dashboard import app, connections
from freshet.dashboard import hub as hub_module
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.connections import Connections
from freshet.dashboard.page import Page
from freshet.stream.config import DashboardSettings, Settings
from freshet.stream.units import HOUR_MS


class Transport:
    def __init__(self) -> None:
        self.unsent_bytes, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def abort(self) -> None:
        self.aborted = True


def request(*, answered: bool) -> Any:
    return SimpleNamespace(response_complete=answered)


class Open:
    """One open connection, and sweeps of it at given seconds."""

    def __init__(self) -> None:
        self.transport, self.cycle = Transport(), None
        self.now_s = 0.0
        self.swept = Connections(lambda: [self], lambda: self.now_s)

    def dropped_at(self, now_s: float) -> bool:
        self.now_s = now_s
        self.swept.sweep()
        return self.transport.aborted


def test_who_asks_for_nothing_is_dropped_after_10_s() -> None:
    one = Open()
    assert [one.dropped_at(at_s) for at_s in (0.0, 5.0, 9.9, 10.0)] == [False, False, False, True]
    assert one.swept.dropped == 1


def test_who_asks_again_and_again_is_not_dropped_between() -> None:
    one = Open()
    for second in range(60):
        one.cycle = request(answered=True)
        assert not one.dropped_at(float(second))
    assert not one.dropped_at(68.9) and one.dropped_at(69.0)


def test_an_answer_that_takes_long_is_waited_for() -> None:
    one = Open()
    one.cycle = request(answered=False)
    assert not any(one.dropped_at(float(second)) for second in range(0, 600, 10))


def test_who_does_not_take_what_it_asked_for_is_dropped_after_30_s() -> None:
    one = Open()
    one.cycle, one.transport.unsent_bytes = request(answered=False), 70_000
    assert not one.dropped_at(0.0) and not one.dropped_at(29.9)
    one.transport.unsent_bytes = 0
    assert not one.dropped_at(31.0)
    one.transport.unsent_bytes = 1
    assert not one.dropped_at(32.0) and not one.dropped_at(61.9) and one.dropped_at(62.0)


# On sockets ---------------------------------------------------------------------------------------


class NoRedis:
    def read(self) -> Actuals | None:
        return Actuals(HOUR_MS)

    def clock(self) -> tuple[int, float]:
        return 1_000, 1.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENT_S", 0.2)
    monkeypatch.setattr(connections, "UNREAD_S", 0.3)
    monkeypatch.setattr(connections, "SWEEP_S", 0.02)


def on_a_page(scenario: Callable[[int], Awaitable[None]], **settings: Any) -> None:
    """A page that serves while the scenario runs, which is given its port."""

    async def both() -> None:
        made = Settings(dashboard=DashboardSettings(port=0, **settings))
        with app.listen(made.dashboard) as listener:
            stop = asyncio.Event()
            serving = asyncio.create_task(app.serve(made, listener, source=NoRedis(), stop=stop))
            try:
                await scenario(listener.getsockname()[1])
            finally:
                stop.set()
                await serving

    asyncio.run(asyncio.wait_for(both(), 60))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Waits for the other side to end the connection."""
    try:
        await asyncio.wait_for(reader.read(), 60)
    except ConnectionResetError:
        return True
    return reader.at_eof()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx",
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_connection_without_a_whole_request_ends(said: bytes) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await connected(port)
        writer.write(said)
        assert await ended(reader)
        writer.close()

    on_a_page(scenario)


@pytest.mark.usefixtures("quick")
def test_single_bytes_now_and_then_do_not_hold_a_connection() -> None:
    async def scenario(port: int) -> None:
        reader, writer = await connected(port)
        waiting = asyncio.create_task(ended(reader))
        for byte in itertools.cycle(b"GET /xxxxxxxxxxxxxxxxxxxxxxxxxxx"):
            if waiting.done() or writer.is_closing():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([waiting], timeout=0.05)
        assert await waiting
        writer.close()

    on_a_page(scenario)


def never_reading(port: int, path: str) -> socket.socket:
    """A client that asks and takes no byte of the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


@pytest.mark.usefixtures("quick")
def test_a_stream_or_a_file_that_is_never_read_is_dropped_and_its_seat_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revisions, pages = itertools.count(), []
    monkeypatch.setattr(hub_module, "MIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(Page, "revision", lambda page: pages.append(page) or next(revisions))
    monkeypatch.setattr(Page, "summary", lambda page: {"pad": "x" * 100_000})

    async def scenario(port: int) -> None:
        while not pages:
            await asyncio.sleep(0.01)
        (page,) = set(pages)
        for path, dropped in (("/api/stream", 1), ("/vendor/plotly.min.js", 2)):
            with never_reading(port, path):
                while page.connections.dropped < dropped:
                    await asyncio.sleep(0.01)
            while page.hub.subscribers:
                await asyncio.sleep(0.01)

    on_a_page(scenario)


@pytest.mark.usefixtures("quick")
def test_a_stream_that_is_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENT_S", "UNREAD_S"):
        monkeypatch.setattr(connections, name, 1.0)

    async def scenario(port: int) -> None:
        reader, writer = await connected(port)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        events = 0
        while events < 4:  # Two seconds at least: one each second, for the clock.
            line = await asyncio.wait_for(reader.readline(), 60)
            assert line, "it was dropped"
            events += line.startswith(b"event: update")
        writer.close()

    on_a_page(scenario)


def test_an_address_cannot_pass_for_many_by_a_header() -> None:
    async def scenario(port: int) -> None:
        statuses, writers = [], []
        for number in range(3):
            reader, writer = await connected(port)
            writers.append(writer)
            forged = f"X-Forwarded-For: 10.0.0.{number}\r\n".encode()
            writer.write(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n" + forged + b"\r\n")
            statuses.append((await reader.readline()).split()[1])
        assert statuses == [b"200", b"200", b"503"]
        for writer in writers:
            writer.close()

    on_a_page(scenario, max_streams_per_address=2)
