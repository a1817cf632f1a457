"""How large the batches of a source are, and on which topics a simulated shop sends."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.kafka.topics import TopicReport
from freshet.stream.source.process import _slice_ms

module: Any = import_module("freshet.stream.source.process")


def test_a_slice_is_a_tenth_of_a_second_within_limits() -> None:
    assert [_slice_ms(speed) for speed in (0.01, 1.0, 900.0, 3_600.0, 1e9)] == [
        1_000,
        1_000,
        90_000,
        360_000,
        900_000,
    ]


def test_a_simulated_shop_makes_topics_of_its_time_and_tells_of_those_with_the_brokers_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    told: list[Any] = []
    clock = "message.timestamp.type: expected CreateTime, found LogAppendTime"
    found = [
        TopicReport("freshet.orders.v1", "exists", 4, (), ("partitions: ...", clock)),
        TopicReport("freshet.clicks.v1", "created", 4),
        TopicReport("freshet.alerts.v1", "exists", 4, (), (clock,)),
    ]

    def ensure(settings: Settings, *, live: bool) -> list[TopicReport]:
        asked.append(live)
        return found

    monkeypatch.setattr(module, "ensure_topics", ensure)
    monkeypatch.setattr(module.log, "warning", lambda event, **said: told.append((event, said)))
    module._make_topics(Settings())
    assert asked == [False]
    assert [(event, said["topic"], said["found"]) for event, said in told] == [
        ("topic_clock", "freshet.orders.v1", clock)
    ]
