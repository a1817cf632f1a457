"""An owner on real windows: what it finds as of a midnight does not depend on when it looks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest

from freshet.online.effects.table import EffectsTable
from freshet.online.owner import estimate
from freshet.online.owner.estimate import Estimator
from freshet.online.owner.loop import Owner, Parts
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.kafka import Outgoing, ensure_topics
from freshet.stream.read.heads import read_heads
from freshet.stream.read.shop import ShopFeed
from freshet.stream.schemas import EffectsRecord
from freshet.stream.store.connection import connect
from freshet.stream.units import HOUR_MS
from tests.integration.test_worker import START_MS, Shop, settings_for


class Nightly(Shop):
    """Sells nothing from 20:00 on, but for its clock, until one day it does."""

    def sell_days(self, days: int) -> None:
        for _ in range(days):
            self.sell(20)
            # The shop is closed, and its clock goes on.
            self.hour += 4
            self._fold([self._order("clock", START_MS + self.hour * HOUR_MS, 1)])


class Written:
    """Keeps what an owner publishes."""

    def __init__(self) -> None:
        self.records: list[EffectsRecord] = []

    def write(self, outgoing: list[Outgoing]) -> None:
        values = {one.value for one in outgoing if one.value is not None}
        self.records += [decode(EffectsRecord, value) for value in values]

    def close(self) -> None:
        pass


def owner_of(settings: Settings, written: Written) -> Owner:
    """An owner that knows of no effects yet."""
    client = connect(settings.redis)
    shop = ShopTables.of(settings)
    side = ShopFeed(client, settings, shop)
    side.read_to_end()
    parts = Parts(
        heads=partial(read_heads, client, settings.redis.generation),
        side=side,
        estimates=Estimator(client, settings, shop),
        table=EffectsTable(),
        writes=written,
        holds=lambda: True,
    )
    return Owner(settings, parts)


@pytest.fixture
def settings(mock_broker: str, redis_server: str, tmp_path: Path) -> Settings:
    widths = json.dumps([{"resolution_ms": HOUR_MS, "buckets": 2_000}])
    over = {"FRESHET_WINDOWS__RESOLUTIONS": widths}
    made = settings_for(mock_broker, redis_server, tmp_path, tmp_path.name, **over)
    ensure_topics(made, live=False)
    return made


def test_effects_of_a_midnight_are_the_same_however_much_came_after_it(settings: Settings) -> None:
    shop, written = Nightly(settings, items=9), Written()
    shop.sell_days(63)
    first = owner_of(settings, written)
    # A midnight counts once it was seen in two turns.
    assert [first.turn() for _ in range(3)] == [False, True, False]
    shop.sell(23)
    second = owner_of(settings, written)
    assert [second.turn() for _ in range(2)] == [False, True]
    assert len(written.records) == 2
    early, late = written.records
    assert early.as_of_ms == late.as_of_ms == START_MS + 24 * 63 * HOUR_MS
    # The shop's nine items, and the one whose orders are its clock.
    assert early.num_items == late.num_items == 10
    topic = f"{settings.kafka.topics.orders}:0"
    assert early.offsets[topic] == 63 * (9 * 20 + 2) < late.offsets[topic]
    assert msgspec.structs.replace(late, offsets=early.offsets) == early
    # What was found would not have been with the night that came after.
    hours = {slot % 24 for slot in early.closing.slots}
    assert hours == {21, 22, 23} and len(early.closing.slots) == 21 and early.events.weights


def test_a_sample_of_a_shop_is_estimated_alike_by_whoever_owns_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "MAX_ITEMS", 4)
    monkeypatch.setattr(estimate.Sample.__init__, "__defaults__", (4,))
    shop, written = Shop(settings, items=30), Written()
    shop.sell(24 * 3)
    for _ in range(2):
        owner = owner_of(settings, written)
        assert [owner.turn() for _ in range(2)] == [False, True]
    one, other = written.records
    assert one == other and one.num_items == 4
