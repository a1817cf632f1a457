"""What one page process knows: the topics, the newest actuals, the clock, and what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from freshet.dashboard import api
from freshet.dashboard.actuals import Actuals, Rate, SnapshotSource, Wanted
from freshet.dashboard.connections import Connections
from freshet.dashboard.feed import Feed
from freshet.dashboard.hub import Hub
from freshet.dashboard.interest import Interest
from freshet.dashboard.retrain import Retrain
from freshet.dashboard.state import TopicState
from freshet.stream.clock import latest_ms
from freshet.stream.config import Settings
from freshet.stream.health import STUCK_S, Health
from freshet.stream.process import Stop
from freshet.stream.read.few import FewCells
from freshet.stream.telemetry import new_registry

ANSWER_S = 1.5
"""How long a visitor waits at most for what was not read from Redis before."""


class Page:
    """What the routes look at; owned by the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.topics = TopicState(settings, latest_ms=self.latest_ms)
        self.settings = settings.dashboard
        self.hub = Hub(self.settings.max_subscribers, self.settings.max_streams_per_address)
        self.connections = Connections(tuple)
        self.retrain = Retrain(self.settings.control_url)
        self.feed = Feed(settings.kafka, self.topics, lambda: self.turned("feed"))
        self.max_points = self.settings.max_points
        self.actuals = Actuals(settings.main.resolution_ms)
        self.folded = {width.resolution_ms for width in settings.windows.resolutions}
        self.interest = Interest()
        self._few: dict[int, FewCells] = {}
        self._few_items: Wanted = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.redis_problem: str | None = "not connected yet"
        # What a thread beside the loop finds when it asks both servers.
        self.servers = Health(Stop(), "not asked yet")
        self._turned_s: dict[str, float] = {}
        self.registry = new_registry()
        self.registry.register(_Figures(self))
        # When the shop's clock was read (monotonic seconds), what it said, and its speed.
        self._clock: tuple[float, int, float] = (time.monotonic(), time.time_ns() // 1_000_000, 1.0)
        self.clock_known = asyncio.Event()
        """Before the clock was read, nobody can say of a record that its time has not come."""
        self._events = Rate()
        self._forecasts = Rate()
        self._events_per_s = 0.0
        self._forecasts_per_s = 0.0

    def moment(self) -> api.Moment:
        """Time, rates and what is wrong; between two looks at Redis the shop's clock runs on."""
        kafka_trouble, redis_trouble = self.kafka_trouble, self.redis_trouble
        return api.Moment(
            now_ms=self.now_ms(),
            speed=self.speed,
            events_per_s=None if redis_trouble else self._events_per_s,
            forecasts_per_s=None if kafka_trouble or redis_trouble else self._forecasts_per_s,
            kafka_problem=kafka_trouble,
            redis_problem=redis_trouble,
            kafka_age_s=_age_s(self.feed.heard_s),
            redis_age_s=_age_s(self._clock[0] if self.clock_known.is_set() else None),
        )

    @property
    def speed(self) -> float:
        """How fast the shop's clock runs."""
        return self._clock[2]

    def now_ms(self) -> int:
        """The shop's clock."""
        read_s, clock_ms, speed = self._clock
        return clock_ms + round((time.monotonic() - read_s) * 1_000 * speed)

    def latest_ms(self) -> int:
        """When a record may say that something happened at the latest."""
        return latest_ms(self)

    @property
    def kafka_trouble(self) -> str | None:
        """Why what topics say may be old."""
        return self.servers.trouble("kafka") or self.feed.problem

    @property
    def redis_trouble(self) -> str | None:
        """Why sales may be old."""
        return self.servers.trouble("store") or self.redis_problem

    def turned(self, what: str) -> None:
        """The task `feed` or `look` still turns."""
        self._turned_s[what] = time.monotonic()

    def stuck(self) -> str | None:
        """Which task has not turned for long; None when all do."""
        now_s = time.monotonic()
        late = [
            f"{what} has not turned for {now_s - at_s:.0f} s"
            for what, at_s in self._turned_s.items()
            if now_s - at_s > STUCK_S
        ]
        return "; ".join(late) or None

    def summary(self) -> dict[str, Any]:
        """The overview."""
        whole = api.overview(self.topics, self.actuals, self.moment())
        return whole | {"may_retrain": self.retrain.offered}

    def revision(self) -> object:
        """Changes when a subscriber should hear of it; the clock alone counts once a second."""
        troubles = self.kafka_trouble, self.redis_trouble
        return self.topics.revision, troubles, int(time.monotonic())

    def not_ready(self) -> str | None:
        """Why the page is not ready; None when it is."""
        problems = {"kafka": self.kafka_trouble, "redis": self.redis_trouble}
        named = [f"{name}: {problem}" for name, problem in problems.items() if problem]
        return "; ".join(named) or None

    async def few(self, resolution_ms: int, item_ids: Iterable[str]) -> FewCells | None:
        """Units of a few items by a resolution, read when they are asked for.

        Waits for at most `ANSWER_S`; None where nobody could tell by then, or nothing is folded at
        that resolution.
        """
        if resolution_ms not in self.folded:
            return None
        asked = frozenset(item_ids)
        self.interest.note(resolution_ms, asked, time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                # A look that had begun before does not count.
                while not asked <= self._few_items.get(resolution_ms, frozenset()):
                    await self._next_look()
        return self._few.get(resolution_ms)

    async def _next_look(self) -> None:
        looked = asyncio.get_running_loop().create_future()
        self._waiting.add(looked)
        try:
            await looked
        finally:
            self._waiting.discard(looked)

    def look(
        self, source: SnapshotSource, wanted: Wanted
    ) -> tuple[Actuals | None, tuple[int, float], dict[int, FewCells]]:
        """One blocking look at Redis, for a thread."""
        return source.read(), source.clock(), source.few(wanted)

    def seen_few(self, few: dict[int, FewCells], wanted: Wanted) -> None:
        """Take over what was read of the items that are looked at, and answer who waits for it."""
        offsets = {width_ms: cells.offsets for width_ms, cells in few.items()}
        if offsets != {width_ms: cells.offsets for width_ms, cells in self._few.items()}:
            self.topics.touch("items", "flash")
        self._few, self._few_items = few, wanted
        for looked in self._waiting:
            if not looked.done():
                looked.set_result(None)

    def seen(self, actuals: Actuals | None, clock: tuple[int, float], at_s: float) -> None:
        """Take over what a look at Redis found."""
        self.redis_problem = None
        self._clock = (at_s, *clock)
        self.clock_known.set()
        if actuals is not None:
            self.actuals = actuals
            self.topics.touch("items", "flash")
        self._events_per_s = self._events.note(at_s, self.actuals.books.read)
        self._forecasts_per_s = self._forecasts.note(at_s, self.topics.forecasts_seen)


def _age_s(at_s: float | None) -> float | None:
    return None if at_s is None else round(time.monotonic() - at_s, 1)


class _Figures:
    """The page's own figures for /metrics; never labelled by item."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        hub, book = self._page.hub, self._page.topics.book
        yield _gauge("freshet_dashboard_subscribers", "Open live streams.", hub.subscribers)
        yield _gauge("freshet_dashboard_items", "Items with a forecast.", len(book.items))
        now_ms = self._page.moment().now_ms
        yield _gauge(
            "freshet_dashboard_forecast_age_ms",
            "Clock time since the newest forecast's cutoff.",
            now_ms - book.newest_cutoff_ms if book.items else float("nan"),
        )
        dropped = CounterMetricFamily(
            "freshet_dashboard_connections_dropped", "Connections that were silent or not read."
        )
        dropped.add_metric([], self._page.connections.dropped)
        yield dropped
        refused = CounterMetricFamily(
            "freshet_dashboard_subscribers_refused", "Streams refused for want of room."
        )
        refused.add_metric([], hub.refused)
        yield refused
        yield self._records()

    def _records(self) -> Metric:
        records = CounterMetricFamily(
            "freshet_dashboard_records", "Records read.", labels=["kind", "usable"]
        )
        for kind, count in self._page.topics.applied.items():
            records.add_metric([kind, "yes"], count)
        for kind, count in self._page.topics.malformed.items():
            records.add_metric([kind, "no"], count)
        return records


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
