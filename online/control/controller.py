"""What control knows and decides: records of its topics in, alerts and requests out. No IO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from freshet.online.control.alerts import (
    FLASH_SALE_TYPE,
    AlertBook,
    Signal,
    drift_signal,
    flash_sale_signal,
    model_signals,
)
from freshet.online.control.rules import RetrainRules
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.translate import Headers
from freshet.stream.codec import MAX_TIME_MS, decode
from freshet.stream.config import Topics
from freshet.stream.schemas import SHOP_TABLES, Alert, DriftAlert, ModelEvent, RetrainRequest


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish."""

    topic: str
    key: str
    record: Alert | RetrainRequest
    at_ms: int


@dataclass(slots=True)
class Controller:
    """A state that follows from the records taken in, and what it asks to be published.

    Outputs count as published only when `published` is told so; asking again before that gives them
    again. A record taken in twice changes nothing.

    Attributes:
        resolution_ms: Of the forecasts whose drift counts; that of others is passed over.
        latest_ms: When a record may say that something happened at the latest.
    """

    topics: Topics
    rules: RetrainRules
    resolution_ms: int
    book: AlertBook = field(default_factory=AlertBook)
    shop: ShopTables = field(default_factory=ShopTables)
    latest_ms: Callable[[], int] = lambda: MAX_TIME_MS

    def take(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> list[Output]:
        """Take in one record of an input topic and return what to publish.

        Raises:
            EventError: The record cannot be used.
        """
        table = self.topics.of(*SHOP_TABLES).get(topic)
        if table is not None:
            # A sale begins and ends by the clock: `tick` looks at it.
            self.shop.tell(table, key, value, timestamp_ms, headers)
            return []
        if value is None:
            return []
        latest_ms = self.latest_ms()
        if topic == self.topics.drift:
            alert = decode(DriftAlert, value, latest_ms=latest_ms)
            if not alert.concerns(self.resolution_ms):
                return []
            self.rules.take_drift(alert)
            return self._alerts([drift_signal(alert)])
        if topic == self.topics.models:
            event = decode(ModelEvent, value, latest_ms=latest_ms)
            self.rules.take_event(event)
            return self._alerts(model_signals(event))
        if topic == self.topics.retrain:
            self.rules.take_request(decode(RetrainRequest, value, latest_ms=latest_ms))
        elif topic == self.topics.alerts:
            self.book.restore(decode(Alert, value, latest_ms=latest_ms))
        return []

    def tick(self, now_ms: int) -> list[Output]:
        """What time alone brings: a retrain that is due, flash sales that begin or end."""
        outputs = self._alerts(self._flash_sales(now_ms))
        request = self.rules.due(now_ms)
        if request is not None:
            outputs.append(Output(self.topics.retrain, request.request_id, request, now_ms))
        return outputs

    def published(self, outputs: Sequence[Output]) -> None:
        """The outputs are in the log."""
        for output in outputs:
            if isinstance(output.record, Alert):
                self.book.restore(output.record)
            else:
                self.rules.take_request(output.record)
        self.book.forget_resolved()

    def _alerts(self, signals: Sequence[Signal]) -> list[Output]:
        topic = self.topics.alerts
        outputs = []
        for signal in signals:
            for alert in self.book.apply(signal):
                outputs.append(Output(topic, alert.subject, alert, alert.data.updated_at_ms))
        return outputs

    def _flash_sales(self, now_ms: int) -> list[Signal]:
        """Those that are on, and the end of those that are firing and are not on any more."""
        running = {
            sale.promotion_id: sale
            for sale in self.shop.active_promotions(now_ms)
            if sale.flash_sale
        }
        signals = []
        for promotion_id, sale in running.items():
            starts_at_ms, ends_at_ms = self.shop.promotion_times(promotion_id)
            signals.append(
                flash_sale_signal(
                    sale, starts_at_ms=starts_at_ms, ends_at_ms=ends_at_ms, now_ms=now_ms
                )
            )
        for alert in self.book.firing():
            subject = alert.data.labels.get("subject", "")
            if alert.type == FLASH_SALE_TYPE and subject not in running:
                # Its promotion may have been withdrawn, so that nothing but the alert knows of it.
                signals.append(
                    Signal(
                        type=FLASH_SALE_TYPE,
                        subject=subject,
                        kind="",
                        active=False,
                        at_ms=now_ms,
                        starts_at_ms=alert.data.starts_at_ms,
                    )
                )
        return signals
