"""How windows lie in Redis: the names of the keys, the header's fields, what one write carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

EFFECTS_OWNER_KEY: Final = "freshet:effects-owner"
"""The lease of the process that estimates what all items do alike."""
OUTCOMES: Final = ("applied", "duplicate", "late_dropped", "dead_letter", "skipped")
BESIDE: Final = ("lines_dead", "conflicting")
"""What the books count beside the outcomes of records."""
"""What becomes of a record: the books balance when these add up to those read."""
MAX_INDEX_TILES: Final = 50_000
MAX_REMOVED_KEYS: Final = 1_000


def partitions_key(generation: int) -> str:
    """Set of "<topic>:<partition>" that were ever claimed."""
    return f"freshet:g{generation}:partitions"


WINDOWS_FORMAT: Final = 3
"""Of what headers and tiles mean. A fingerprint names it, and whoever reads another one waits."""


class Answer(Enum):
    """What became of a write."""

    APPLIED = "APPLIED"
    ALREADY = "ALREADY"
    FENCED = "FENCED"
    GAP = "GAP"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one partition's keys; one hash tag, so that all share a Redis Cluster slot.

    >>> Keys(0, "freshet.orders.v1", 3).tile(3_600_000, 475_000, 0)
    '{freshet:g0:freshet.orders.v1:3}:w:3600000:475000:0'
    """

    generation: int
    topic: str
    partition: int

    @property
    def prefix(self) -> str:
        return f"{{freshet:g{self.generation}:{self.topic}:{self.partition}}}"

    @property
    def header(self) -> str:
        """Hash: epoch, offsets, frontiers, books, fingerprint."""
        return f"{self.prefix}:h"

    @property
    def retained(self) -> str:
        """Sorted set: what is stored, scored by the watermark at which it leaves."""
        return f"{self.prefix}:r"

    def dictionary(self, chunk: int) -> str:
        """Hash: position in the chunk -> item_id, append-only."""
        return f"{self.prefix}:d:{chunk}"

    def minute(self, minute: int) -> str:
        """String: the events applied in that minute, 12 bytes each, in log order.

        xxh3-64 of the event id, and 32 bits of what the event said (`stream/fold/content.py`).
        """
        return f"{self.prefix}:u:{minute}"

    @property
    def redrives(self) -> str:
        """Set: the `freshet-redrive` headers of all records that were judged; never shrinks."""
        return f"{self.prefix}:v"

    def orders(self, day: int) -> str:
        """Hash: xxh3-64 of an order's id -> its state, of the orders made on a day since 1970."""
        return f"{self.prefix}:o:{day}"

    @property
    def loads(self) -> str:
        """Hash: name of a load of history -> its highest sequence that was judged."""
        return f"{self.prefix}:l"

    def tile(self, resolution_ms: int, bucket: int, chunk: int) -> str:
        """String: one tile; `bucket` is the number that `freshet.stream.store.grid` gives it."""
        return f"{self.prefix}:w:{resolution_ms}:{bucket}:{chunk}"

    def index(self, resolution_ms: int) -> str:
        """Sorted set: "<bucket>:<chunk>" scored by the next offset of the call that changed it."""
        return f"{self.prefix}:x:{resolution_ms}"


@dataclass(frozen=True, slots=True)
class Header:
    """What a partition's windows say about themselves; None where nothing has happened yet.

    `origin_ms` is the event time of the first record that counted for the frontier,
    `last_event_ms` the largest of an applied one. Redriven records leave the frontier alone, so
    that one may be ahead of it. Of the books, `read` is the sum of `OUTCOMES`; `lines_dead` are
    dead lines of applied records, `conflicting` those duplicates that say otherwise than what was
    applied. `top_ms` (falling), `ahead_...` and `doubted_ms` are what the frontier's rule goes on
    from where producers stamp records (`stream/fold/frontier.py`). `num_partitions` and
    `timestamp_type` are the topic's as the state began.
    """

    epoch: int = 0
    owner: str = ""
    first_offset: int | None = None
    next_offset: int | None = None
    frontier_ms: int | None = None
    idle_frontier_ms: int | None = None
    origin_ms: int | None = None
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    read: int = 0
    applied: int = 0
    duplicate: int = 0
    late_dropped: int = 0
    dead_letter: int = 0
    skipped: int = 0
    lines_dead: int = 0
    conflicting: int = 0
    items: int = 0
    top_ms: str = ""
    ahead_events: int = 0
    ahead_first_ms: int = 0
    ahead_last_ms: int = 0
    doubted_ms: int | None = None
    history_complete: int = 0
    num_partitions: int = 0
    timestamp_type: str = ""
    fingerprint: str = ""
    topic_id: str = ""
    index_floor: int = 0

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Header:
        """From the hash as Redis gives it; unknown fields are ignored."""
        values: dict[str, Any] = {}
        for raw_name, raw in fields.items():
            name = raw_name.decode()
            if name in cls.__slots__:
                values[name] = raw.decode() if name in _TEXTS else int(raw)
        return cls(**values)

    @property
    def newest_ms(self) -> int | None:
        """No tile and no dedupe minute begins after it."""
        known_ms = [at for at in (self.frontier_ms, self.last_event_ms) if at is not None]
        return max(known_ms, default=None)

    def written_fields(self) -> dict[str, int | str]:
        """What `apply` is given to write; its script, claims and idling own the other fields."""
        values = {name: getattr(self, name) for name in _WRITTEN}
        return {name: value for name, value in values.items() if value is not None}


