"""Which shards are told of what."""

from __future__ import annotations

from freshet.stream.ingest.outbox import shards_of
from freshet.stream.kafka import shard_of


def test_items_are_announced_to_their_shards_only() -> None:
    item_ids = [f"sku-{number}|north" for number in range(3)]
    assert shards_of(item_ids, 64) == sorted({shard_of(item_id, 64) for item_id in item_ids})
    assert shards_of([], 64) == []
    assert shards_of((f"sku-{number}" for number in range(10_000)), 2) == [0, 1]
