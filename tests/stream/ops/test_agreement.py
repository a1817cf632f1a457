"""History is not sent beside live records of another rule of placing, or of other regions."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.kafka import Cluster
from freshet.stream.ops.agreement import held_against_topic, placed_otherwise
from freshet.stream.ops.doctor import Check
from freshet.stream.ops.trial import RawRecord
from freshet.stream.source.history import History, OldRecord

module: Any = import_module("freshet.stream.ops.agreement")
STATES = Settings(events={"orders": {"mode": "state"}})
EVENTS = Settings()
# By the hashes in Kafka's own tests, less their sign bit: all three are multiples of three.
BY_KAFKA = {b"21": 0, b"foobar": 0, b"abc": 0}
AT_MS = 1_700_000_000_000


def order(region: str, order_id: str = "21") -> bytes:
    line = {"sku": "a", "quantity": 1, "unit_price": 1}
    value = {"event_id": order_id, "order_id": order_id, "event_time": AT_MS, "version": 1}
    return json.dumps(value | {"region": region, "lines": [line], **line}).encode()


def live(region: str, shift: int) -> list[RawRecord]:
    """Eighteen records, each `shift` partitions from where its key belongs."""
    return [
        RawRecord(
            order(region, key.decode()),
            key,
            timestamp_ms=AT_MS,
            partition=(number + shift) % 3,
        )
        for key, number in BY_KAFKA.items()
        for _ in range(6)
    ]


def history(region: str) -> History:
    return History("old.csv", [OldRecord(0, "orders", b"21", order(region))], 1)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[RawRecord]:
    """What lies on the topic of orders."""
    records: list[RawRecord] = []
    monkeypatch.setattr(module, "newest", lambda settings, name, most: records)
    monkeypatch.setattr(module, "partitions_of", lambda settings, names: dict.fromkeys(names, 3))
    return records


def test_keys_where_kafka_puts_them_are_right_and_few_elsewhere_are_of_before() -> None:
    assert placed_otherwise(live("n", 0), 3) == ""
    assert placed_otherwise([*live("n", 0), live("n", 1)[0]], 3) == ""
    assert placed_otherwise(live("n", 1)[:4], 3) == "", "four say nothing"
    assert placed_otherwise([RawRecord(b"1", None)] * 20, 3) == ""
    assert placed_otherwise(live("n", 1), 3).startswith("18 of 18 keys do not lie")


def test_states_on_other_partitions_than_history_would_go_to_are_refused(
    topic: list[RawRecord],
) -> None:
    topic += live("n", 1)
    with pytest.raises(InvalidInputError, match=r"old\.csv that changes live would count twice"):
        held_against_topic(STATES, history("n"))
    found, said = held_against_topic(EVENTS, history("n"))
    assert (len(list(found.records)), said) == (1, []), "events are no orders that change"


def test_regions_that_history_and_live_records_do_not_share_are_told(
    topic: list[RawRecord],
) -> None:
    assert held_against_topic(STATES, history("-"))[1] == [], "of an empty topic nothing is known"
    topic += live("CA", 0)
    found, said = held_against_topic(STATES, history("-"))
    assert said[0].startswith("history is of the regions -, live records of CA: no series has both")
    assert [one.sequence for one in found.records] == [0]
    assert held_against_topic(STATES, history("CA"))[1] == []


SAID = "18 of 18 keys do not lie on the partition that murmur2 gives them"


def looked_at(
    monkeypatch: pytest.MonkeyPatch, records: list[RawRecord], settings: Settings = STATES
) -> list[Check]:
    """What the doctor says of the topic of orders."""
    checks: Any = import_module("freshet.stream.ops.record_checks")
    there = Cluster(1, True, {settings.kafka.topics.orders: 3}, ())
    monkeypatch.setattr(checks, "newest", lambda settings, name, most: records)
    monkeypatch.setattr(checks, "cluster", lambda settings: there)
    monkeypatch.setattr(checks, "timestamp_types", lambda settings, names: {})
    monkeypatch.setattr(checks, "_now_ms", lambda settings: AT_MS)
    return list(checks.check_events(settings, "orders"))


def test_the_doctor_says_that_live_keys_lie_elsewhere(
    topic: list[RawRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [one for one in looked_at(monkeypatch, live("n", 1)) if one.message == SAID]
    assert [(one.state, one.hint) for one in problems] == [("problem", module.PLACED_BY_MURMUR2)]
    assert SAID not in str(looked_at(monkeypatch, live("n", 0)))
    assert SAID not in str(looked_at(monkeypatch, live("n", 1), EVENTS))


def test_a_trial_of_a_topic_says_that_its_keys_lie_elsewhere(
    topic: list[RawRecord], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("freshet.stream.telemetry.configure_logging", lambda settings: None)
    records: Any = import_module("freshet.stream.ops.trial_records")
    monkeypatch.setattr(records, "newest", lambda settings, name, most: live("n", 1))
    (tmp_path / "freshet.toml").write_text('[events.orders]\nmode = "state"\n')
    asked = ["map", "try", "--topic", "freshet.orders.v1", "--config"]
    said = CliRunner().invoke(app, [*asked, str(tmp_path / "freshet.toml"), "--json"])
    warnings = json.loads(said.stdout)["warnings"]
    assert f"{SAID}; {module.PLACED_BY_MURMUR2}" in warnings
