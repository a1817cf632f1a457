"""All that the page knows, fed record by record: bounded, without IO, owned by one thread."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal, TypeVar

from freshet.dashboard.accuracy import Accuracy
from freshet.dashboard.apart import ServedApart
from freshet.dashboard.forecasts import ForecastBook
from freshet.dashboard.rounds import Rounds
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.translate import Headers
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    RECORDS,
    SHOP_TABLES,
    Alert,
    DriftAlert,
    Forecast,
    ForecastRound,
    ModelEvent,
    RetrainRequest,
    Score,
)
from freshet.stream.store.grid import Grid

Kind = Literal[
    "forecasts",
    "forecasts_latest",
    "rounds",
    "scores",
    "drift",
    "models",
    "retrain",
    "alerts",
    "catalog",
    "promotions",
    "inventory",
]
Section = Literal["items", "errors", "drift", "models", "flash"]

T = TypeVar("T")

SECTIONS: tuple[Section, ...] = ("items", "errors", "drift", "models", "flash")
MAX_DRIFT_ALERTS = 400
MAX_MODEL_EVENTS = 1_000
MAX_RETRAINS = 400
MAX_ALERTS = 400

MAX_REASON = 300
LARGEST = 1e15
"""No number of units is larger."""

# What each kind of record changes on the page.
TOUCHES: dict[Kind, tuple[Section, ...]] = {
    "forecasts": ("items", "flash"),
    "forecasts_latest": ("items", "flash"),
    "rounds": ("items",),
    "scores": ("errors", "models", "drift"),
    "drift": ("drift", "errors"),
    "models": ("models", "errors"),
    "retrain": ("models",),
    "alerts": ("drift",),
    "catalog": ("items",),
    "promotions": ("flash", "items"),
    "inventory": ("flash",),
}


class TopicState:
    """The newest state of every topic that the page shows.

    `revisions` counts changes by section, so that a page fetches again only what changed.

    Args:
        settings: What is forecast, what an item id is made of, and whose days are meant.
        latest_ms: When a record may say that something happened at the latest.
    """

    def __init__(
        self, settings: Settings, *, latest_ms: Callable[[], int] = lambda: MAX_TIME_MS
    ) -> None:
        self._latest_ms = latest_ms
        self.served = settings.served
        self.main_ms = settings.main.resolution_ms
        self.time_zone = settings.calendar.time_zone
        grids = [Grid(one.resolution_ms, self.time_zone) for one in settings.served]
        self.books = {grid.resolution_ms: ForecastBook(grid) for grid in grids}
        self.accuracies = {grid.resolution_ms: Accuracy(grid) for grid in grids}
        self.apart = ServedApart()
        self.rounds = {grid.resolution_ms: Rounds(grid) for grid in grids}
        self.series_by = settings.events.series_by
        self.shop = ShopTables(self.series_by, latest_ms=latest_ms)
        self.drift: deque[DriftAlert] = deque(maxlen=MAX_DRIFT_ALERTS)
        self.models: deque[ModelEvent] = deque(maxlen=MAX_MODEL_EVENTS)
        self.retrains: dict[str, RetrainRequest] = {}
        self.alerts: dict[str, Alert] = {}
        self.revisions: dict[Section, int] = dict.fromkeys(SECTIONS, 0)
        self.applied: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.newest_malformed = ""
        """Why the newest record that cannot be used cannot."""
        self.scored_ms = 0
        self.alerted_ms = 0

    @property
    def book(self) -> ForecastBook:
        """The forecasts that lists and totals are made of."""
        return self.books[self.main_ms]

    @property
    def accuracy(self) -> Accuracy:
        """The scores of those."""
        return self.accuracies[self.main_ms]

    @property
    def forecasts_seen(self) -> int:
        """How many forecasts were taken in, of all resolutions."""
        return sum(book.seen for book in self.books.values())

    @property
    def revision(self) -> int:
        """Grows with each change of any section."""
        return sum(self.revisions.values())

    def touch(self, *sections: Section) -> None:
        """Say that something from outside the topics changed in these sections."""
        for section in sections:
            self.revisions[section] += 1

    def apply(
        self,
        kind: Kind,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> bool:
        """Take in one record.

        Returns:
            Whether it was usable. What was not is counted in `malformed` and changes nothing.
        """
        try:
            if kind in SHOP_TABLES:
                self.shop.tell(kind, key, value, timestamp_ms, headers)
                changed = True
            else:
                changed = self._take(kind, key, value)
        except Exception as error:
            # Whatever a record makes the code raise, those behind it have their turn.
            self.malformed[kind] += 1
            self.newest_malformed = f"{type(error).__name__}: {error}"[:MAX_REASON]
            return False
        self.applied[kind] += 1
        if changed:
            self.touch(*TOUCHES[kind])
        return True

    def _take(self, kind: Kind, key: bytes | None, value: bytes | None) -> bool:
        if value is None:
            return self._forget(kind, key)
        named = RECORDS["forecasts" if kind == "forecasts_latest" else kind]
        record = decode(named, value, latest_ms=self._latest_ms())
        match record:
            case Forecast(resolution_ms=width_ms):
                return width_ms in self.books and self.books[width_ms].apply(record)
            case ForecastRound(resolution_ms=width_ms):
                return width_ms in self.rounds and self.rounds[width_ms].apply(record)
            case Score(resolution_ms=width_ms):
                _check_numbers(record)
                self.scored_ms = max(self.scored_ms, record.scored_at_ms)
                return width_ms in self.accuracies and self._take_score(record)
            case DriftAlert():
                self.alerted_ms = max(self.alerted_ms, record.detected_at_ms)
                return _append(self.drift, record)
            case ModelEvent():
                return _append(self.models, record)
            case RetrainRequest():
                _put(self.retrains, record.request_id, record, MAX_RETRAINS)
            case Alert():
                self.alerted_ms = max(self.alerted_ms, record.data.updated_at_ms)
                _put(self.alerts, record.subject, record, MAX_ALERTS, over=_resolved)
        return True

    def _take_score(self, score: Score) -> bool:
        new = self.accuracies[score.resolution_ms].apply(score)
        if new and score.resolution_ms == self.main_ms:
            self.apart.take(score)
        return new

    def _forget(self, kind: Kind, key: bytes | None) -> bool:
        """A tombstone: only alerts are kept by key; other history stays until it is pushed out."""
        if kind != "alerts" or key is None:
            return False
        return self.alerts.pop(key.decode(), None) is not None


def _check_numbers(score: Score) -> None:
    numbers = [score.actual, *(step.pinball for step in [*score.steps, *score.unadjusted])]
    numbers += [step.seasonal_naive_pinball or 0.0 for step in score.steps]
    if not all(math.isfinite(number) and abs(number) <= LARGEST for number in numbers):
        raise EventError(f"the score of {score.item_id} has numbers that are no units")


def _resolved(alert: Alert) -> bool:
    return alert.data.state == "resolved"


def _append(known: deque[T], record: T) -> bool:
    """Keep a record unless it is a repeat."""
    if record in known:
        return False
    known.append(record)
    return True


def _put(
    known: dict[str, T],
    key: str,
    record: T,
    maximum: int,
    over: Callable[[T], bool] = lambda record: False,
) -> None:
    """Keep the newest record of a key.

    Room is made by one that is `over`, else by the key that was heard of longest ago.
    """
    known.pop(key, None)
    known[key] = record
    if len(known) > maximum:
        done = (name for name, one in known.items() if over(one))
        del known[next(done, next(iter(known)))]
