"""A worker's contexts follow a real Redis; after each step they are those of a full read."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from freshet.online.forecast.context import Contexts
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import RedisSettings
from freshet.stream.schemas import CatalogEntry
from freshet.stream.store.connection import connect
from freshet.stream.units import HOUR_MS
from tests.integration.windows_world import (
    CLICKS,
    ORDERS,
    START_MS,
    UNITS,
    World,
    at,
    reader_of,
)

HELD = 8  # hours, so that moves go around the ring several times
ITEMS = "abcd"


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=redis_server))  # type: ignore[arg-type]
    yield client
    client.close()


def contexts_of(client: redis.Redis) -> Contexts:
    """Contexts over a ring of a few hours; all items were launched long ago.

    They are longer than the ring: one that ends after its newest hour holds all shorter ones.
    """
    shop = ShopTables()
    for item in ITEMS:
        entry = CatalogEntry(sku=item, launched_at=START_MS - 9_000 * HOUR_MS)
        assert shop.apply("catalog", item.encode(), msgspec.json.encode(entry), 0)
    reader = reader_of(client, HELD)
    return Contexts(reader, shop, context_length=HELD + 4, prediction_length=2)


def check(world: World, contexts: Contexts) -> None:
    """Every hour of the contexts is that of a full read, and both say what was written."""
    fresh = contexts_of(world.client)
    fresh.refresh()
    world.check(contexts.reader, 2 * HELD)
    item_ids = sorted(contexts.item_ids)
    assert item_ids == sorted(fresh.item_ids)
    if not item_ids:
        return
    rows, fresh_rows = ([c.item_ids.index(i) for i in item_ids] for c in (contexts, fresh))
    newest = world.newest_ms // HOUR_MS
    for end in (newest - HELD // 2, newest + 3):
        batch = contexts.batch(rows, end * HOUR_MS)
        full = fresh.batch(fresh_rows, end * HOUR_MS)
        for name in ("target_BT", "past_BTP", "known_BSK", "static_BF"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(full, name), name)
    units_IS, _ = contexts.actuals(item_ids, (newest - HELD) * HOUR_MS, HELD + 2)
    for item_id, units_S in zip(item_ids, units_IS, strict=True):
        for step in np.flatnonzero(np.isfinite(units_S)).tolist():
            written = world.truth.get((item_id, UNITS, newest - HELD + step), 0)
            assert units_S[step] == written / 1_000, (item_id, step)


MOVES = st.lists(
    st.tuples(
        st.sampled_from([(ORDERS, 0), (ORDERS, 1), (CLICKS, 0)]),
        st.lists(st.tuples(st.sampled_from(ITEMS), st.floats(-10, 12)), min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=12,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MOVES)
# Sent again ahead of every frontier, which then passes it.
@example(
    [((ORDERS, 0), [("a", 0)], False), ((ORDERS, 0), [("b", 3)], True)]
    + [((ORDERS, 0), [("a", 1)], False)] * 5
)
def test_whatever_is_written_or_sent_again_contexts_are_those_of_a_full_read(
    client: redis.Redis, moves: list[tuple[tuple[str, int], list[tuple[str, float]], bool]]
) -> None:
    client.flushall()
    world, contexts, now = World(client), contexts_of(client), 10.0
    for (topic, partition), events, redriven in moves:
        timed = [(item, at(now + ahead)) for item, ahead in events]
        world.write(topic, partition, timed, redriven=redriven)
        if not redriven:
            now = max([now, *(now + ahead for _, ahead in events)])
        contexts.refresh()
        check(world, contexts)
