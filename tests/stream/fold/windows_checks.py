"""What the tests of the write side share: a naive reference, a store in memory, generated logs, and
one driver.

The driver runs the same on the store in memory and on a real Redis.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import redis
import xxhash
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.errors import FingerprintError, StoreError
from freshet.stream.fold.batches import Fold, RawBatch
from freshet.stream.fold.partition import PartitionWindows, TopicFacts
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Answer, Header, Keys, Update
from freshet.stream.store.tiles import CHANNELS, CHUNK_ITEMS, decode
from freshet.stream.units import DAY_MS

START_MS = 1_700_000_000_000
LONG_AGO_MS = -(10**18)
ENTRY = np.dtype([("hash", "<u8"), ("content", "<u4")])
BOOKS = (
    *("read", "applied", "duplicate", "late_dropped", "dead_letter"),
    *("skipped", "lines_dead", "conflicting"),
)
TIMES = ("frontier_ms", "origin_ms", "first_event_ms", "last_event_ms")
LOADS = [b"2024", b"b"]
REDRIVES = [b"orders-0-1", b"orders-0-2", b"orders-1-7"]
TOPICS = {"orders": "freshet.orders.v1", "clicks": "freshet.clicks.v1"}


def small_settings(**windows: Any) -> Settings:
    """Windows so small that everything leaves, is late or is a duplicate within a few records."""
    sizes = [{"resolution_ms": 1_000, "buckets": 5}, {"resolution_ms": 60_000, "buckets": 2}]
    values = {
        "out_of_order_ms": 2_000,
        "allowed_lateness_ms": 5_000,
        "max_future_ms": 30_000,
        "max_step_ms": 40_000,
        "max_ahead_ms": 600_000,
        "resolutions": sizes,
    }
    return Settings(
        windows=values | windows, worker={"resolution_ms": 60_000}, ingest={"max_cached_tiles": 3}
    )


@dataclass(frozen=True)
class LogRecord:
    value: bytes | None
    timestamp_ms: int
    key: bytes | None = None
    redrive: bytes | None = None
    history: bytes | None = None


class NaiveFrontier:
    """The rule of topics whose producers stamp records, event by event, from all that counted."""

    def __init__(self, settings: Settings) -> None:
        self.windows = settings.windows
        self.counted: list[int] = []
        self.row: list[int] = []
        self.doubted_ms: int | None = None

    @property
    def frontier_ms(self) -> int | None:
        rank = self.windows.frontier_rank
        ranked = sorted(self.counted)[-rank:]
        return ranked[0] if len(ranked) == rank else None

    def too_far(self, time_ms: int) -> bool:
        before_ms = self.frontier_ms
        if before_ms is None or before_ms == self.windows.history_before:
            return False
        return time_ms > before_ms + self.windows.max_ahead_ms

    def count(self, time_ms: int) -> None:
        before_ms = self.frontier_ms
        if before_ms is None or time_ms <= before_ms + self.windows.max_step_ms:
            if self.row:
                self.doubted_ms = before_ms
            self.row = []
            self.counted = sorted([*self.counted, time_ms])[-self.windows.frontier_rank :]
            return
        self.row.append(time_ms)
        # (events, share of a step that they span): either wakes the shop up.
        enough = [(20, 1)]
        if self.doubted_ms is None or before_ms - self.doubted_ms >= self.windows.max_ahead_ms:
            enough = [(20, 6), (5, 2)]
        span_ms, step_ms = max(self.row) - min(self.row), self.windows.max_step_ms
        if any(len(self.row) >= least and span_ms >= step_ms // part for least, part in enough):
            self.counted = [min(self.row)] * self.windows.frontier_rank
            self.row = []


class NaiveWindows:
    """The rules, record by record, in plain Python; knows events only as `log_records` makes
    them.
    """

    def __init__(self, kind: str, settings: Settings, timestamp_type: str = "") -> None:
        self.kind, self.settings = kind, settings
        self.ranked = NaiveFrontier(settings) if timestamp_type == "CreateTime" else None
        self.frontier_ms: int | None = None
        self.first_event_ms: int | None = None
        self.items: list[str] = []
        self.applied: list[tuple[str, int, object]] = []
        self.sums: dict[tuple[int, int, str, str], int] = {}
        self.books = dict.fromkeys(BOOKS, 0)
        self.verdicts: list[str] = []
        self.origin_ms: int | None = None
        self.last_event_ms: int | None = None
        self.redrives: set[bytes] = set()
        self.loads: dict[bytes, int] = {}
        self.history_complete = 0
        if settings.windows.history_before is not None:
            self._begin(settings.windows.history_before)

    def _begin(self, time_ms: int) -> None:
        self.frontier_ms = self.origin_ms = time_ms
        if self.ranked is not None:
            self.ranked.counted = [time_ms] * self.settings.windows.frontier_rank

    def feed(self, record: LogRecord) -> None:
        verdict = self._settled(record) or self._judge(record)
        self.verdicts.append(verdict)
        self.books["read"] += 1
        self.books[verdict] += 1

    def _settled(self, record: LogRecord) -> str | None:
        """What a header of history alone decides, as far as `log_records` makes them."""
        if record.history is None:
            return None
        load, _, said = record.history.partition(b":")
        if not load or not (said.isdigit() or said == b"complete"):
            return "dead_letter"
        if said == b"complete":
            self.history_complete = 1
            return "skipped"
        if record.redrive is not None:
            return None
        if int(said) <= self.loads.get(load, -1):
            return "duplicate"
        self.loads[load] = int(said)
        return None

    def watermark_ms(self) -> int | None:
        return (
            None
            if self.frontier_ms is None
            else self.frontier_ms - self.settings.windows.out_of_order_ms
        )

    def _judge(self, record: LogRecord) -> str:
        windows = self.settings.windows
        try:
            event = json.loads(record.value.decode())
            good = [line for line in event.get("lines", [event]) if self._good(event, line)]
            lines = [self._line(event, line) for line in good]
            time_ms, event_id = event["event_time"], event["event_id"]
            assert lines and isinstance(event_id, str) and isinstance(time_ms, int)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            return "dead_letter"
        before_ms = self.watermark_ms()
        out_of_time = self._out_of_time(record, time_ms)
        if out_of_time is not None:
            return out_of_time
        if record.redrive is not None:
            if record.redrive in self.redrives:
                return "duplicate"
            self.redrives.add(record.redrive)
        said = (time_ms, sorted(self._said(event, line) for line in good))
        for other_id, other_ms, other_said in self.applied:
            minute_end_ms = (other_ms // 60_000 + 1) * 60_000
            expired = (
                before_ms is not None and minute_end_ms + windows.allowed_lateness_ms <= before_ms
            )
            if other_id == event_id and not expired:
                self.books["conflicting"] += other_said != said
                return "duplicate"
        if not self._take_in(item for item, _ in lines):
            return "dead_letter"
        self.applied.append((event_id, time_ms, said))
        self.books["lines_dead"] += len(event.get("lines", [event])) - len(good)
        self._count(time_ms, lines, before_ms)
        return "applied"

    def _out_of_time(self, record: LogRecord, time_ms: int) -> str | None:
        """Why a record's time keeps it out; one that is not from the future moves the frontier."""
        windows, before_ms = self.settings.windows, self.watermark_ms()
        if record.history is not None:
            return None
        if time_ms > record.timestamp_ms + windows.max_future_ms:
            return "dead_letter"
        too_far = self.ranked is not None and self.ranked.too_far(time_ms)
        if record.redrive is None:
            self._move(time_ms)
        if too_far:
            return "dead_letter"
        if record.redrive is not None:
            return None
        late = before_ms is not None and time_ms + windows.allowed_lateness_ms < before_ms
        return "late_dropped" if late else None

    def _take_in(self, items: Iterable[str]) -> bool:
        """Whether the dictionary has room for new items; if so, they are in it."""
        fresh = dict.fromkeys(item for item in items if item not in self.items)
        if len(self.items) + len(fresh) > self.settings.windows.max_items_per_partition:
            return False
        self.items += fresh
        return True

    def _count(
        self,
        time_ms: int,
        lines: Iterable[tuple[str, Mapping[str, int]]],
        before_ms: int | None,
    ) -> None:
        """Add what an applied record adds, at its time."""
        self.first_event_ms = min(time_ms, self.first_event_ms or time_ms)
        self.last_event_ms = max(time_ms, self.last_event_ms or time_ms)
        for item, additions in lines:
            self._add(item, time_ms, additions, before_ms)

    def _move(self, time_ms: int) -> None:
        if self.ranked is not None:
            self.ranked.count(time_ms)
            self.frontier_ms = self.ranked.frontier_ms
        else:
            self.frontier_ms = max(time_ms, self.frontier_ms or time_ms)
        self.origin_ms = self.frontier_ms if self.origin_ms is None else self.origin_ms

    def _add(
        self, item: str, time_ms: int, additions: Mapping[str, int], before_ms: int | None
    ) -> None:
        for resolution in self.settings.windows.resolutions:
            width = resolution.resolution_ms
            bucket = self.bucket(width, time_ms)
            if (
                before_ms is None
                or self.end_ms(width, bucket) + resolution.buckets * width > before_ms
            ):
                for channel, value in additions.items():
                    cell = (width, bucket, item, channel)
                    self.sums[cell] = self.sums.get(cell, 0) + value

    def _good(self, event: dict[str, Any], line: dict[str, Any]) -> bool:
        try:
            self._line(event, line)
        except (KeyError, TypeError, AttributeError, AssertionError):
            return False
        return True

    def _line(self, event: dict[str, Any], line: dict[str, Any]) -> tuple[str, dict[str, int]]:
        region = line.get("region", event.get("region"))
        assert isinstance(line["sku"], str) and isinstance(region, str)
        item = "|".join(
            text.replace("\\", "\\\\").replace("|", "\\|") for text in (line["sku"], region)
        )
        if self.kind == "clicks":
            return item, {
                {"view": "views", "cart": "carts", "favourite": "favourites"}[event["kind"]]: 1
            }
        quantity, price = line["quantity"], line["unit_price"]
        q, p = round(quantity * 1_000), round(price * 10_000)
        assert quantity and price >= 0 and abs(q) * p < 2**62
        if quantity < 0:
            return item, {"returns": -q}
        return item, {"units": q, "revenue": (q * p + 500) // 1_000, "orders": 1}

    def _said(self, event: dict[str, Any], line: dict[str, Any]) -> tuple[object, ...]:
        """What a duplicate must say as well."""
        item, _ = self._line(event, line)
        if self.kind == "clicks":
            return item, event["kind"]
        return item, round(line["quantity"] * 1_000), round(line["unit_price"] * 10_000)

    def bucket(self, width: int, time_ms: int) -> int:
        zone = self.settings.calendar.time_zone
        if width != DAY_MS or zone == "UTC":
            return time_ms // width
        return (
            datetime.fromtimestamp(time_ms / 1_000, ZoneInfo(zone)).date() - date(1970, 1, 1)
        ).days

    def end_ms(self, width: int, bucket: int) -> int:
        zone = self.settings.calendar.time_zone
        if width != DAY_MS or zone == "UTC":
            return (bucket + 1) * width
        tomorrow = datetime(1970, 1, 1) + timedelta(days=bucket + 1)
        return round(tomorrow.replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000)

    def state(self) -> dict[str, Any]:
        """All that readers may rely on, in the shape of `stored_state`."""
        frontier_ms = self.watermark_ms()
        watermark_ms = LONG_AGO_MS if frontier_ms is None else frontier_ms
        lateness_ms = self.settings.windows.allowed_lateness_ms
        buckets = {r.resolution_ms: r.buckets for r in self.settings.windows.resolutions}
        minutes: dict[int, list[int]] = {}
        for event_id, time_ms, _ in self.applied:
            minute = time_ms // 60_000
            if (minute + 1) * 60_000 + lateness_ms > watermark_ms:
                minutes.setdefault(minute, []).append(xxhash.xxh3_64_intdigest(event_id.encode()))
        ends_ms = {c: self.end_ms(c[0], c[1]) + buckets[c[0]] * c[0] for c in self.sums}
        kept = {c: v for c, v in self.sums.items() if v and ends_ms[c] > watermark_ms}
        header = {name: getattr(self, name) for name in TIMES} | {"items": len(self.items)}
        state = {
            "header": header | self.books,
            "items": self.items,
            "minutes": minutes,
            "sums": kept,
            "orders": self.kept_orders(watermark_ms),
        }
        state["header"]["history_complete"] = self.history_complete
        return state | {"redrives": self.redrives, "loads": self.loads}

    def kept_orders(self, watermark_ms: int) -> dict[tuple[int, int], Any]:
        """States of orders, of which there are none where records are events."""
        return {}


class MemoryStore:
    """`WindowStore` without Redis: the same answers from one dictionary that can be copied and put
    back.
    """

    generation = 0

    def __init__(self) -> None:
        self.headers: dict[tuple[str, int], Header] = {}
        self.items: dict[tuple[str, int], list[str]] = {}
        self.strings: dict[str, bytes] = {}
        self.orders: dict[str, dict[bytes, bytes]] = {}
        self.redrives: dict[tuple[str, int], frozenset[bytes]] = {}
        self.loads: dict[tuple[str, int], dict[bytes, int]] = {}
        self.owners = 0
        self.writes = 0

    def keys(self, topic: str, partition: int) -> Keys:
        return Keys(self.generation, topic, partition)

    def claim(self, topic: str, partition: int, fingerprint: str, topic_id: str = "") -> Header:
        header = self.headers.get((topic, partition), Header())
        if header.next_offset is not None and header.fingerprint != fingerprint:
            raise FingerprintError("other settings")
        self.owners += 1
        header = replace(
            header, epoch=header.epoch + 1, owner=str(self.owners), fingerprint=fingerprint
        )
        self.headers[topic, partition] = header
        return header

    def redriven(self, topic: str, partition: int, names: Sequence[bytes]) -> set[bytes]:
        return self.redrives.get((topic, partition), frozenset()) & set(names)

    def loaded(self, topic: str, partition: int, loads: Sequence[bytes]) -> dict[bytes, int]:
        known = self.loads.get((topic, partition), {})
        return {load: known[load] for load in loads if load in known}

    def apply(self, update: Update) -> Answer:
        place = update.topic, update.partition
        header = self.headers.get(place, Header())
        answer = self._check(header, update.epoch, update.owner)
        if answer is not None:
            return answer
        if header.next_offset == update.next_offset:
            return Answer.ALREADY
        first = (
            header.next_offset is None and update.expected_offset == update.header["first_offset"]
        )
        if header.next_offset != update.expected_offset and not first:
            return Answer.GAP
        keys, items = self.keys(*place), self.items.setdefault(place, [])
        assert len(items) == update.items_before
        for append in update.minutes:
            before = self.strings.get(keys.minute(append.minute), b"")
            assert len(before) == append.num_bytes_before
            self.strings[keys.minute(append.minute)] = before + append.data
        for writes in update.tiles:
            for name, data in zip(writes.names, writes.data, strict=True):
                self.strings[keys.tile(writes.resolution_ms, *map(int, name.split(":")))] = data
        for writes in update.orders:
            before = self.orders.get(keys.orders(writes.day), {})
            states = dict(zip(writes.names, writes.data, strict=True))
            self.orders[keys.orders(writes.day)] = before | states
        self.items[place] = [*items, *update.new_items]
        self.redrives[place] = self.redrives.get(place, frozenset()) | set(update.redrives)
        self.loads[place] = {**self.loads.get(place, {}), **update.loaded}
        self.headers[place] = replace(header, **update.header, next_offset=update.next_offset)
        self.writes += 1
        return Answer.APPLIED

    def declare_idle(
        self, topic: str, partition: int, header: Header, idle_frontier_ms: int
    ) -> Answer:
        stored = self.headers.get((topic, partition), Header())
        answer = self._check(stored, header.epoch, header.owner)
        if answer is not None or stored.next_offset != header.next_offset:
            return answer or Answer.GAP
        idle_ms = max(idle_frontier_ms, stored.idle_frontier_ms or 0)
        self.headers[topic, partition] = replace(stored, idle_frontier_ms=idle_ms)
        return Answer.APPLIED

    def _check(self, stored: Header, epoch: int, owner: str) -> Answer | None:
        if stored.epoch > epoch or (stored.epoch == epoch and stored.owner != owner):
            return Answer.FENCED
        return Answer.GAP if stored.epoch < epoch else None

    def header(self, topic: str, partition: int) -> Header | None:
        return self.headers.get((topic, partition))

    def dictionary(self, topic: str, partition: int, items: int) -> list[str]:
        stored = self.items.get((topic, partition), [])
        if len(stored) < items:
            raise StoreError("the item dictionary is damaged")
        return stored[:items]

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.strings.get(key) for key in keys]

    def minutes(self, topic: str, partition: int) -> list[int]:
        prefix = self.keys(topic, partition).minute(0)[:-1]
        return sorted(int(k.removeprefix(prefix)) for k in self.strings if k.startswith(prefix))

    def read_fields(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        return [[self.orders.get(key, {}).get(name) for name in names] for key, names in asked]

    # What only tests need: copies of everything, and everything that is stored.

    def save(self) -> Any:
        parts = self.headers, self.items, self.strings, self.redrives, self.orders, self.loads
        return tuple(map(dict, parts))

    def restore(self, saved: Any) -> None:
        parts = map(dict, saved)
        self.headers, self.items, self.strings, self.redrives, self.orders, self.loads = parts

    def all_orders(self, keys: Keys) -> dict[str, dict[bytes, bytes]]:
        return {
            key.removeprefix(keys.prefix + ":"): dict(states)
            for key, states in self.orders.items()
            if key.startswith(keys.prefix)
        }

    def all_strings(self, keys: Keys) -> dict[str, bytes]:
        return {
            k.removeprefix(keys.prefix + ":"): v
            for k, v in self.strings.items()
            if k.startswith(keys.prefix)
        }


class RedisCopies:
    """`save`, `restore` and `all_strings` for a real Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def save(self) -> Any:
        return {key: self.client.dump(key) for key in self.client.keys("*")}

    def restore(self, saved: Any) -> None:
        self.client.flushall()
        for key, data in saved.items():
            self.client.restore(key, 0, data)

    def all_orders(self, keys: Keys) -> dict[str, dict[bytes, bytes]]:
        names = [key.decode() for key in self.client.keys("*:o:*")]
        own = [name for name in names if name.startswith(keys.prefix)]
        return {name.removeprefix(keys.prefix + ":"): self.client.hgetall(name) for name in own}

    def all_strings(self, keys: Keys) -> dict[str, bytes]:
        names = [
            key.decode() for key in self.client.keys("*") if key.decode().startswith(keys.prefix)
        ]
        strings = [name for name in names if name.removeprefix(keys.prefix)[1] in "uw"]
        return {name.removeprefix(keys.prefix + ":"): self.client.get(name) for name in strings}


def stored_state(store: Any, copies: Any, topic: str, settings: Settings) -> dict[str, Any]:
    """What the store holds and still retains, in the shape of `NaiveWindows.state`."""
    header = store.header(topic, 0)
    watermark_ms = (
        LONG_AGO_MS
        if header.frontier_ms is None
        else header.frontier_ms - settings.windows.out_of_order_ms
    )
    buckets = {r.resolution_ms: r.buckets for r in settings.windows.resolutions}
    items = store.dictionary(topic, 0, header.items)
    minutes: dict[int, list[int]] = {}
    sums: dict[tuple[int, int, str, str], int] = {}
    for name, data in copies.all_strings(store.keys(topic, 0)).items():
        kind, *numbers = name.split(":")
        if kind == "u":
            minute = int(numbers[0])
            if (minute + 1) * 60_000 + settings.windows.allowed_lateness_ms > watermark_ms:
                minutes[minute] = np.frombuffer(data, ENTRY)["hash"].tolist()
            continue
        width, bucket, chunk = map(int, numbers)
        if (
            Grid(width, settings.calendar.time_zone).expiry_ms(bucket, buckets[width])
            > watermark_ms
        ):
            values_CN = decode(data)
            for channel, slot in zip(*np.nonzero(values_CN), strict=True):
                cell = (width, bucket, items[chunk * CHUNK_ITEMS + slot], CHANNELS[channel])
                sums[cell] = int(values_CN[channel, slot])
    names = [*TIMES, "items", "history_complete", *BOOKS]
    head = {name: getattr(header, name) for name in names}
    state = {"header": head, "items": items, "minutes": minutes, "sums": sums}
    orders = stored_orders(copies.all_orders(store.keys(topic, 0)), items, settings, watermark_ms)
    state |= {"loads": store.loaded(topic, 0, LOADS)}
    return state | {"orders": orders, "redrives": store.redriven(topic, 0, REDRIVES)}


def stored_orders(
    hashes: Mapping[str, Mapping[bytes, bytes]],
    items: Sequence[str],
    settings: Settings,
    watermark_ms: int,
) -> dict[tuple[int, int], Any]:
    """Version, the day from which it is kept, and quantities of each order (day, hash)."""
    found = {}
    for key, entries in hashes.items():
        for name, data in entries.items():
            (version, day), *rows = struct.iter_unpack("<qI", data)
            if (day + 1) * DAY_MS + settings.events.orders.keep_ms > watermark_ms:
                place = int(key.removeprefix("o:")), int.from_bytes(name, "little")
                found[place] = version, day, {items[slot]: amount for amount, slot in rows}
    return found


# Generated logs -----------------------------------------------------------------------------------

BROKEN = (
    None,
    b"",
    b"\xff\xfe",
    b"[]",
    b"{",
    b"not json",
    b'{"event_id": "x"}',
    b'{"event_id": "x", "event_time": NaN, "sku": "a", "region": "n", "quantity": 1, '
    b'"unit_price": 1}',
    b'{"event_id": "x", "event_time": 1700000000000, "sku": "a", "region": "n", "quantity": 0, '
    b'"unit_price": 1}',
    b'{"event_id": "x", "event_time": 1700000000000, "sku": "a", "quantity": 1, "unit_price": 1}',
    b'{"event_id": "x", "event_time": 1700000000000, "region": "n", "lines": []}',
    b'{"event_id": "x", "event_time": 1700000000000, "region": "n", "lines": [{"sku": "a", '
    b'"quantity": 1, '
    b'"unit_price": 1}, {"sku": "b", "quantity": 1, "unit_price": -1}]}',
)

_ids = st.integers(0, 12).map("e{}".format)
_skus = st.sampled_from(["a", "b", "a|b", "c\\", "d"])
_regions = st.sampled_from(["n", "s|"])
_amounts = st.fixed_dictionaries(
    {
        "sku": _skus,
        "quantity": st.sampled_from([1, 2, -1, 0.5, 0.0001, 1_000_000, -3.25]),
        "unit_price": st.sampled_from([0, 0.01, 9.99, 12.34565, 900_000]),
    }
)


def _event(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    base = {"event_id": _ids, "region": _regions}
    if kind == "clicks":
        kinds = st.sampled_from(["view", "cart", "favourite", "sniff"])
        return st.fixed_dictionaries(base | {"sku": _skus, "kind": kinds})
    single = st.builds(lambda head, line: head | line, st.fixed_dictionaries(base), _amounts)
    return single | st.fixed_dictionaries(
        base | {"lines": st.lists(_amounts, min_size=1, max_size=3)}
    )


MARKS = st.builds(b"%b:%d".__mod__, st.tuples(st.sampled_from(LOADS), st.integers(0, 20)))
MARKS |= st.sampled_from([b"2024:x", b"b", b":7"])


@st.composite
def log_records(
    draw: st.DrawFn,
    kind: str,
    max_size: int = 60,
    marks: st.SearchStrategy[bytes | None] = MARKS | st.just(b"2024:complete"),
) -> list[LogRecord]:
    """A log whose time moves on in jumps, with duplicates, late, future and broken records
    anywhere.
    """
    records: list[LogRecord] = []
    now_ms = START_MS
    for _ in range(draw(st.integers(1, max_size))):
        now_ms += draw(st.sampled_from([0, 100, 900, 5_000, 70_000]))
        back_ms = draw(st.sampled_from([0, 0, 500, 3_000, 7_000, 8_000, 60_000, -29_000, -40_000]))
        if draw(st.integers(0, 9)) == 0:
            value = draw(st.sampled_from(BROKEN))
        else:
            value = json.dumps(draw(_event(kind)) | {"event_time": now_ms - back_ms}).encode()
        redrive = draw(st.sampled_from(REDRIVES)) if draw(st.integers(0, 7)) == 0 else None
        history = draw(marks) if draw(st.integers(0, 5)) == 0 else None
        if history is not None and history.endswith(b"complete"):
            value = b""
        records.append(LogRecord(value, now_ms, redrive=redrive, history=history))
    return records


def batch_of(log: Sequence[LogRecord], start: int, end: int) -> RawBatch:
    records = log[start:end]
    return RawBatch(
        values=[record.value for record in records],
        keys=[record.key for record in records],
        timestamps_ms=np.array([record.timestamp_ms for record in records], np.int64),
        offsets=np.arange(start, end),
        next_offset=end,
        redrives={
            n: record.redrive for n, record in enumerate(records) if record.redrive is not None
        },
        history={
            n: record.history for n, record in enumerate(records) if record.history is not None
        },
    )


def naive(
    kind: str, settings: Settings, log: Sequence[LogRecord], timestamp_type: str = ""
) -> NaiveWindows:
    reference = NaiveWindows(kind, settings, timestamp_type)
    for record in log:
        reference.feed(record)
    return reference


@dataclass
class Driver:
    """Ingest without Kafka: claims, folds, applies, and does what each answer asks for."""

    store: Any
    kind: str
    settings: Settings
    log: Sequence[LogRecord]
    timestamp_type: str = ""
    windows: PartitionWindows = field(init=False)
    old: list[tuple[PartitionWindows, Fold]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.claim()

    @property
    def topic(self) -> str:
        return TOPICS[self.kind]

    def claim(self) -> None:
        facts = TopicFacts(timestamp_type=self.timestamp_type)
        self.windows = PartitionWindows.claim(
            self.store, self.kind, self.topic, 0, self.settings, facts=facts
        )
        if self.windows.header.next_offset is None:
            self.windows.start_at(0)

    def step(self, size: int) -> Answer:
        """One batch; an answer that asks for a new claim gets it."""
        start = self.windows.next_offset
        fold = self.windows.fold(batch_of(self.log, start, min(start + size, len(self.log))))
        answer = self.windows.apply(fold)
        if answer in (Answer.GAP, Answer.FENCED):
            self.claim()
        return answer

    def crash(self, size: int) -> None:
        """Lose everything between fold and apply; the lost owner lives on as a zombie."""
        start = self.windows.next_offset
        self.old.append(
            (
                self.windows,
                self.windows.fold(batch_of(self.log, start, min(start + size, len(self.log)))),
            )
        )
        self.claim()

    def zombies(self) -> None:
        """Wake every lost owner that the store no longer knows as its owner: none may write
        anything.
        """
        for windows, fold in self.old:
            stored = self.store.header(self.topic, 0)
            if (stored.epoch, stored.owner) != (windows.header.epoch, windows.header.owner):
                assert windows.apply(fold) in (Answer.FENCED, Answer.GAP)
                assert windows.declare_idle(1) in (Answer.FENCED, Answer.GAP)
                assert self.store.header(self.topic, 0) == stored

    def drain(self, size: int = 7) -> None:
        """Read to the log's end, and be idle there: that is how an owner with nothing to write
        learns of a rollback.
        """
        while True:
            while self.windows.next_offset < len(self.log):
                self.step(size)
            if self.windows.declare_idle(START_MS) is Answer.APPLIED:
                return
            self.claim()