_TEXTS: Final = frozenset({"owner", "fingerprint", "topic_id", "timestamp_type", "top_ms"})
_WRITTEN: Final = (
    "first_offset",
    "frontier_ms",
    "origin_ms",
    "first_event_ms",
    "last_event_ms",
    "read",
    "applied",
    "duplicate",
    "late_dropped",
    "dead_letter",
    "skipped",
    "lines_dead",
    "conflicting",
    "items",
    "top_ms",
    "ahead_events",
    "ahead_first_ms",
    "ahead_last_ms",
    "doubted_ms",
    "history_complete",
    "num_partitions",
    "timestamp_type",
)


@dataclass(frozen=True, slots=True)
class MinuteAppend:
    """Entries of one dedupe minute, appended at the absolute position that replaying would give."""

    minute: int
    expiry_ms: int
    num_bytes_before: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TileWrites:
    """Changed tiles of one resolution, in rising order.

    Names are "<bucket>:<chunk>", `data` the tiles' new bytes, and `expiries_ms` the watermarks at
    which the tiles leave.
    """

    resolution_ms: int
    names: Sequence[str]
    data: Sequence[bytes]
    expiries_ms: Sequence[int]


@dataclass(frozen=True, slots=True)
class OrderWrites:
    """New states of orders made on one day, and the watermark at which the last of them leaves."""

    day: int
    expiry_ms: int
    names: Sequence[bytes]
    data: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Update:
    """One batch of one partition, in absolute values."""

    topic: str
    partition: int
    epoch: int
    owner: str
    expected_offset: int
    next_offset: int
    watermark_ms: int | None
    header: Mapping[str, int | str]
    items_before: int
    new_items: Sequence[str] = ()
    redrives: Sequence[bytes] = ()
    minutes: Sequence[MinuteAppend] = ()
    tiles: Sequence[TileWrites] = ()
    orders: Sequence[OrderWrites] = ()
    loaded: Mapping[bytes, int] = field(default_factory=dict)

    def arguments(self, prefix: str) -> list[Any]:
        """The script's ARGV, as apply.lua describes them."""
        args: list[Any] = [prefix, self.epoch, self.owner, self.expected_offset, self.next_offset]
        args.append("1" if self.expected_offset == self.header["first_offset"] else "0")
        args.append("" if self.watermark_ms is None else self.watermark_ms)
        args += (MAX_INDEX_TILES, MAX_REMOVED_KEYS, len(self.header))
        for name, value in self.header.items():
            args += (name, value)
        args += (len(self.new_items), self.items_before, *self.new_items)
        args += (len(self.redrives), *self.redrives, len(self.minutes))
        for append in self.minutes:
            args += (append.minute, append.expiry_ms, append.num_bytes_before, append.data)
        args.append(len(self.tiles))
        for writes in self.tiles:
            args += (writes.resolution_ms, len(writes.names))
            for tile in zip(writes.names, writes.data, writes.expiries_ms, strict=True):
                args += tile
        args.append(len(self.orders))
        for orders in self.orders:
            args += (orders.day, orders.expiry_ms, len(orders.names))
            for state in zip(orders.names, orders.data, strict=True):
                args += state
        args.append(len(self.loaded))
        for load, sequence in self.loaded.items():
            args += (load, sequence)
        return args
