"""Live streams: the newest message once, heartbeats between, a limit on seats, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from freshet.dashboard import hub as hub_module
from freshet.dashboard.hub import EventStream, Hub


async def take(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await asyncio.wait_for(anext(stream), 60) for _ in range(count)]


def test_a_new_subscriber_gets_the_newest_message_only() -> None:
    async def scenario() -> None:
        hub = Hub(5)
        hub.publish(b"1")
        hub.publish(b"2")
        retry, message = await take(hub.stream(), 2)
        assert retry == b"retry: 2000\n\n"
        assert message == f"id: {hub.newest_id}\nevent: update\ndata: 2\n\n".encode()

    asyncio.run(scenario())


def test_a_slow_subscriber_skips_what_it_missed() -> None:
    async def scenario() -> None:
        hub = Hub(5)
        stream = hub.stream()
        hub.publish(b"1")
        await take(stream, 2)
        hub.publish(b"2")
        hub.publish(b"3")
        [message] = await take(stream, 1)
        assert b"data: 3\n" in message

    asyncio.run(scenario())


def test_who_names_the_newest_id_waits_for_the_next_and_an_unknown_id_starts_anew() -> None:
    async def scenario() -> None:
        hub = Hub(5)
        hub.publish(b"1")
        resumed = hub.stream(hub.newest_id)
        await take(resumed, 1)
        waiting = asyncio.ensure_future(anext(resumed))
        await asyncio.sleep(0)
        hub.publish(b"2")
        assert b"data: 2\n" in await asyncio.wait_for(waiting, 60)
        assert b"data: 2\n" in (await take(hub.stream("other-boot-7"), 2))[1]

    asyncio.run(scenario())


def test_quiet_times_have_heartbeats() -> None:
    async def scenario() -> None:
        hub = Hub(5, heartbeat_s=0.01)
        assert (await take(hub.stream(), 3))[1:] == [b": still here\n\n"] * 2

    asyncio.run(scenario())


def test_closing_ends_every_stream() -> None:
    async def scenario() -> None:
        hub = Hub(5)
        stream = hub.stream()
        await take(stream, 1)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 60)

    asyncio.run(scenario())


async def respond(hub: Hub, gone: asyncio.Event) -> list[dict[str, Any]]:
    """One request for the stream, up to the client's going."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "asgi": {"spec_version": "2.3"},
    }
    await EventStream(hub, "")(scope, receive, send)
    return sent


def test_the_seat_beyond_the_last_is_refused_and_a_left_one_is_free_again() -> None:
    async def scenario() -> None:
        hub, gone = Hub(1), asyncio.Event()
        first = asyncio.create_task(respond(hub, gone))
        while not hub.subscribers:
            await asyncio.sleep(0)
        refused = await respond(hub, asyncio.Event())
        assert refused[0]["status"] == 503
        assert b"max_subscribers" in refused[1]["body"]
        assert hub.refused == 1
        gone.set()
        sent = await asyncio.wait_for(first, 60)
        assert sent[0]["status"] == 200
        assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert hub.subscribers == 0

    asyncio.run(scenario())


def test_updates_are_published_when_something_changed_and_somebody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "MIN_INTERVAL_S", 0.0)

    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def scenario() -> None:
        hub, revision, made = Hub(5), [1], []

        def summary() -> bytes:
            made.append(revision[0])
            return b"{}"

        running = asyncio.create_task(hub.run(lambda: revision[0], summary))
        await turns(20)
        assert made == []
        hub.seats["visitor"] = 1
        await turns(20)
        assert made == [1]
        revision[0] = 2
        await turns(20)
        assert made == [1, 2]
        running.cancel()

    asyncio.run(scenario())


def test_an_address_has_no_more_than_its_share_of_the_seats() -> None:
    hub = Hub(3, 2)
    with hub.seat("a"), hub.seat("a"):
        refusal = hub.full("a")
        assert refusal is not None and refusal.startswith("a has 2 live streams already; ")
        assert hub.full("b") is None
        with hub.seat("b"):
            refusal = hub.full("c")
            assert refusal is not None and refusal.startswith("all 3 live streams are taken; ")
    assert hub.full("a") is None and hub.subscribers == 0 and hub.seats == {}


def test_a_summary_that_cannot_be_made_is_said_and_the_next_one_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "MIN_INTERVAL_S", 0.0)

    async def scenario() -> None:
        hub, revision = Hub(5), iter(range(1_000))
        hub.seats["visitor"] = 1
        made: list[int] = []

        def summary() -> bytes:
            made.append(1)
            if len(made) < 3:
                raise TypeError("Integer exceeds 64-bit range")
            return b"{}"

        running = asyncio.create_task(hub.run(lambda: next(revision), summary))
        [_, message] = await take(hub.stream(), 2)
        assert b"data: {}" in message and len(made) >= 3
        running.cancel()

    asyncio.run(scenario())
