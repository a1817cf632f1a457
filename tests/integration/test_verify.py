"""Verify and export on a real Redis and a broker that speaks Kafka's protocol: records in, fold,
recount, rows out.
"""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis
from confluent_kafka import Producer

from freshet.stream.config import CalendarSettings, Resolution, Settings, WindowSettings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.read.export import export
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from freshet.stream.verify.verify import verify

T0 = 1_700_000_000_000 // HOUR_MS * HOUR_MS
RESOLUTIONS = (
    Resolution(resolution_ms=MINUTE_MS, buckets=100),
    Resolution(resolution_ms=HOUR_MS, buckets=500),
)

Record = tuple[bytes | None, int]


@pytest.fixture
def settings(redis_server: str, mock_broker: str, request: pytest.FixtureRequest) -> Settings:
    """Topics of its own for each test, since the broker outlives it."""
    name = f"{request.node.name}.{random.getrandbits(32):x}".replace("[", ".").replace("]", "")
    topics = {"orders": f"{name}.orders", "clicks": f"{name}.clicks"}
    windows = WindowSettings(
        resolutions=RESOLUTIONS, allowed_lateness_ms=2 * HOUR_MS, max_future_ms=MINUTE_MS
    )
    return Settings(
        kafka={"bootstrap_servers": mock_broker, "topics": topics},  # type: ignore[arg-type]
        redis={"url": redis_server},  # type: ignore[arg-type]
        windows=windows,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    client = connect(settings.redis)
    yield client
    client.close()


def order(event_id: str, time_ms: int, **over: Any) -> Record:
    fields = {
        "event_id": event_id,
        "event_time": time_ms,
        "sku": "a",
        "region": "n",
        "quantity": 2,
        "unit_price": 9.99,
    }
    return json.dumps({**fields, **over}).encode(), time_ms


def messy(seed: int, num_records: int, kind: str) -> list[Record]:
    """A log with sales, returns, whole orders, duplicates, late and future events, and broken
    bytes.
    """
    draw, records, now_ms = random.Random(seed), [], T0
    for n in range(num_records):
        now_ms += draw.randrange(120_000)
        event_ms = now_ms - draw.randrange(2) * draw.randrange(4 * HOUR_MS)
        value, _ = order(str(n), event_ms, sku=f"s{draw.randrange(40)}")
        event = json.loads(value or b"") | {
            "quantity": draw.choice([1, 2.5, -1]),
            "unit_price": draw.random() * 50,
        }
        if kind == "clicks":
            event = {**event, "kind": draw.choice(["view", "view", "cart", "checkout"])}
        luck = draw.random()
        if luck < 0.05:
            event["event_id"] = str(draw.randrange(n + 1))
        elif luck < 0.08:
            event["event_time"] = now_ms + 10 * HOUR_MS
        elif luck < 0.11:
            event["event_time"] = now_ms - 9 * HOUR_MS
        elif luck < 0.14:
            event["sku"] = 5
        elif luck < 0.3 and kind == "orders":
            event["lines"] = [
                {"sku": f"s{m}", "quantity": m, "unit_price": 1.5} for m in range(1, 4)
            ]
        records.append((None if luck > 0.99 else json.dumps(event).encode(), now_ms))
    return records


class Pipe:
    """Sends records to one partition and folds them as ingest would, in batches of uneven size."""

    def __init__(self, settings: Settings, client: redis.Redis, kind: str, partition: int) -> None:
        self.settings, self.kind, self.partition = settings, kind, partition
        self.topic = getattr(settings.kafka.topics, kind)
        self._producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
        store = WindowStore(client, settings.redis.generation)
        self.windows = PartitionWindows.claim(store, kind, self.topic, partition, settings)  # type: ignore[arg-type]
        self.windows.start_at(0)

    def send(self, records: list[Record]) -> None:
        for value, timestamp_ms in records:
            self._producer.produce(
                self.topic, value, partition=self.partition, timestamp=timestamp_ms
            )
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def fold(self, records: list[Record], batch_records: int = 37) -> None:
        for start in range(0, len(records), batch_records):
            batch = records[start : start + batch_records]
            first = self.windows.next_offset
            values, stamps = zip(*batch, strict=True)
            raw = RawBatch(
                values,
                [None] * len(batch),
                np.array(stamps, np.int64),
                np.arange(first, first + len(batch), dtype=np.int64),
                first + len(batch),
            )
            assert self.windows.apply(self.windows.fold(raw)) is Answer.APPLIED


@pytest.fixture
def pipe(settings: Settings, client: redis.Redis) -> Callable[[str, int], Pipe]:
    return lambda kind, partition: Pipe(settings, client, kind, partition)


def test_a_messy_log_and_its_windows_agree(
    settings: Settings, pipe: Callable[[str, int], Pipe]
) -> None:
    for kind, partition in (("orders", 0), ("orders", 2), ("clicks", 1)):
        records = messy(partition, 600, kind)
        at = pipe(kind, partition)
        at.send(records)
        at.fold(records)
    report = verify(settings)
    assert report.agrees, report.as_text()
    found = report.as_dict()
    assert found["records"] == 1_800 and found["cells"] > 2_000 and len(found["partitions"]) == 3
    assert all(part.next_offset == 600 for part in report.partitions)
    header = WindowStore(connect(settings.redis), 0).header(settings.kafka.topics.orders, 0)
    assert header is not None and min(header.duplicate, header.late_dropped, header.dead_letter) > 5


def test_days_of_the_shops_own_calendar_agree(
    settings: Settings, client: redis.Redis, tmp_path: Path
) -> None:
    resolutions = (
        Resolution(resolution_ms=DAY_MS, buckets=30),
        Resolution(resolution_ms=HOUR_MS, buckets=500),
    )
    windows = settings.windows.model_copy(update={"resolutions": resolutions})
    calendar = CalendarSettings(time_zone="Australia/Lord_Howe")
    settings = settings.model_copy(update={"windows": windows, "calendar": calendar})
    # The first day is half-known, and so left out of the export.
    records = [*messy(3, 300, "orders"), order("two days on", T0 + 2 * DAY_MS)]
    at = Pipe(settings, client, "orders", 0)
    at.send(records)
    at.fold(records)
    report = verify(settings)
    assert report.agrees and report.as_dict()["cells"] > 300, report.as_text()
    export(settings, resolution_ms=DAY_MS, output=tmp_path / "days", include_open=True)
    starts = {
        json.loads(line)["bucket_start_ms"]
        for line in (tmp_path / "days").read_text("utf-8").splitlines()
    }
    zone = ZoneInfo("Australia/Lord_Howe")
    assert starts and all(
        datetime.fromtimestamp(ms / 1_000, zone).strftime("%H:%M:%S") == "00:00:00" for ms in starts
    )


def test_records_after_the_stored_offset_are_not_yet_expected(
    settings: Settings, pipe: Callable[[str, int], Pipe]
) -> None:
    records, at = messy(7, 200, "orders"), pipe("orders", 0)
    at.send(records)
    at.fold(records[:150])
    report = verify(settings)
    assert report.agrees and report.partitions[0].records == 150, report.as_text()


def test_one_altered_tile_is_found(
    settings: Settings, client: redis.Redis, pipe: Callable[[str, int], Pipe]
) -> None:
    records, at = [order("1", T0), order("2", T0 + HOUR_MS, sku="b")], pipe("orders", 0)
    at.send(records)
    at.fold(records)
    keys = WindowStore(client, 0).keys(at.topic, 0)
    bucket = T0 // HOUR_MS
    client.set(keys.tile(HOUR_MS, bucket, 0), client.get(keys.tile(HOUR_MS, bucket + 1, 0)))  # type: ignore[arg-type]
    client.hincrby(keys.header, "applied", 1)
    report = verify(settings)
    assert not report.agrees
    shown = {(d.item_id, d.what, d.stored, d.recounted, d.bucket_start_ms) for d in report.shown}
    assert ("a|n", "units", 0, 2_000, T0) in shown and ("b|n", "units", 2_000, 0, T0) in shown
    assert (None, "applied", 3, 2, None) in shown
    assert "is stored as 0, recounted as 2000" in report.as_text()


def test_a_log_whose_beginning_is_gone_is_said_so(
    settings: Settings, pipe: Callable[[str, int], Pipe]
) -> None:
    at = pipe("orders", 0)
    # The broker in memory keeps about 5 MB a partition.
    records = [order(str(n), T0, note="x" * 400_000) for n in range(40)]
    at.send(records)
    at.fold(records)
    report = verify(settings)
    assert not report.agrees and not report.differences
    (missing,) = report.log_missing
    assert missing.startswith(f"{at.topic}:0: the log starts at ") and missing.endswith(
        "the state needs 0"
    )
    assert "the log is gone" in report.as_text()


def test_a_log_that_ends_before_the_state_is_said_so(
    settings: Settings, pipe: Callable[[str, int], Pipe]
) -> None:
    at = pipe("orders", 0)
    at.send([order("1", T0)])
    at.fold([order("1", T0), order("2", T0)])
    assert verify(settings).log_missing == [f"{at.topic}:0: the log ends at 1, the state needs 2"]


def test_without_windows_nothing_is_called_right(settings: Settings) -> None:
    report = verify(settings)
    assert not report.agrees and "there are no windows under generation 0" in report.as_text()


# Export -------------------------------------------------------------------------------------------


def naive(
    logs: list[tuple[str, list[Record]]], closed_ms: int
) -> dict[tuple[str, int], dict[str, float]]:
    """Rows of good, distinct, on-time records, in the order of item and bucket."""
    rows: dict[tuple[str, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for kind, records in logs:
        for value, _ in records:
            assert value is not None
            event = json.loads(value)
            row = rows[
                f"{event['sku']}|{event['region']}", event["event_time"] // HOUR_MS * HOUR_MS
            ]
            if kind == "clicks":
                row["views"] += 1
            else:
                row["units"] += event["quantity"]
                row["revenue"] += round(event["quantity"] * event["unit_price"], 4)
                row["orders"] += 1
    return {key: rows[key] for key in sorted(rows) if key[1] + HOUR_MS <= closed_ms}


def tidy(seed: int, kind: str, hours: float) -> list[Record]:
    draw, step = random.Random(seed), round(hours * HOUR_MS / 300)
    over = {"kind": "view"} if kind == "clicks" else {}
    return [
        order(
            f"{kind}{seed}-{n}",
            T0 + n * step,
            sku=draw.choice(["b", "a", 'q"|,']).replace("|", "/"),
            **over,
        )
        for n in range(301)
    ]


@pytest.fixture
def logs(settings: Settings, pipe: Callable[[str, int], Pipe]) -> list[tuple[str, list[Record]]]:
    """Two partitions of orders and one of clicks; the clicks are six hours behind."""
    made = []
    for kind, partition, hours in (("orders", 0, 20.0), ("orders", 1, 20.0), ("clicks", 3, 14.0)):
        records = tidy(partition, kind, hours)
        pipe(kind, partition).fold(records)
        made.append((kind, records))
    return made


def test_export_writes_the_closed_windows_of_all_partitions_sorted(
    settings: Settings, logs: list[tuple[str, list[Record]]], tmp_path: Path
) -> None:
    output = tmp_path / "windows.jsonl"
    count = export(settings, resolution_ms=HOUR_MS, output=output)
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    expected = naive(logs, closed_ms=T0 + 14 * HOUR_MS - 5_000)
    assert count == len(rows) == len(expected)
    assert [(row["item_id"], row["bucket_start_ms"]) for row in rows] == list(expected)
    for row, want in zip(rows, expected.values(), strict=True):
        assert {name: row[name] for name in want} == pytest.approx(dict(want))


def test_export_can_add_open_windows_and_cut_out_an_item_and_a_span(
    settings: Settings, logs: list[tuple[str, list[Record]]], tmp_path: Path
) -> None:
    output = tmp_path / "windows.csv"
    span = {"start": T0 + HOUR_MS, "end": T0 + 16 * HOUR_MS}
    export(
        settings,
        resolution_ms=HOUR_MS,
        item_id="a|n",
        format="csv",
        include_open=True,
        output=output,
        **span,
    )  # type: ignore[arg-type]
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {key: row for key, row in naive(logs, closed_ms=2**62).items() if key[0] == "a|n"}
    expected = {key: row for key, row in expected.items() if span["start"] <= key[1] < span["end"]}
    assert [int(row["bucket_start_ms"]) for row in rows] == [at for _, at in expected]
    assert [float(row["units"]) for row in rows] == [row["units"] for row in expected.values()]
    assert [row["closed"] for row in rows] == [
        "true" if at < T0 + 13 * HOUR_MS else "false" for _, at in expected
    ]


def test_export_in_small_groups_of_items_writes_the_same_rows(
    settings: Settings,
    logs: list[tuple[str, list[Record]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export(settings, resolution_ms=HOUR_MS, format="parquet", output=tmp_path / "one.parquet")
    monkeypatch.setattr("freshet.stream.read.export.MAX_GROUP_CELLS", 1)
    export(settings, resolution_ms=HOUR_MS, format="parquet", output=tmp_path / "many.parquet")
    one, many = (pq.read_table(tmp_path / name) for name in ("one.parquet", "many.parquet"))
    assert one.equals(many) and one.num_rows == len(
        naive(logs, closed_ms=T0 + 14 * HOUR_MS - 5_000)
    )


def test_export_leaves_out_what_is_no_longer_retained_by_every_partition(
    settings: Settings, pipe: Callable[[str, int], Pipe], tmp_path: Path
) -> None:
    for partition, hours in ((0, 0), (1, 3)):
        pipe("orders", partition).fold(
            [order(str(n), T0 + hours * HOUR_MS + n * MINUTE_MS) for n in range(61)]
        )
    export(settings, resolution_ms=MINUTE_MS, output=tmp_path / "out", include_open=True)
    starts = [
        json.loads(line)["bucket_start_ms"]
        for line in (tmp_path / "out").read_text("utf-8").splitlines()
    ]
    assert starts == [T0 + 3 * HOUR_MS + n * MINUTE_MS for n in range(61)]


def test_export_of_an_empty_store_or_an_unknown_item_is_an_empty_file(
    settings: Settings, pipe: Callable[[str, int], Pipe], tmp_path: Path
) -> None:
    assert export(settings, resolution_ms=HOUR_MS, output=tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b""
    pipe("orders", 0).fold([order("1", T0), order("2", T0 + 2 * HOUR_MS)])
    assert export(settings, resolution_ms=HOUR_MS, item_id="nobody", output=tmp_path / "out") == 0
    assert export(settings, resolution_ms=HOUR_MS, output=tmp_path / "out") == 1
