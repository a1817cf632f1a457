"""All that the page knows, fed record by record: bounded, without IO, owned by one thread."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Literal, TypeVar

import msgspec

from freshet.dashboard.accuracy import Accuracy
from freshet.dashboard.forecasts import ForecastBook
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import WorkerSettings
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    RECORDS,
    SHOP_TABLES,
    Alert,
    DriftAlert,
    Forecast,
    ModelEvent,
    Record,
    RetrainRequest,
    Score,
)

Kind = Literal[
    "forecasts",
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

UNUSABLE = (EventError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)

# What each kind of record changes on the page.
TOUCHES: dict[Kind, tuple[Section, ...]] = {
    "forecasts": ("items", "flash"),
    "scores": ("errors", "models", "drift"),
    "drift": ("drift", "errors"),
    "models": ("models", "errors"),
    "retrain": ("models",),
    "alerts": ("drift",),
    "catalog": ("items",),
    "promotions": ("flash", "items"),
    "inventory": ("flash",),
}
DECODERS: dict[Kind, msgspec.json.Decoder[Record]] = {
    kind: msgspec.json.Decoder(RECORDS[kind]) for kind in TOUCHES if kind not in SHOP_TABLES
}


class TopicState:
    """The newest state of every topic that the page shows.

    `revisions` counts changes by section, so that a page fetches again only what changed.
    """

    def __init__(
        self, worker: WorkerSettings, series_by: tuple[str, ...] = ("sku", "region")
    ) -> None:
        self.book = ForecastBook(worker.resolution_ms)
        self.accuracy = Accuracy(worker.resolution_ms)
        self.series_by = series_by
        self.shop = ShopTables(series_by)
        self.drift: deque[DriftAlert] = deque(maxlen=MAX_DRIFT_ALERTS)
        self.models: deque[ModelEvent] = deque(maxlen=MAX_MODEL_EVENTS)
        self.retrains: dict[str, RetrainRequest] = {}
        self.alerts: dict[str, Alert] = {}
        self.revisions: dict[Section, int] = dict.fromkeys(SECTIONS, 0)
        self.applied: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()

    @property
    def revision(self) -> int:
        """Grows with each change of any section."""
        return sum(self.revisions.values())

    def touch(self, *sections: Section) -> None:
        """Say that something from outside the topics changed in these sections."""
        for section in sections:
            self.revisions[section] += 1

    def apply(self, kind: Kind, key: bytes | None, value: bytes | None, timestamp_ms: int) -> bool:
        """Take in one record.

        Returns:
            Whether it was usable. What was not is counted in `malformed` and changes nothing.
        """
        try:
            changed = self._take(kind, key, value, timestamp_ms)
        except UNUSABLE:
            self.malformed[kind] += 1
            return False
        self.applied[kind] += 1
        if changed:
            self.touch(*TOUCHES[kind])
        return True

    def _take(self, kind: Kind, key: bytes | None, value: bytes | None, timestamp_ms: int) -> bool:
        if kind in SHOP_TABLES:
            if not self.shop.apply(kind, key, value, timestamp_ms):
                raise EventError(f"the {kind} record cannot be used")
            return True
        if value is None:
            return self._forget(kind, key)
        record = DECODERS[kind].decode(value)
        match record:
            case Forecast():
                return self.book.apply(record)
            case Score():
                return _finite(record) and self.accuracy.apply(record)
            case DriftAlert():
                return _append(self.drift, record)
            case ModelEvent():
                return _append(self.models, record)
            case RetrainRequest():
                _put(self.retrains, record.request_id, record, MAX_RETRAINS)
            case Alert():
                _put(self.alerts, record.subject, record, MAX_ALERTS)
        return True

    def _forget(self, kind: Kind, key: bytes | None) -> bool:
        """A tombstone: only alerts are kept by key; other history stays until it is pushed out."""
        if kind != "alerts" or key is None:
            return False
        return self.alerts.pop(key.decode(), None) is not None


def _finite(score: Score) -> bool:
    numbers = [score.actual, *(step.pinball for step in score.steps)]
    numbers += [step.seasonal_naive_pinball or 0.0 for step in score.steps]
    if not all(math.isfinite(number) for number in numbers):
        raise EventError(f"the score of {score.item_id} at {score.bucket_start_ms} is not finite")
    return True


def _append(known: deque[T], record: T) -> bool:
    """Keep a record unless it is a repeat."""
    if record in known:
        return False
    known.append(record)
    return True


def _put(known: dict[str, T], key: str, record: T, maximum: int) -> None:
    """Keep the newest record of a key; the key first seen longest ago makes room."""
    known[key] = record
    if len(known) > maximum:
        del known[next(iter(known))]
