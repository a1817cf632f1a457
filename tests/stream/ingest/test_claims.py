"""Whether stored windows can be continued, with a store and logs that only remember."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
import structlog

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, LogLostError
from freshet.stream.ingest.claims import Claims, say_gap
from freshet.stream.ingest.identity import TopicIdentity
from freshet.stream.kafka import Key, LogOffsets
from freshet.stream.store.layout import Header
from freshet.stream.store.redis import WindowStore


@dataclass
class Stored:
    """A store of some headers, beside logs and topics without ids."""

    headers: dict[Key, Header]
    logs: dict[Key, tuple[int, int]]

    def partitions(self) -> list[Key]:
        return list(self.headers)

    def header(self, topic: str, partition: int) -> Header | None:
        return self.headers.get((topic, partition))

    def check(self, topic: str, partition: int, ours: str, topic_id: str) -> Header | None:
        return self.header(topic, partition)

    def ranges(self, keys: dict[Key, int | None]) -> dict[Key, tuple[int, int]]:
        return {key: self.logs[key] for key in keys}

    def of(self, topic: str) -> str:
        return ""


STATES = Settings(events={"orders": {"mode": "state"}})


def claims_of(stored: Stored, settings: Settings | None = None) -> Claims:
    return Claims(
        settings or Settings(),
        cast("WindowStore", stored),
        kinds={"orders": "orders", "clicks": "clicks"},
        num_partitions={"orders": 2, "clicks": 1, "other": 9},
        timestamp_types={},
        identity=cast("TopicIdentity", stored),
    )


def check(stored: Stored, settings: Settings | None = None) -> None:
    claims = claims_of(stored, settings)
    assert claims.keys == [("orders", 0), ("orders", 1), ("clicks", 0)]
    claims.check(cast("LogOffsets", stored))


def test_what_the_log_holds_can_be_continued_and_what_was_only_claimed_too() -> None:
    headers = {("orders", 0): Header(next_offset=7), ("clicks", 0): Header()}
    check(Stored(headers, logs={("orders", 0): (3, 7), ("clicks", 0): (5, 9)}))


@pytest.mark.parametrize("offset", [2, 8])
def test_an_offset_outside_the_log_is_refused(offset: int) -> None:
    stored = Stored({("orders", 1): Header(next_offset=offset)}, logs={("orders", 1): (3, 7)})
    with pytest.raises(LogLostError, match=f"orders:1: .* end at offset {offset}"):
        check(stored)


def test_windows_of_a_partition_that_is_gone_are_refused_unless_nothing_was_written() -> None:
    check(Stored({("orders", 2): Header()}, logs={}))
    with pytest.raises(LogLostError, match="orders has 2 partitions, and there are windows of"):
        check(Stored({("orders", 2): Header(next_offset=1)}, logs={}))


def test_other_topics_windows_are_not_ours_to_judge() -> None:
    check(Stored({("another", 5): Header(next_offset=1)}, logs={}))


def test_where_orders_are_states_their_topic_may_not_get_more_partitions() -> None:
    logs = {("orders", 0): (3, 7), ("clicks", 0): (0, 9)}
    grown = {("orders", 0): Header(next_offset=7, num_partitions=1)}
    check(Stored(grown, logs))
    with pytest.raises(
        ConfigError, match=r"orders has 2 partitions and had 1 .*kafka.topics.order"
    ):
        check(Stored(grown, logs), STATES)
    with pytest.raises(ConfigError, match="orders has 2 partitions and had 1"):
        claims_of(Stored(grown, logs), STATES).claim("orders", 0)
    # What has no windows yet, or was begun before this was noted, says nothing.
    begun = {("orders", 0): Header(next_offset=7), ("orders", 1): Header(num_partitions=1)}
    check(Stored(begun, logs | {("orders", 1): (0, 0)}), STATES)
    clicks = {("clicks", 0): Header(next_offset=7, num_partitions=9)}
    check(Stored(clicks, logs), STATES)


def test_a_partition_that_came_while_ingest_ran_ends_it_where_orders_are_states() -> None:
    with pytest.raises(ConfigError, match="orders has 3 partitions and had 2"):
        claims_of(Stored({}, {}), STATES).claim("orders", 2)


@pytest.mark.parametrize(
    ("next_offset", "hint"),
    [
        (
            None,
            "Redis came back without these windows; all is folded anew from the log's",
        ),
        (7, "Redis holds another offset than expected; reading on from"),
    ],
)
def test_after_a_gap_it_says_from_where_it_folds_again(next_offset: int | None, hint: str) -> None:
    with structlog.testing.capture_logs() as lines:
        say_gap(("orders", 2), Header(next_offset=next_offset, first_offset=3), 7, 40)
    where = {"topic": "orders", "partition": 2, "offset": 7, "records": 40}
    assert lines[0].pop("hint").startswith(hint)
    assert lines == [{"event": "gap", "log_level": "warning", **where}]
