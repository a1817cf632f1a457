"""A batch dressed for a past cutoff is bit for bit the one that was dressed then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from confluent_kafka.admin import AdminClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshet.online.forecast.context import Contexts
from freshet.online.forecast.provenance import context_sha256
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import RedisSettings, Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import SHOP_TABLES, Forecast
from freshet.stream.store.connection import connect
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.integration.dressed_world import ITEMS, SKUS, Dresser, Row, ShopLog, SideTold
from tests.integration.side import keep_tables
from tests.integration.test_worker import (
    Shop,
    at_cutoff,
    eventually,
    forecasts,
    running,
    save_random_weights,
    settings_for,
)
from tests.integration.windows_world import START_MS

HOURS = 14
LATER_MS = 5 * DAY_MS


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=redis_server))  # type: ignore[arg-type]
    yield client
    client.close()


# What a shop sends --------------------------------------------------------------------------------

CLOCK = st.integers(0, HOURS * 60).map(lambda minute: START_MS + minute * MINUTE_MS)
LONG_AGO = st.integers(1, 40).map(lambda days: START_MS - days * DAY_MS)
AT = st.one_of(CLOCK, CLOCK, CLOCK, LONG_AGO)
SKU = st.sampled_from(SKUS)
INTERVAL = st.tuples(AT, st.integers(1, 600)).map(
    lambda both: {"starts_at": both[0], "ends_at": both[0] + both[1] * MINUTE_MS}
)


def with_fields(own: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(own, optional=optional)


RECORDS = {
    "catalog": with_fields(
        {"sku": SKU, "title": st.sampled_from(["", "Hat", "Cup"])},
        unit_price=st.sampled_from([1.0, 2.5, 4.0]),
        launched_at=AT,
        category=st.sampled_from(["x", "y"]),
    ),
    "promotions": st.builds(
        lambda one, other: one | other,
        with_fields(
            {
                "promotion_id": st.sampled_from(["p", "q"]),
                "discount": st.sampled_from([0.1, 0.5]),
                "category": st.sampled_from(["x", "y"]),
            }
        ),
        INTERVAL,
    ),
    "inventory": with_fields({"sku": SKU, "on_hand": st.sampled_from([0, 3]), "as_of": AT}),
    "covariates": st.builds(
        lambda one, other: one | other,
        with_fields(
            {
                "covariate_id": st.sampled_from(["c", "d"]),
                "name": st.sampled_from(["closed", "event", "free_1"]),
                "value": st.sampled_from([0.25, 1.0]),
                "scope": st.sampled_from([{}, {"sku": "a"}, {"category": "y"}, {"region": "-"}]),
            }
        ),
        INTERVAL,
    ),
}
IDENTITY = {
    "catalog": "sku",
    "promotions": "promotion_id",
    "inventory": "sku",
    "covariates": "covariate_id",
}


class Sale(NamedTuple):
    """Something that is bought, or looked at."""

    sku: str
    arrives_ms: int
    bought: bool


@st.composite
def side_records(draw: st.DrawFn, arrives: st.SearchStrategy[int]) -> SideTold:
    """A record, a correction or a tombstone; announced when it comes, before, or for later."""
    table = draw(st.sampled_from(list(RECORDS)))
    fields = draw(RECORDS[table])
    key = f"{fields[IDENTITY[table]]}".encode()
    arrives_ms = draw(arrives)
    if draw(st.integers(0, 5)) == 0:
        return SideTold(table, key, None, arrives_ms)
    ahead_ms = draw(st.sampled_from([None, None, 0, 90 * MINUTE_MS, -2 * HOUR_MS, -30 * DAY_MS]))
    if ahead_ms is not None:
        fields |= {"announced_at": arrives_ms + ahead_ms}
    if "as_of" in fields:
        fields |= {"as_of": min(fields["as_of"], arrives_ms)}
    return SideTold(table, key, fields, arrives_ms)


LOGS = st.lists(
    st.one_of(
        side_records(AT),
        side_records(AT),
        st.builds(Sale, SKU.filter(lambda sku: sku != "never"), CLOCK, st.booleans()),
    ),
    min_size=4,
    max_size=24,
)
AFTERWARDS = st.lists(
    side_records(
        st.integers(0, LATER_MS // MINUTE_MS).map(
            lambda minute: START_MS + HOURS * HOUR_MS + minute * MINUTE_MS
        )
    ),
    max_size=6,
)

CUTOFFS = st.dictionaries(st.integers(1, HOURS), st.integers(0, 59), min_size=1, max_size=3)
"""The hours at which a worker dresses batches, and how many minutes later it does so."""


# How it goes --------------------------------------------------------------------------------------


class Dressed(NamedTuple):
    """What was dressed live."""

    cutoff_ms: int
    rows: dict[str, Row]
    offsets: dict[str, int]
    records: int
    """How many of the tables had come."""


def live(log: ShopLog, what: list[SideTold | Sale], cutoffs: dict[int, int]) -> list[Dressed]:
    """Let it all arrive, with a worker that dresses cutoffs now and then, some of them late."""
    log.pass_to(START_MS)
    worker, dressed = Dresser(log.client), []
    coming = sorted(what, key=lambda one: one.arrives_ms)
    for hour, late_minutes in sorted(cutoffs.items()):
        cutoff_ms = START_MS + hour * HOUR_MS
        dressed_ms = cutoff_ms + late_minutes * MINUTE_MS
        while coming and coming[0].arrives_ms < dressed_ms:
            arrive(log, coming.pop(0))
        log.pass_to(max(dressed_ms, log.events.newest_ms))
        worker.follow()
        rows, offsets = worker.dress(cutoff_ms), worker.offsets()
        dressed.append(Dressed(cutoff_ms, rows, offsets, len(log.told)))
    return dressed


def arrive(log: ShopLog, one: SideTold | Sale) -> None:
    if isinstance(one, SideTold):
        log.tell(one)
    elif one.bought:
        log.sell(one.sku, one.arrives_ms)
    else:
        log.look(one.sku, one.arrives_ms)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LOGS, AFTERWARDS, CUTOFFS)
def test_whatever_came_since_and_left_contexts_of_past_cutoffs_are_those_of_then(
    client: redis.Redis,
    what: list[SideTold | Sale],
    afterwards: list[SideTold],
    cutoffs: dict[int, int],
) -> None:
    client.flushall()
    log = ShopLog(client)
    dressed = live(log, what, cutoffs)
    for one in sorted(afterwards, key=lambda one: one.arrives_ms):
        arrive(log, one)
    log.pass_to(START_MS + (HOURS + 2) * HOUR_MS)
    restarted = Dresser(client)
    shards = [[item for item in ITEMS if sum(item.encode()) % 2 == n] for n in (0, 1)]
    others = [Dresser(client, items) for items in shards]
    for then in dressed:
        audit = Dresser(client, until=then.offsets)
        assert audit.dress(then.cutoff_ms) == then.rows, "by the offsets that the forecast names"
        if any(one.known_ms <= then.cutoff_ms for one in log.told[then.records :]):
            continue  # Somebody said since what was known then.
        assert restarted.dress(then.cutoff_ms) == then.rows, "after a restart"
        of_others = [other.dress(then.cutoff_ms) for other in others]
        assert of_others[0] | of_others[1] == then.rows, "with other shards"


# On a real Kafka ----------------------------------------------------------------------------------

SHORTLY_MS = 10 * MINUTE_MS


def tell_all(settings: Settings, at_ms: int, number: int) -> None:
    """Each table is told something else of the items, known from a time on."""
    interval = {"starts_at": at_ms - HOUR_MS, "ends_at": at_ms + (3 + number) * HOUR_MS}
    said: dict[str, dict[bytes, dict[str, Any] | None]] = {
        "catalog": {
            b"s0": {"sku": "s0", "title": f"Hat {number}", "unit_price": 2.0 + number},
            b"s1": None if number % 2 else {"sku": "s1", "title": "Cup", "unit_price": 4.0},
        },
        "promotions": {
            b"p": {"promotion_id": "p", "sku": "s0", "discount": 0.1 * (number + 1), **interval},
            b"q": None if number % 2 else {"promotion_id": "q", "sku": "s1", **interval},
        },
        "inventory": {
            b"s0": {"sku": "s0", "region": "north", "on_hand": number % 2, "as_of": at_ms},
        },
        "covariates": {
            b"c": {"covariate_id": "c", "name": "free_1", "value": 0.5 + number, **interval},
        },
    }
    with Publisher(settings) as publisher:
        for table, records in said.items():
            topic = settings.kafka.topics.model_dump()[table]
            for key, fields in records.items():
                value = None if fields is None else json.dumps(fields).encode()
                publisher.produce(topic, value, key=key, timestamp_ms=at_ms)
        publisher.flush()
    keep_tables(settings)


def audited(settings: Settings, forecast: Forecast, until: dict[str, int] | None) -> str:
    """What the sha256 of a forecast's context is by what Redis holds now, up to some offsets."""
    client, (served,) = connect(settings.redis), settings.served
    tables = ShopTables.of(settings)
    ShopFeed(client, settings, tables, until=until).read_to_end()
    rules = ReadRules.of(settings, served.resolution_ms)
    reader = WindowReader(client, 0, served.resolution_ms, 200, rules=rules)
    contexts = Contexts(
        reader,
        tables,
        context_length=served.context_length,
        prediction_length=served.prediction_length,
    )
    contexts.refresh()
    row = reader.row(forecast.item_id)
    assert row is not None
    return context_sha256(contexts.batch([row], forecast.cutoff_ms))[0]


def test_an_audit_finds_the_contexts_of_published_forecasts_when_the_topics_are_gone(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    settings = settings_for(kafka_broker, redis_server, tmp_path, "audited")
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=False)
    shop = Shop(settings, items=2)
    shop.sell(40)
    for number in range(2):
        tell_all(settings, shop.now_ms - SHORTLY_MS, 2 * number)
        with running(settings):
            eventually(lambda: at_cutoff(settings, shop.now_ms), lambda found: len(found) >= 3)
        tell_all(settings, shop.now_ms + SHORTLY_MS, 2 * number + 1)
        shop.sell(2)
    tell_all(settings, shop.now_ms, 4)
    topics = settings.kafka.topics.model_dump()
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    for gone in admin.delete_topics([topics[table] for table in SHOP_TABLES]).values():
        gone.result(10)
    published = forecasts(settings)
    assert len(published) == 6 and len({one.context_sha256 for one in published}) == 6
    for one in published:
        assert audited(settings, one, one.offsets) == one.context_sha256
        assert audited(settings, one, None) == one.context_sha256, "whatever was told since"
