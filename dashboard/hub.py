"""Server-sent events: one message for all subscribers, the newest state, at most two a second."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from freshet.stream.telemetry import get_logger

MIN_INTERVAL_S = 0.5
HEARTBEAT_S = 10.0
RETRY_MS = 2_000

log = get_logger(__name__)


class Hub:
    """Keeps the newest message and wakes its subscribers.

    Every message holds the whole summary, so a subscriber that was slow or away needs the newest
    one only: that is how a stream resumes. Ids are `<start of this process>-<number>`; who names
    the newest gets nothing twice.
    """

    def __init__(
        self,
        max_subscribers: int,
        max_per_address: int | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.max_subscribers = max_subscribers
        self.max_per_address = max_per_address or max_subscribers
        self.seats: Counter[str] = Counter()
        self.refused = 0
        self._heartbeat_s = heartbeat_s
        self._boot = secrets.token_hex(4)
        self._number = 0
        self._message = b""
        self._news = asyncio.Event()
        self._closed = False

    @property
    def subscribers(self) -> int:
        """Open streams."""
        return self.seats.total()

    def full(self, address: str) -> str | None:
        """Why one more stream of an address is refused; None where there is room."""
        if self.subscribers >= self.max_subscribers:
            return (
                f"all {self.max_subscribers} live streams are taken; "
                "dashboard.max_subscribers sets how many"
            )
        if self.seats[address] >= self.max_per_address:
            return (
                f"{address} has {self.max_per_address} live streams already; "
                "dashboard.max_streams_per_address sets how many"
            )
        return None

    @contextmanager
    def seat(self, address: str) -> Iterator[None]:
        """A stream's place for as long as it is sent."""
        self.seats[address] += 1
        try:
            yield
        finally:
            self.seats[address] -= 1
            if not self.seats[address]:
                del self.seats[address]

    @property
    def newest_id(self) -> str:
        """Id of the newest message."""
        return f"{self._boot}-{self._number}"

    def publish(self, data: bytes) -> None:
        """Make this (one line of JSON) the newest message."""
        self._number += 1
        self._message = b"id: %s\nevent: update\ndata: %s\n\n" % (self.newest_id.encode(), data)
        self._wake()

    def close(self) -> None:
        """End every stream now."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def stream(self, last_id: str = "") -> AsyncIterator[bytes]:
        """What one subscriber is sent: the newest message, then newer ones; heartbeats between."""
        yield b"retry: %d\n\n" % RETRY_MS
        while not self._closed:
            news = self._news
            if self._number and self.newest_id != last_id:
                last_id = self.newest_id
                yield self._message
                if self.newest_id != last_id:
                    continue
            try:
                await asyncio.wait_for(news.wait(), self._heartbeat_s)
            except TimeoutError:
                yield b": still here\n\n"

    async def run(self, revision: Callable[[], object], summary: Callable[[], bytes]) -> None:
        """Publish a summary when the revision changed and somebody listens; not too often."""
        published: object = None
        while True:
            newest = revision()
            if newest != published and self.subscribers:
                published = newest
                try:
                    self.publish(summary())
                except Exception:
                    # The page lives on, and says how old its numbers are.
                    log.exception("summary_failed")
            await asyncio.sleep(MIN_INTERVAL_S)


class EventStream(StreamingResponse):
    """One subscriber's response; it holds a seat in the hub for as long as it is sent."""

    def __init__(self, hub: Hub, last_id: str, address: str = "") -> None:
        super().__init__(
            hub.stream(last_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )
        self._hub = hub
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._hub.full(self._address)
        if refusal is not None:
            self._hub.refused += 1
            answer = PlainTextResponse(f"{refusal}\n", 503, {"Retry-After": "10"})
            await answer(scope, receive, send)
            return
        with self._hub.seat(self._address):
            await super().__call__(scope, receive, send)
