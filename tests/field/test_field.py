"""Records as shops send them: each folder holds a shop's records, its settings, and what is right.

`records.jsonl` has one record a line, in log order: `value` (text), `json` or `base64`, and
optionally `topic` (orders), `key`, `headers`, `timestamp`. `freshet.toml` are the shop's settings,
`registry.json` schemas by id, if there is a registry. `expected.json` says by topic the books and
the days' windows by item, counted by hand; both the fold and the recount must come to that.
"""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freshet.stream.codec import rfc3339, time_ms
from freshet.stream.config import Settings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.units import DAY_MS
from freshet.stream.verify.recount import Recount
from tests.stream.events.formats.fake_registry import FakeRegistry, serving
from tests.stream.fold.windows_checks import MemoryStore, stored_state

HERE = Path(__file__).parent
SHOPS = sorted(path.parent.name for path in HERE.glob("*/records.jsonl"))
SCALES = {"units": 1_000, "returns": 1_000, "revenue": 10_000}
USUAL = "2026-03-02T00:00:00Z"


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shop's folder and settings; its schema files are named from there."""
    folder = HERE / request.param
    monkeypatch.chdir(folder)
    said = tomllib.loads((folder / "freshet.toml").read_text("utf-8"))
    with ExitStack() as stack:
        if (folder / "registry.json").exists():
            registry = stack.enter_context(serving(FakeRegistry()))
            for number, schema in json.loads((folder / "registry.json").read_text()).items():
                raw = base64.b64decode(schema.get("file", ""))
                text = json.dumps(schema.get("schema", ""))
                registry.add(int(number), schema["type"], text, serialized=raw)
            said.setdefault("kafka", {})["registry"] = {"url": registry.url}
        yield folder, Settings.model_validate(said)


def records_of(folder: Path, topic: str) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [one for one in records if one.get("topic", "orders") == topic]


def value_of(record: dict[str, Any]) -> bytes | None:
    if "base64" in record:
        return base64.b64decode(record["base64"])
    if "json" in record:
        return json.dumps(record["json"]).encode()
    return None if record["value"] is None else str(record["value"]).encode()


def key_of(record: dict[str, Any]) -> bytes | None:
    key = record.get("key")
    if key is None:
        return None
    return key.encode() if isinstance(key, str) else json.dumps(key).encode()


def headers_of(record: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode()) for name, value in record.get("headers", {}).items()]


def stamp_of(record: dict[str, Any]) -> int:
    return time_ms(record.get("timestamp", USUAL))


def said_of(books: dict[str, int], cells: dict[tuple[int, str, str], int]) -> dict[str, Any]:
    """Books and days as expected.json has them."""
    days: dict[str, dict[str, dict[str, float]]] = {}
    for (day, item_id, channel), amount in cells.items():
        date = rfc3339(day * DAY_MS)[:10]
        amounts = days.setdefault(date, {}).setdefault(item_id, {})
        amounts[channel] = amount / SCALES.get(channel, 1)
    return {"books": {name: count for name, count in books.items() if count}, "days": days}


def folded(settings: Settings, kind: Any, records: list[dict[str, Any]]) -> dict[str, Any]:
    store: Any = MemoryStore()
    topic = getattr(settings.kafka.topics, kind)
    windows = PartitionWindows.claim(store, kind, topic, 0, settings)
    windows.start_at(0)
    batch = RawBatch(
        values=list(map(value_of, records)),
        keys=list(map(key_of, records)),
        timestamps_ms=np.array(list(map(stamp_of, records)), np.int64),
        offsets=np.arange(len(records)),
        next_offset=len(records),
        headers={n: headers_of(one) for n, one in enumerate(records) if "headers" in one},
    )
    windows.apply(windows.fold(batch))
    state = stored_state(store, store, topic, settings)
    books = {name: state["header"][name] for name in BOOKS}
    cells = {cell[1:]: amount for cell, amount in state["sums"].items() if cell[0] == DAY_MS}
    return said_of(books, cells)


BOOKS = (
    *("read", "applied", "duplicate", "late_dropped", "dead_letter", "skipped"),
    *("lines_dead", "conflicting"),
)


def recounted(settings: Settings, kind: Any, records: list[dict[str, Any]]) -> dict[str, Any]:
    recount = Recount(kind, settings)
    for one in records:
        recount.take(key_of(one), value_of(one), stamp_of(one), headers=headers_of(one))
    return said_of(dict(recount.books), recount.cells(DAY_MS))


def test_a_shops_records_come_to_what_they_say(shop: tuple[Path, Settings]) -> None:
    folder, settings = shop
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    for kind in expected:
        records = records_of(folder, kind)
        assert recounted(settings, kind, records) == expected[kind], f"the recount of {kind}"
        assert folded(settings, kind, records) == expected[kind], f"the fold of {kind}"


def test_there_are_shops_and_all_their_topics_are_expected() -> None:
    assert SHOPS
    for name in SHOPS:
        lines = (HERE / name / "records.jsonl").read_text("utf-8").splitlines()
        topics = {json.loads(line).get("topic", "orders") for line in lines}
        assert topics == set(json.loads((HERE / name / "expected.json").read_text("utf-8")))
    assert datetime.fromtimestamp(time_ms(USUAL) / 1_000, UTC).day == 2
