"""An export of old orders before live webhooks, and another topic, as a person loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.stream import telemetry
from freshet.stream.config import Settings, load
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import connect
from freshet.stream.units import DAY_MS
from freshet.stream.verify.verify import verify
from tests.integration.shop import environ_for, running, store_of, wait_for

SHOP = """
[windows]
history_before = "2026-01-01"
resolutions = [{resolution_ms = 86400000, buckets = 100}]
[worker]
resolution_ms = 86400000
[events]
series_by = ["sku"]
[events.orders]
mode = "state"
[events.orders.fields]
order_id = "id"
version = "updated_at"
event_time = "created_at"
cancelled = "cancelled_at"
lines = "line_items"
"lines.quantity" = "current_quantity"
"lines.unit_price" = "price"
"""
EXPORT = """\
Name;Created at;Lineitem quantity;Lineitem price;Lineitem sku;Cancelled at;Id
#3;2025-12-20 09:00:00 +0100;3;34,90;00123;;7003
#3;;1;9,50;B;;
#2;2025-12-20 00:30:00 +0100;2;34,90;00123;;7002
#1;2025-12-18 12:00:00 +0100;5;34,90;00123;2025-12-18 13:00:00 +0100;7001
"""


def webhook(order_id: int, created: str, updated: str, **quantities: int) -> dict[str, Any]:
    lines = [
        {"sku": sku.lstrip("_"), "current_quantity": quantity, "price": "34.90"}
        for sku, quantity in quantities.items()
    ]
    return {"id": order_id, "created_at": created, "updated_at": updated, "line_items": lines}


WEBHOOKS = [
    # Of the order 7003, one of three came back in January; and an order of January itself.
    webhook(7003, "2025-12-20T08:00:00Z", "2026-01-02T10:00:00Z", _00123=2, B=1),
    webhook(7004, "2026-01-03T08:00:00Z", "2026-01-03T08:00:00Z", B=4),
]
OLDER = webhook(6001, "2025-12-10T08:00:00Z", "2025-12-10T09:00:00Z", B=6)
# Units less what came back, by item and day of 2025 or 2026, in UTC.
SOLD = {
    ("B", "2025-12-10"): (6, 0),
    ("00123", "2025-12-19"): (2, 0),
    ("00123", "2025-12-20"): (3, 0),
    ("B", "2025-12-20"): (1, 0),
    ("00123", "2026-01-02"): (0, 1),
    ("B", "2026-01-03"): (4, 0),
}


def run(*words: str, environ: dict[str, str]) -> str:
    found = CliRunner().invoke(app, ["history", "load", *words], env=environ)
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def send(
    settings: Settings, topic: str, records: list[dict[str, Any]], partition: int = -1
) -> None:
    with Publisher(settings) as publisher:
        for record in records:
            publisher.produce(
                topic,
                json.dumps(record).encode(),
                key=str(record["id"]).encode(),
                partition=partition,
            )
        publisher.flush()


def sold(settings: Settings) -> dict[tuple[str, str], tuple[float, float]]:
    rules = ReadRules.of(settings, DAY_MS)
    reader = WindowReader(connect(settings.redis), 0, DAY_MS, 60, rules=rules)
    reader.refresh()
    assert reader.loading() is None
    cutoff_ms = reader.live_cutoff_ms()
    assert cutoff_ms is not None
    view = reader.window(cutoff_ms, 60)
    found = {}
    for row, item_id in enumerate(reader.item_ids):
        units, returns = (
            view.values_ICB[row, CHANNELS.index(name)] / 1_000 for name in ("units", "returns")
        )
        for step in range(60):
            if units[step] or returns[step]:
                day = str(np.datetime64(view.start_ms + step * DAY_MS, "ms"))[:10]
                found[item_id, day] = (float(units[step]), float(returns[step]))
    return found


def test_an_export_and_another_topic_make_the_windows_that_webhooks_would_have(
    kafka_broker: str, redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The runner closes what the log would go to.
    monkeypatch.setattr(telemetry, "configure_logging", lambda settings: None)
    # Nobody is idle, or the live cutoff would be today's.
    over = {"FRESHET_KAFKA__PARTITIONS": "2", "FRESHET_WINDOWS__IDLE_MS": str(10**9)}
    environ = environ_for(kafka_broker, redis_server, "history of files", **over)
    config = tmp_path / "freshet.toml"
    config.write_text(SHOP)
    settings = load(config, environ=environ).settings
    ensure_topics(settings, live=True)
    export = tmp_path / "orders_export.csv"
    export.write_text(EXPORT)
    old_topic = settings.kafka.topics.orders + ".old"
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    admin.create_topics([NewTopic(old_topic, 1, 1)])[old_topic].result(30)
    send(settings, old_topic, [OLDER])
    with running(settings):
        shown = run("--config", str(config), "--topic", old_topic, "--more", environ=environ)
        assert "1 records sent" in shown
        shown = run(
            str(export), "--preset", "shopify_csv", "--config", str(config), environ=environ
        )
        assert "load orders_export.csv: 2 records sent" in shown
        wait_for(lambda: loaded(settings))
        send(settings, settings.kafka.topics.orders, WEBHOOKS)
        # Both partitions come to the sixth, so that all before it is over.
        for n in (0, 1):
            later = webhook(8000 + n, "2026-01-06T08:00:00Z", "2026-01-06T08:00:00Z", B=1)
            send(settings, settings.kafka.topics.orders, [later], partition=n)
        wait_for(lambda: applied(settings) == 7)
    assert verify(settings).agrees
    assert sold(settings) == SOLD


def applied(settings: Settings) -> int:
    store = store_of(settings)
    headers = [store.header(*at) for at in store.partitions()]
    return sum(header.applied for header in headers if header is not None)


def loaded(settings: Settings) -> bool:
    store = store_of(settings)
    headers = [store.header(*at) for at in store.partitions()]
    return sum(header is not None and bool(header.history_complete) for header in headers) == 4
