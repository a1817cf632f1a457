"""The shop's tables come from Redis, announcements go to the switch, effects to their table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.adjust.decision import encoded as encoded_decision
from freshet.online.effects.record import current_key, encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.online.worker import side_inputs as module
from freshet.online.worker.side_inputs import LOOK_S, SideInputs
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import TableRecord
from freshet.stream.schemas import AdjustmentDecision, DriftAlert, ModelEvent, OwnerState
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS

TOPIC = Settings().kafka.topics.models
EFFECTS = Settings().kafka.topics.effects
DECISIONS = Settings().kafka.topics.decisions
DRIFT, OWNER = Settings().kafka.topics.drift, Settings().kafka.topics.owner


class Reader:
    """Hands over what the test lays out."""

    def __init__(self, _: Settings, topics: list[str]) -> None:
        self.topics = topics
        self.records, self.caught_up = list[TableRecord](), True
        self.waited_ms: list[int] = []
        self.closed = False

    def poll(self, max_wait_ms: int) -> list[TableRecord]:
        self.waited_ms.append(max_wait_ms)
        found, self.records = self.records, []
        return found

    def close(self) -> None:
        self.closed = True


class Feed:
    """Counts looks at Redis; each brings two records."""

    def __init__(self, client: object, settings: Settings, shop: ShopTables) -> None:
        self.shop, self.caught_up, self.waits_for, self.looks = shop, True, "", 0

    def poll(self) -> int:
        self.looks += 1
        return 2

    def offsets(self) -> dict[str, int]:
        return {"catalog:0": 7}


class Rig:
    """Side inputs on fakes, and a clock that stands until it is set."""

    def __init__(self, *, pinned: bool = False, effects: EffectsTable | None = None) -> None:
        self.offered: list[ModelEvent] = []
        self.at_s = 0.0
        offer = None if pinned else self.offered.append
        client: Any = object()
        self.estimated_s: list[float] = []
        self.tensions: list[object] = []
        self.inputs = SideInputs(
            Settings(),
            client,
            offer,
            now_s=lambda: self.at_s,
            effects=effects,
            estimated=self.estimated_s.append,
            tense=self.tensions.append,
        )
        self.models: Any = self.inputs._topics
        self.feed: Any = self.inputs._feed

    def announce(self, *values: bytes | None) -> None:
        self.models.records = [TableRecord(TOPIC, b"k", value, 50, 0, 0) for value in values]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TableReader", Reader)
    monkeypatch.setattr(module, "ShopFeed", Feed)


def test_redis_is_looked_at_at_once_and_then_at_its_own_pace() -> None:
    rig = Rig()
    assert rig.inputs.poll(17) == 2 and rig.models.waited_ms == [17]
    assert rig.inputs.poll(0) == 0
    rig.at_s = LOOK_S
    assert rig.inputs.poll(0) == 2 and rig.feed.looks == 2
    rig.feed.caught_up = False
    assert rig.inputs.poll(0) == 2 and rig.feed.looks == 3


def test_the_tables_and_their_offsets_are_those_of_the_feed() -> None:
    rig = Rig()
    assert rig.inputs.shop is rig.feed.shop
    assert rig.inputs.offsets() == {"catalog:0": 7}
    rig.feed.waits_for = "Redis does not hold all"
    assert rig.inputs.waits_for == "Redis does not hold all"


def test_every_readable_announcement_is_handed_over_in_order_and_others_are_passed_over() -> None:
    events = [ModelEvent(kind="promoted", version=f"v{n}", at_ms=n) for n in (1, 2)]
    rig = Rig()
    rig.announce(b"{", encode(events[0]), None, encode(events[1]))
    assert rig.inputs.poll(0) == 4 + 2 and rig.offered == events


def test_a_worker_that_serves_what_it_was_given_hears_no_announcement() -> None:
    rig = Rig(pinned=True)
    rig.announce(encode(ModelEvent(kind="promoted", version="v1", at_ms=1)))
    assert rig.inputs.poll(0) == 1 + 2 and rig.offered == []


@pytest.mark.parametrize(("models", "tables"), [(True, False), (False, True), (True, True)])
def test_it_has_caught_up_when_both_have_and_closes(models: bool, tables: bool) -> None:
    rig = Rig()
    rig.models.caught_up, rig.feed.caught_up = models, tables
    assert rig.inputs.caught_up is (models and tables)
    rig.inputs.close()
    assert rig.models.closed


def effects_records(as_of_ms: int, took: bytes) -> list[TableRecord]:
    made = record_of(
        SharedEffects(NAMED_SLOTS),
        resolution_ms=DAY_MS,
        as_of_ms=as_of_ms,
        num_items=1,
        offsets={},
        country=None,
    )
    key, value = encoded(made)
    headers = (("freshet-seconds", took),)
    return [
        TableRecord(EFFECTS, name.encode(), value, 50, 0, 0, headers)
        for name in (key, current_key(DAY_MS))
    ]


def test_effects_go_to_their_table_and_what_new_estimates_cost_is_told_once_each() -> None:
    rig = Rig(effects=EffectsTable())
    assert rig.models.topics == [TOPIC, DRIFT, OWNER, DECISIONS, EFFECTS]
    rig.models.caught_up = False
    rig.models.records = effects_records(DAY_MS, b"1.5")
    rig.inputs.poll(0)
    rig.models.caught_up = True
    rig.models.records = effects_records(2 * DAY_MS, b"2.5") + effects_records(3 * DAY_MS, b"?")
    rig.inputs.poll(0)
    assert rig.inputs.effects is not None
    found = [rig.inputs.effects.at(DAY_MS, day * DAY_MS) for day in range(5)]
    assert [one and one.as_of_ms // DAY_MS for one in found] == [None, 1, 2, 3, 3]
    assert rig.estimated_s == [2.5] and rig.offered == []


def test_a_worker_that_wants_no_effects_does_not_read_them() -> None:
    rig = Rig()
    assert rig.inputs.effects is None and rig.models.topics == [TOPIC, DRIFT, OWNER, DECISIONS]


def test_alarms_and_how_near_one_each_segment_is_are_heard_of_the_main_resolution() -> None:
    rig = Rig()
    fields = {"segment": "c", "kind": "level", "detector": "scan", "onset_ms": 0, "size": 1.0}
    texts = {"weights_version": "v1", "description": "", "action": "", "alert_id": "a"}
    alert = msgspec.convert({**fields, **texts, "state": "drift", "detected_at_ms": 5}, DriftAlert)
    state = OwnerState(
        resolution_ms=HOUR_MS,
        decided_until_ms=0,
        offsets={},
        part=0,
        parts=2,
        tensions={"shoes": 0.5},
        state="xyz",
    )
    key, value = b"drift@3600000/0", encode(state)
    told = [(DRIFT, b"c", encode(alert)), (DRIFT, b"c", b"{"), (OWNER, key, b"{")]
    told += [(OWNER, b"drift@86400000/0", value), (OWNER, b"drift@3600000/1", value)]
    told.append((OWNER, key, value))
    rig.models.records = [TableRecord(*record, 50, 0, 0) for record in told]
    rig.inputs.poll(0)
    assert rig.inputs.alarms.held() == [alert] and rig.tensions == [{"shoes": 0.5}]


def test_decisions_go_to_their_table() -> None:
    rig = Rig()
    made = AdjustmentDecision(resolution_ms=HOUR_MS, as_of_ms=7, weights_version="v")
    key, value = encoded_decision(made)
    rig.models.records = [TableRecord(DECISIONS, key.encode(), value, 50, 0, 0)]
    rig.inputs.poll(0)
    newest = rig.inputs.decisions.newest(HOUR_MS)
    assert newest is not None and newest.record == made
