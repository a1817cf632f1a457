"""What control knows when it starts: what its topics say, and what a crash left unsaid."""

from __future__ import annotations

from functools import partial

from freshet.online.control.controller import Controller, Output
from freshet.online.control.rules import RetrainRules
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import Clock, latest_ms
from freshet.stream.config import Settings, Topics
from freshet.stream.kafka import TableReader
from freshet.stream.schemas import SHOP_TABLES
from freshet.stream.telemetry import get_logger

log = get_logger("control")


def restored(settings: Settings, clock: Clock) -> tuple[Controller, list[Output]]:
    """A controller that knows what the topics say so far, and what a crash left unsaid.

    Alerts are read before what causes them, so that only outputs that are due and not in the topics
    are left over.

    Raises:
        BrokerError: The broker does not answer.
    """
    topics, control = settings.kafka.topics, settings.control

    latest = partial(latest_ms, clock)
    controller = Controller(
        topics,
        RetrainRules(control.cooldown_ms, control.min_new_data_ms, control.schedule_ms),
        settings.main.resolution_ms,
        shop=ShopTables.of(settings, latest_ms=latest),
        latest_ms=latest,
    )
    with TableReader(settings, list(input_topics(topics))) as reader:
        records = reader.read_to_end()
    records.sort(
        key=lambda record: (record.topic != topics.alerts, record.timestamp_ms, record.offset)
    )
    missed: list[Output] = []
    for record in records:
        try:
            outputs = controller.take(
                record.topic, record.key, record.value, record.timestamp_ms, record.headers
            )
        except Exception:
            # The process that read it first made a dead letter of it.
            log.debug("record_unusable", topic=record.topic, offset=record.offset)
            continue
        controller.published(outputs)
        missed += outputs
    return controller, missed


def input_topics(topics: Topics) -> tuple[str, ...]:
    """Topics that agents read."""
    decisive = (topics.drift, topics.retrain, topics.models, topics.alerts)
    return (*decisive, *topics.of(*SHOP_TABLES))
