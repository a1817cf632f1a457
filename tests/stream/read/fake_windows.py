"""A Redis of dictionaries, as far as reading windows asks it, and a hand that writes windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freshet.stream.schemas import CHANNELS
from freshet.stream.store.layout import Keys, partitions_key
from freshet.stream.store.tiles import CHUNK_ITEMS, encode

RESOLUTION_MS = 10
UNITS = CHANNELS.index("units")


@dataclass
class FakeRedis:
    """Answers as Redis does; `asked` are the keys of strings that were read."""

    values: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    before_transaction: Any = None

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def smembers(self, key: str) -> set[bytes]:
        return set(self.values.get(key, set()))

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self.values.get(key, {}))

    def hget(self, key: str, name: str) -> bytes | None:
        return self.hgetall(key).get(name.encode())

    def hmget(self, key: str, names: Sequence[str]) -> list[bytes | None]:
        found = self.values.get(key, {})
        return [found.get(name.encode()) for name in names]

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += keys
        return [self.values.get(key) for key in keys]

    def execute_command(self, command: str, *keys: str) -> list[bytes | None]:
        assert command == "MGET"
        return self.mget(keys)

    def zrangebyscore(self, key: str, least: str, most: str) -> list[bytes]:
        scores = self.values.get(key, {})
        if least == "-inf":
            return list(scores)
        assert least.startswith("(") and most == "+inf"
        return [member for member, score in scores.items() if score > float(least[1:])]

    def pipeline(self, transaction: bool) -> FakePipeline:
        if transaction and self.before_transaction is not None:
            self.before_transaction()
        return FakePipeline(self)


class FakePipeline:
    """Queues calls, and makes them all when it is told to."""

    def __init__(self, client: FakeRedis) -> None:
        self._client = client
        self._calls: list[tuple[str, tuple[Any, ...]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._calls.append((name, arguments))

    def execute(self) -> list[Any]:
        return [getattr(self._client, name)(*arguments) for name, arguments in self._calls]


@dataclass
class Partition:
    """Writes one partition's windows as ingest would leave them."""

    client: FakeRedis
    topic: str = "o"
    number: int = 0
    generation: int = 0
    header: dict[str, int] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)

    @property
    def keys(self) -> Keys:
        return Keys(self.generation, self.topic, self.number)

    def write(
        self,
        next_offset: int,
        tiles: Mapping[tuple[int, int], Mapping[int, int]],
        new_items: Sequence[str] = (),
        **header: int,
    ) -> None:
        """One batch: new items, the units that tiles now hold by their columns, and the header."""
        listed = self.client.values.setdefault(partitions_key(self.generation), set())
        listed.add(f"{self.topic}:{self.number}".encode())
        for item_id in new_items:
            chunk, place = divmod(len(self.items), CHUNK_ITEMS)
            names = self.client.values.setdefault(self.keys.dictionary(chunk), {})
            names[str(place).encode()] = item_id.encode()
            self.items.append(item_id)
        index = self.client.values.setdefault(self.keys.index(RESOLUTION_MS), {})
        for tile, units in tiles.items():
            self.client.values[self.keys.tile(RESOLUTION_MS, *tile)] = tile_of(units)
            index[b"%d:%d" % tile] = next_offset
        begun = {"first_offset": 0, "first_event_ms": 0, "origin_ms": 0}
        self.header = begun | self.header | header
        self.header |= {"next_offset": next_offset, "items": len(self.items)}
        fields = {name.encode(): b"%d" % value for name, value in self.header.items()}
        self.client.values[self.keys.header] = fields

    def drop(self) -> None:
        """Lose everything of this partition."""
        for key in list(self.client.values):
            if key.startswith(self.keys.prefix):
                del self.client.values[key]
        self.header, self.items = {}, []


def tile_of(units: Mapping[int, int]) -> bytes:
    """A tile with units in some columns."""
    values_CN = np.zeros((len(CHANNELS), CHUNK_ITEMS), np.int64)
    for column, amount in units.items():
        values_CN[UNITS, column] = amount
    return encode(values_CN)
