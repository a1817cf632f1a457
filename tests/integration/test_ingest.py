"""Ingest against servers: what it writes and sends, and what it does when one goes away."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.error import HTTPError

import pytest
import redis
import structlog
from confluent_kafka.admin import NewPartitions, NewTopic

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode
from freshet.stream.config import Settings, load
from freshet.stream.errors import BrokerError, FingerprintError, LogLostError, StoreUnfitError
from freshet.stream.fold.headers import fingerprint
from freshet.stream.ingest import assignment
from freshet.stream.ingest.process import Ingest, run
from freshet.stream.kafka import Publisher, admin, ensure_topics, shard_of
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.ops.dead_letters import DeadLetterFilter, list_dead_letters
from freshet.stream.ops.redrive import redrive
from freshet.stream.read.export import window_rows
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import SHOP_TABLES, Alert, CatalogEntry, WindowsAdvanced
from freshet.stream.store.connection import connect
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.verify.verify import verify
from tests.conftest import mock_cluster
from tests.integration.shop import (
    START_MS,
    TIMEOUT_S,
    booked,
    books,
    environ_for,
    never,
    order,
    read,
    running,
    send,
    settings_for,
    store_of,
    wait_for,
)
from tests.stream.events.formats.fake_registry import FakeRegistry, serving


@pytest.fixture
def settings(mock_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    return settings_for(mock_broker, redis_server, request.node.name)


# What it writes and sends -------------------------------------------------------------------------


def test_a_bad_line_is_a_letter_of_its_own_and_counts_once_when_it_is_sent_again(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    orders = settings.kafka.topics.orders
    good = {"sku": "a", "quantity": 2, "unit_price": 1.5}
    event = {"event_id": "e1", "region": "north", "event_time": START_MS}
    told = json.dumps(event | {"lines": [good, {"sku": "b", "quantity": 1}]}).encode()
    send(settings, [told, told])
    run(settings, until_end=True)
    assert books(settings) == booked(applied=1, duplicate=1)
    (letter,) = read(settings, dead_letter_topic(orders))
    headers = dict(letter.headers)
    assert letter.value == told and letter.key == b"key"
    assert (headers["freshet-line"], headers["freshet.error.class"]) == (b"1", b"MissingField")
    # A person mends the line and sends the letter again, by hand twice.
    mended = json.dumps(event | {"lines": [good, good | {"sku": "b"}]}).encode()
    again = [("freshet-line", b"1"), ("freshet-redrive", b"place")]
    with Publisher(settings) as publisher:
        for _ in range(2):
            publisher.produce(orders, mended, partition=0, headers=again, timestamp_ms=START_MS)
        publisher.flush()
    run(settings, until_end=True)
    assert books(settings) == booked(applied=2, duplicate=2)
    header = store_of(settings).header(orders, 0)
    assert header is not None and (header.lines_dead, header.conflicting) == (1, 0)
    rows = next(iter(window_rows(settings, 86_400_000, include_open=True)))
    units = dict(zip(rows.item_ids, rows.values_NC[:, 0].tolist(), strict=True))
    assert units == {"a|north": 2_000, "b|north": 2_000}


def test_until_end_ingests_what_is_there_and_a_second_run_changes_nothing(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    late, future = (order(900 + ahead, event_time_ms=START_MS + ahead * 10**7) for ahead in (-1, 1))
    broken, huge = b"\xff", b"[" * 2_000_000
    send(settings, [*(order(n) for n in range(100)), order(5), broken, late, future, None, huge])
    run(settings, until_end=True)
    expected = booked(applied=100, duplicate=1, late_dropped=1, dead_letter=4)
    assert books(settings) == expected
    letters = read(settings, dead_letter_topic(settings.kafka.topics.orders))
    by_offset = {dict(letter.headers)["freshet.error.offset"]: letter for letter in letters}
    assert sorted(by_offset) == [b"101", b"103", b"104", b"105"]
    assert dict(by_offset[b"105"].headers)["freshet.error.value_bytes"] == b"2000000"
    assert len(by_offset[b"105"].value or b"") > 1_000_000
    letter = by_offset[b"101"]
    assert (letter.key, letter.value, letter.headers[0]) == (b"key", broken, ("trace", b"t1"))
    assert dict(by_offset[b"103"].headers)["freshet.error.stage"] == b"future"
    (late_record,) = read(settings, settings.kafka.topics.late)
    assert late_record.value == late
    assert dict(late_record.headers)["freshet.source.offset"] == b"102"
    run(settings, until_end=True)
    assert books(settings) == expected


def test_notices_go_to_the_shards_of_the_touched_items(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(1, sku="a")])
    run(settings, until_end=True)
    notices = read(settings, settings.kafka.topics.windows)
    applied = [
        notice for notice in notices if decode(WindowsAdvanced, notice.value or b"").offset == 1
    ]
    assert [notice.partition for notice in applied] == [shard_of("a|north", 4)]
    assert decode(WindowsAdvanced, applied[0].value or b"").frontier_ms == START_MS + 100


def test_a_partition_is_declared_idle_only_after_its_end_was_met_for_a_while(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(1)])

    def idle_ms() -> int | None:
        header = store_of(settings).header(settings.kafka.topics.orders, 0)
        return header.idle_frontier_ms if header else None

    with running(settings) as ingest:
        wait_for(lambda: books(settings).get("applied") == 1)
        wait_for(lambda: idle_ms() is not None)
        first_ms = idle_ms() or 0
        wait_for(lambda: (idle_ms() or 0) > first_ms)
        assert abs(first_ms - time.time() * 1_000) < 60_000
        wait_for(lambda: ingest.ready() is None)
    stopped_ms = idle_ms()
    assert never(lambda: idle_ms() != stopped_ms, watched_s=1.0)


def test_probes_and_metrics_are_served(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(1), b"{"])
    ingest = Ingest(settings)
    address = f"http://127.0.0.1:{ingest.http_port}"
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"{address}/readyz")
    assert refused.value.read() == b"joining the consumer group\n"
    with running(settings, made=ingest):
        wait_for(lambda: books(settings).get("read") == 2)
        wait_for(lambda: ingest.ready() is None)
        assert urllib.request.urlopen(f"{address}/livez").read() == b"ok\n"
        orders = settings.kafka.topics.orders
        wanted = {
            f'freshet_ingest_lag_records{{partition="0",topic="{orders}"}} 0.0',
            f"freshet_ingest_partitions {4 * (2 + len(SHOP_TABLES))}.0",
            f'freshet_ingest_records_total{{outcome="applied",topic="{orders}"}} 1.0',
            "freshet_ingest_items 1.0",
        }
        wait_for(lambda: wanted <= set(metrics_of(ingest).splitlines()))
        wait_for(lambda: number_in(metrics_of(ingest), "freshet_ingest_redis_bytes") > 100_000)
        text = metrics_of(ingest)
    assert 'freshet_ingest_dead_letters_total{error="' in text
    assert "freshet_ingest_replayed_records_total 0.0" in text


def number_in(text: str, metric: str) -> float:
    return float(text.split(f"\n{metric} ")[1].split()[0])


def metrics_of(ingest: Ingest) -> str:
    address = f"http://127.0.0.1:{ingest.http_port}/metrics"
    return str(urllib.request.urlopen(address).read(), "utf-8")


# Servers go away ----------------------------------------------------------------------------------


def test_redis_may_go_and_come_back(mock_broker: str, tmp_path: Path) -> None:
    store = EmbeddedRedis(tmp_path, append_only=True)
    settings = settings_for(mock_broker, store.url, "redis_goes")
    ensure_topics(settings, live=False)
    send(settings, [order(n) for n in range(50)])
    with running(settings) as ingest:
        wait_for(lambda: books(settings).get("applied") == 50)
        store.process.kill()
        store.stop()
        send(settings, [*(order(n) for n in range(50, 100)), b"broken"])
        wait_for(lambda: "does not answer" in (ingest.ready() or ""))
        store = EmbeddedRedis(tmp_path, store.port, append_only=True)
        wait_for(lambda: books(settings).get("read") == 101)
        wait_for(lambda: ingest.ready() is None)
    assert books(settings) == booked(applied=100, dead_letter=1)
    store.stop()


def test_an_outage_of_the_broker_does_not_look_like_silence(redis_server: str) -> None:
    with ExitStack() as broker:
        bootstrap_servers = broker.enter_context(mock_cluster())
        over = {"FRESHET_WINDOWS__IDLE_MS": "2500", "FRESHET_KAFKA__REQUEST_TIMEOUT_MS": "1000"}
        settings = settings_for(bootstrap_servers, redis_server, "outage", **over)
        ensure_topics(settings, live=False)
        send(settings, [order(1)])
        with running(settings) as ingest:
            wait_for(lambda: books(settings).get("applied") == 1)
            broker.close()
            wait_for(lambda: ingest.ready() is not None)
            assert never(lambda: declared_idle(settings), watched_s=3.0)


def declared_idle(settings: Settings) -> bool:
    header = store_of(settings).header(settings.kafka.topics.orders, 0)
    return header is not None and header.idle_frontier_ms is not None


# Owners and offsets -------------------------------------------------------------------------------


def test_a_fenced_partition_is_dropped_and_taken_again_only_after_a_new_assignment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "REJOIN_S", 3.0)
    ensure_topics(settings, live=False)
    send(settings, [order(1)])
    with running(settings) as ingest:
        wait_for(lambda: books(settings).get("applied") == 1)
        store_of(settings).claim(settings.kafka.topics.orders, 0, fingerprint("orders", settings))
        send(settings, [order(2)])
        wait_for(lambda: "taken over" in (ingest.ready() or ""))
        assert books(settings)["applied"] == 1
        wait_for(lambda: books(settings).get("applied") == 2)
        wait_for(lambda: ingest.ready() is None)


def test_a_redis_that_went_back_in_time_is_caught_up(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    client = connect(settings.redis)
    send(settings, [order(n) for n in range(30)])
    with structlog.testing.capture_logs() as lines, running(settings) as ingest:
        wait_for(lambda: books(settings).get("applied") == 30)
        before = snapshot(client)
        send(settings, [order(n) for n in range(30, 60)])
        wait_for(lambda: books(settings).get("applied") == 60)
        roll_back(client, before)
        wait_for(lambda: books(settings).get("applied") == 60)
        send(settings, [order(n) for n in range(60, 70)])
        wait_for(lambda: books(settings).get("applied") == 70)
        assert "freshet_ingest_replayed_records_total 30.0" in metrics_of(ingest)
        # Tables that stood at their ends have gone back too.
        wait_for(lambda: number_in(metrics_of(ingest), "freshet_ingest_gaps_total") >= 1)
        roll_back(client, {})
        wait_for(lambda: books(settings).get("applied") == 70)
    assert books(settings)["read"] == 70
    gaps = [line for line in lines if line["event"] == "gap" and line["records"]]
    assert [(gap["offset"], gap["records"], gap["hint"].split("; ")[0]) for gap in gaps] == [
        (30, 30, "Redis holds another offset than expected"),
        (0, 70, "Redis came back without these windows"),
    ]


def snapshot(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}  # type: ignore[misc]


def roll_back(client: redis.Redis, before: dict[bytes, bytes]) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        for key, value in before.items():
            pipeline.restore(key, 0, value)
        pipeline.execute()


def test_a_stored_offset_outside_the_log_stops_the_process_and_says_so(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(1)])
    run(settings, until_end=True)
    header = store_of(settings).keys(settings.kafka.topics.orders, 0).header
    connect(settings.redis).hset(header, "next_offset", "500")
    with pytest.raises(
        LogLostError, match=r"end at offset 500, and the log holds 0 to 1.*--into GENERATION"
    ):
        run(settings, until_end=True)


def test_a_shops_own_topic_will_do_and_its_new_partitions_are_read_soon(
    kafka_broker: str, redis_server: str, request: pytest.FixtureRequest
) -> None:
    settings = settings_for(kafka_broker, redis_server, request.node.name)
    topics = settings.kafka.topics
    own = {"message.timestamp.type": "CreateTime", "retention.ms": "86400000000"}
    client = admin(settings)
    asked = client.create_topics([NewTopic(topics.orders, 3, 1, config=own)])
    asked[topics.orders].result(30)
    ensure_topics(settings, live=True)
    report = {one.name: one for one in ensure_topics(settings, live=True)}[topics.orders]
    assert (report.state, report.problems) == ("exists", ())
    assert [text.partition(":")[0] for text in report.warnings] == [
        "partitions",
        "message.timestamp.type",
    ]
    with running(settings):
        send(settings, [order(n) for n in range(3)])
        wait_for(lambda: books(settings).get("applied") == 3)
        client.create_partitions([NewPartitions(topics.orders, 4)])[topics.orders].result(30)
        # The broker answers before it says so to others.
        described = partial(client.list_topics, topics.orders)
        wait_for(lambda: len(described().topics[topics.orders].partitions) == 4)
        send(settings, [order(n) for n in range(3, 8)], partition=3)
        wait_for(lambda: books(settings, 3).get("applied") == 5, timeout_s=60.0)
    assert books(settings, 3) == booked(applied=5)


def test_a_schema_registry_that_is_away_is_waited_for_and_nothing_is_refused(
    mock_broker: str, redis_server: str, request: pytest.FixtureRequest
) -> None:
    fields = [{"name": name, "type": "string"} for name in ("event_id", "sku", "region")]
    fields += [{"name": name, "type": "long"} for name in ("event_time", "quantity", "unit_price")]
    schema = {"type": "record", "name": "Order", "fields": fields}
    # "e1", "a", "n", 1,000 ms, 2 pieces, at 3.
    value = b"\0\0\0\0\x07" + bytes.fromhex("04 6531 02 61 02 6e d00f 04 06")
    with serving(FakeRegistry()) as registry:
        registry.add(7, "AVRO", json.dumps(schema))
        registry.status = 503
        over = {
            "FRESHET_EVENTS__ORDERS__FORMAT": "avro",
            "FRESHET_KAFKA__REGISTRY__URL": registry.url,
        }
        settings = settings_for(mock_broker, redis_server, request.node.name, **over)
        ensure_topics(settings, live=False)
        send(settings, [value])
        with running(settings) as ingest:
            wait_for(lambda: "Schema Registry" in (ingest.ready() or ""))
            wait_for(lambda: len(registry.asked) > 1)
            assert not books(settings).get("read")
            registry.status = 200
            wait_for(lambda: books(settings).get("applied") == 1)
            wait_for(lambda: ingest.ready() is None)
        assert books(settings) == booked(applied=1)
        assert verify(settings).agrees


def test_a_catalogue_of_the_shops_own_is_kept_in_our_words_and_verify_reads_it_alike(
    mock_broker: str, redis_server: str, request: pytest.FixtureRequest
) -> None:
    over = {
        "FRESHET_EVENTS__CATALOG__FIELDS": '{"sku": "id", "unit_price": "price"}',
        "FRESHET_EVENTS__CATALOG__SKIP_WHEN": '{"draft": true}',
    }
    settings = settings_for(mock_broker, redis_server, request.node.name, **over)
    ensure_topics(settings, live=False)
    send(settings, [order(1)])
    items: list[dict[str, object]] = [
        {"id": 7, "price": "12.50"},
        {"id": 8, "draft": True},
        {"id": 9, "price": "dear"},
    ]
    with Publisher(settings) as publisher:
        for item in items:
            key, value = str(item["id"]).encode(), json.dumps(item).encode()
            publisher.produce(settings.kafka.topics.catalog, value, key=key, partition=0)
        publisher.flush()
    run(settings, until_end=True)
    shop = ShopTables.of(settings)
    ShopFeed(connect(settings.redis), settings, shop).read_to_end()
    assert shop.entry("7") == CatalogEntry(sku="7", unit_price=12.5)
    assert shop.skus() == ["7"]
    (letter,) = read(settings, dead_letter_topic(settings.kafka.topics.catalog))
    assert letter.key == b"9"
    report = verify(settings)
    assert report.agrees, report.as_text()
    assert sum(part.records for part in report.tables) == 2, "what is skipped is not compared"


def test_a_broker_that_dropped_unread_records_stops_the_process_and_says_so(
    settings: Settings,
) -> None:
    """The embedded broker keeps about 5 MB a partition and says nothing when it drops more."""
    ensure_topics(settings, live=False)
    send(settings, [order(1)])
    run(settings, until_end=True)
    send(settings, [random.Random(number).randbytes(200_000) for number in range(40)])
    with pytest.raises(LogLostError, match="end at offset 1, and the log holds"):
        run(settings, until_end=True)


def test_windows_folded_under_other_settings_stop_the_process(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(1)])
    run(settings, until_end=True)
    windows = settings.windows.model_copy(update={"out_of_order_ms": 1})
    with pytest.raises(FingerprintError, match="out_of_order_ms"):
        run(settings.model_copy(update={"windows": windows}))


def test_two_processes_share_the_partitions_and_hand_them_over(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    for partition in range(4):
        send(settings, [order(n) for n in range(50)], partition=partition)
    half = 2 * (2 + len(SHOP_TABLES))
    with running(settings) as first:
        wait_for(lambda: all(books(settings, p).get("applied") == 50 for p in range(4)))
        with running(settings) as second:
            wait_for(
                lambda: (
                    len(second.parts.assignment.owned) == half
                    and len(first.parts.assignment.owned) == half
                )
            )
            for partition in range(4):
                send(settings, [order(n) for n in range(50, 90)], partition=partition)
            wait_for(lambda: all(books(settings, p).get("applied") == 90 for p in range(4)))
        wait_for(lambda: len(first.parts.assignment.owned) == 2 * half)
        send(settings, [order(n) for n in range(90, 95)], partition=1)
        wait_for(lambda: books(settings, 1).get("applied") == 95)
        assert (
            first.parts.metrics.fenced._value.get() == second.parts.metrics.fenced._value.get() == 0
        )
    assert [books(settings, p)["read"] for p in range(4)] == [90, 95, 90, 90]


def test_a_redriven_record_is_counted_once_however_often_it_is_sent(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    topic = settings.kafka.topics.orders
    mapped = settings.events.model_copy(update={"orders_fields": {"quantity": "amount"}})
    odd = json.loads(order(7)) | {"amount": 3}
    del odd["quantity"]
    send(
        settings,
        [order(1), json.dumps(odd).encode(), order(8, event_time_ms=START_MS - 10**7), order(9)],
        partition=2,
    )
    run(settings, until_end=True)
    assert books(settings, 2) == booked(applied=2, late_dropped=1, dead_letter=1)
    frontier_ms = store_of(settings).header(topic, 2).frontier_ms
    assert redrive(settings, DeadLetterFilter(late=True)).sent == 1
    assert redrive(settings, DeadLetterFilter(late=True), from_start=True).sent == 1
    assert redrive(settings, DeadLetterFilter(error="MissingField")).sent == 1
    run(settings, until_end=True)
    header = store_of(settings).header(topic, 2)
    assert (header.applied, header.duplicate, header.dead_letter, header.frontier_ms) == (
        3,
        1,
        2,
        frontier_ms,
    )
    assert verify(settings).agrees
    letters = list_dead_letters(settings)
    assert [letter.redriven for letter in letters] == [False, True]
    # What could not be read is redriven once the field map is mended, in a generation of its own.
    mended = settings.model_copy(update={"events": mapped})
    assert letters[1].place == f"{topic}-2-6"
    run(mended, until_end=True, into=1)
    assert verify(mended).generation == 1


# A person decides ---------------------------------------------------------------------------------


def test_too_many_dead_letters_pause_it_before_any_is_published_until_a_person_says_go_on(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    send(settings, [b"broken"] * 1_500)
    letters = dead_letter_topic(settings.kafka.topics.orders)
    with running(settings) as ingest:
        # Of as many as the first looks at the log brought.
        wait_for(lambda: re.search(r"\b(1\d{3}) of \1 records", ingest.ready() or ""))
        wait_for(lambda: [alert.data.state for alert in alerts_of(settings)] == ["firing"])
        assert read(settings, letters) == []
        assert not books(settings).get("read")
        ingest.lift_guard()
        wait_for(lambda: books(settings).get("dead_letter") == 1_500)
        wait_for(lambda: ingest.ready() is None)
    assert len(read(settings, letters)) == 1_500
    firing, resolved = alerts_of(settings)
    assert (resolved.data.state, resolved.subject) == ("resolved", firing.subject)
    assert firing.data.severity == "critical" and "SIGHUP" in firing.data.description


def alerts_of(settings: Settings) -> list[Alert]:
    return [
        decode(Alert, record.value or b"")
        for record in read(settings, settings.kafka.topics.alerts)
    ]


def test_sigterm_finishes_the_batch_and_exits_with_0(mock_broker: str, redis_server: str) -> None:
    environ = environ_for(
        mock_broker, redis_server, "sigterm", FRESHET_INGEST__BATCH_MAX_RECORDS="50"
    )
    settings = load(environ=environ).settings
    ensure_topics(settings, live=False)
    send(settings, [order(n) for n in range(5_000)])
    code = (
        "from freshet.stream.config import load; from freshet.stream.ingest.process import "
        "run; run(load().settings)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        wait_for(lambda: books(settings).get("read"))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output.decode()
    half = books(settings)["read"]
    run(settings, until_end=True)
    assert books(settings) == booked(applied=5_000)
    assert half > 0


# Wrong from the start -----------------------------------------------------------------------------


def test_a_missing_broker_is_one_clear_error(redis_server: str) -> None:
    with pytest.raises(
        BrokerError,
        match=r"no Kafka broker answers at 127.0.0.1:1 .*FRESHET_KAFKA__BOOTSTRAP_SERVERS",
    ):
        run(
            settings_for(
                "127.0.0.1:1", redis_server, "nobody", FRESHET_KAFKA__REQUEST_TIMEOUT_MS="500"
            )
        )


def test_missing_topics_are_one_clear_error(kafka_broker: str, redis_server: str) -> None:
    with pytest.raises(BrokerError, match=r"has no topic .*freshet topics create"):
        run(settings_for(kafka_broker, redis_server, "no_topics"))


def test_a_redis_that_evicts_is_refused(settings: Settings) -> None:
    client = connect(settings.redis)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreUnfitError, match="allkeys-lru"):
            run(settings)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
