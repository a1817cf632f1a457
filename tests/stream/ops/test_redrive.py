"""Dead letters go back whole, once, to where they came from, on a broker that is made up."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from freshet.stream.config import KafkaSettings, Settings, Topics
from freshet.stream.errors import BrokerError
from freshet.stream.events.dead_letter import Outgoing, Source, dead_letter, late_record, limit_of
from freshet.stream.kafka import Cluster, RecordsRefusedError, Silence, TableRecord
from freshet.stream.kafka.publisher import Refusal
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.ops.dead_letters import DeadLetterFilter
from freshet.stream.ops.redrive import Redriven, original_of, redrive
from freshet.stream.schemas import RECORDS

LIMIT = limit_of(KafkaSettings(max_record_bytes=1_000))
SETTINGS = Settings(kafka={"topics": Topics(orders="orders", clicks="clicks", late="late")})
PARTITIONS = {"orders": 2, "clicks": 4, "orders.dlq": 2}  # All others have one.
NEVER_KEPT = -1_001
MAX_BYTES = 1_000


def source(
    value: bytes | None = b"{",
    key: bytes | None = b"k",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> Source:
    return Source("orders", 3, 17, 1_000, key, value, headers or [])


def received(sent: Outgoing) -> Source:
    """A dead letter or a late record as it is read back from its topic."""
    return Source(sent.topic, 0, 0, 0, sent.key, sent.value, sent.headers)


@dataclass
class Broker:
    """Topics in memory; `kept` are committed offsets, `done` the order of what is durable."""

    logs: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    kept: dict[tuple[str, int], int] = field(default_factory=dict)
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    batch: int = 100
    reads: int = 0
    tables: list[TableRecord] = field(default_factory=list)
    missing: frozenset[str] = frozenset()
    open: int = 0
    down: bool = False
    silent: bool = False
    after_assign: Callable[[], None] = lambda: None
    after_read: Callable[[], None] = lambda: None

    def hold(self, record: Outgoing, partition: int = 0, timestamp_ms: int = 1_000) -> None:
        log = self.logs.setdefault((record.topic, partition), [])
        log.append(
            Message(
                topic=record.topic,
                partition=partition,
                offset=len(log),
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                timestamp=(1, timestamp_ms),
            )
        )

    def consumer(self, settings: Settings, group: str, **over: Any) -> Reader:
        assert (settings, group) == (SETTINGS, "redrive")
        assert over == {"auto_offset_reset": "earliest", "enable_partition_eof": True}
        self.open += 1
        return Reader(self)

    def cluster(self, settings: Settings) -> Cluster:
        known = settings.kafka.topics.of(*RECORDS)
        topics = {*known, *map(dead_letter_topic, known), "late"} - self.missing
        return Cluster(1, True, self.partitions_of(settings, sorted(topics)))

    def partitions_of(self, settings: Settings, topics: list[str]) -> dict[str, int]:
        if not self.missing.isdisjoint(topics):
            raise BrokerError("there is no such topic")
        return {topic: PARTITIONS.get(topic, 1) for topic in topics}

    def publisher(self, settings: Settings) -> Sender:
        return Sender(self)

    @property
    def values(self) -> list[bytes]:
        return [value for _, _, _, value, _ in self.sent]


class Reader:
    """Gives what is there, partition by partition, and then says once of each that it ends."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at: dict[tuple[str, int], int] = {}
        self._ended: set[tuple[str, int]] = set()

    def get_watermark_offsets(self, at: TopicPartition, timeout_s: float) -> tuple[int, int]:
        return 0, len(self._broker.logs.get((at.topic, at.partition), []))

    def committed(self, places: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        kept = self._broker.kept
        return [
            TopicPartition(at.topic, at.partition, kept.get((at.topic, at.partition), NEVER_KEPT))
            for at in places
        ]

    def assign(self, places: list[TopicPartition]) -> None:
        self._at = {(at.topic, at.partition): at.offset for at in places}
        assert all(offset >= 0 for offset in self._at.values())
        self._broker.after_assign()

    def consume(self, most: int, wait_s: float) -> list[Message]:
        if self._broker.silent:
            return []
        self._broker.reads += 1
        self._broker.after_read()
        assert self._broker.reads < 100, "it reads on and on"
        found: list[Message] = []
        for at, position in self._at.items():
            room = min(most, self._broker.batch) - len(found)
            found += self._broker.logs.get(at, [])[position : position + room]
            self._at[at] = position + sum(
                (message.topic(), message.partition()) == at for message in found
            )
        return found or self._ends()

    def _ends(self) -> list[Message]:
        eof = KafkaError(KafkaError._PARTITION_EOF)
        told = [at for at in self._at if at not in self._ended]
        self._ended |= set(told)
        return [Message(topic=t, partition=n, offset=self._at[t, n], error=eof) for t, n in told]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        self._broker.kept |= {(at.topic, at.partition): at.offset for at in offsets}
        self._broker.done.append("kept")

    def close(self) -> None:
        self._broker.open -= 1


class Sender:
    """A publisher whose records are sent once it is flushed."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._queue: list[tuple[Any, ...]] = []

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def produce(
        self, topic: str, value: bytes, *, key: Any, partition: int = -1, headers: Any = ()
    ) -> None:
        self._queue.append((topic, partition, key, value, headers))

    def flush(self, *, stopped: Callable[[], bool]) -> None:
        if self._broker.down:
            raise BrokerError("gone")
        assert not stopped()
        queue, self._queue = self._queue, []
        too_large = [record for record in queue if len(record[3]) > MAX_BYTES]
        self._broker.sent += [record for record in queue if record not in too_large]
        self._broker.done.append("sent")
        if too_large:
            reason = "too large"
            refusals = [Refusal(t, key, value, reason, True) for t, _, key, value, _ in too_large]
            raise RecordsRefusedError(refusals)


class Table:
    """A table reader that is given what the topics hold."""

    def __init__(self, broker: Broker, topics: list[str]) -> None:
        self._records = [record for record in broker.tables if record.topic in topics]

    def to_end(self) -> list[TableRecord]:
        return self._records

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    ops = "freshet.stream.ops"
    for name in ("consumer", "partitions_of"):
        monkeypatch.setattr(f"{ops}.redrive.{name}", getattr(broker, name))
    monkeypatch.setattr(f"{ops}.dead_letters.cluster", broker.cluster)
    monkeypatch.setattr(f"{ops}.redrive.Publisher", broker.publisher)
    monkeypatch.setattr(
        f"{ops}.superseded.TableReader", lambda settings, topics: Table(broker, topics)
    )
    return broker


def letter(value: bytes, topic: str = "orders", error: str = "Bad", **over: Any) -> Outgoing:
    """A dead letter of a topic's partition 1."""
    came = Source(topic, 1, 7, 0, b"k", value, over.get("headers", []))
    return dead_letter(came, "decode", error, "x", LIMIT)


CUT = b"v" * 200_000


CATALOG = "freshet.catalog.v1"


def entry(
    offset: int, key: bytes | None = b"k", timestamp_ms: int = 10, partition: int = 0
) -> Outgoing:
    """A dead letter of the catalogue, its value the offset that its record has there."""
    came = Source(CATALOG, partition, offset, timestamp_ms, key, b"%d" % offset, [])
    return dead_letter(came, "control", "EventError", "x", LIMIT)


def held(
    offset: int, key: bytes | None = b"k", timestamp_ms: int = 10, partition: int = 0
) -> TableRecord:
    """A record that the catalogue holds."""
    return TableRecord(CATALOG, key, b"{}", timestamp_ms, partition, offset)


def test_all_new_dead_letters_go_back_to_their_partitions_and_the_place_after_them_is_kept(
    broker: Broker,
) -> None:
    broker.hold(letter(b"sent before"))
    broker.hold(letter(b"a", headers=[("trace", b"1")]))
    broker.hold(letter(CUT))
    broker.hold(letter(b"b", headers=[("freshet-redrive", b"orders-0-2")]), partition=1)
    gone = Source("clicks", 9, 4, 0, b"who", b"c", [])
    broker.hold(dead_letter(gone, "decode", "Bad", "x", LIMIT))
    broker.kept["orders.dlq", 0] = 1
    assert str(redrive(SETTINGS)) == "3 dead letters (1 were cut and stay)"
    assert broker.sent == [
        ("orders", 1, b"k", b"a", [("trace", b"1"), ("freshet-redrive", b"orders-1-7")]),
        ("orders", 1, b"k", b"b", [("freshet-redrive", b"orders-0-2")]),
        ("clicks", -1, b"who", b"c", [("freshet-redrive", b"clicks-9-4")]),
    ]
    assert broker.kept == {("orders.dlq", 0): 3, ("orders.dlq", 1): 1, ("clicks.dlq", 0): 1}
    assert redrive(SETTINGS) == Redriven()
    assert len(broker.sent) == 3 and broker.open == 0


def test_what_was_sent_and_what_was_cut_count_towards_the_most_over_both_topics(
    broker: Broker,
) -> None:
    for value in (CUT, b"a"):
        broker.hold(letter(value))
    for value in (b"c", b"d", b"e"):
        broker.hold(letter(value, "clicks"))
    assert redrive(SETTINGS, most=3) == Redriven(sent=2, cut=1)
    assert broker.values == [b"a", b"c"]
    assert broker.kept == {("orders.dlq", 0): 2, ("clicks.dlq", 0): 1}
    assert redrive(SETTINGS, most=0) == Redriven()
    assert redrive(SETTINGS, most=1) == Redriven(sent=1)
    assert redrive(SETTINGS) == Redriven(sent=1)
    assert broker.values == [b"a", b"c", b"d", b"e"]


def test_records_are_acknowledged_batch_by_batch_before_their_place_is_kept(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshet.stream.ops.redrive.REDRIVE_BATCH", 2)
    for value in (b"a", b"b", b"c"):
        broker.hold(letter(value))
    assert redrive(SETTINGS, DeadLetterFilter("orders")) == Redriven(sent=3)
    assert broker.done[:4] == ["sent", "kept"] * 2
    assert broker.kept == {("orders.dlq", 0): 3}


def test_what_was_not_acknowledged_is_sent_again_the_next_time(broker: Broker) -> None:
    broker.hold(letter(b"a"))
    broker.down = True
    with pytest.raises(BrokerError):
        redrive(SETTINGS)
    assert (broker.kept, broker.open) == ({}, 0)
    broker.down = False
    assert redrive(SETTINGS) == Redriven(sent=1)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_fails_again_meanwhile_is_left_for_the_next_redrive(
    broker: Broker, batch: int
) -> None:
    broker.batch = batch
    for value in (b"a", b"b"):
        broker.hold(letter(value))
    broker.after_assign = lambda: broker.hold(letter(b"again"))
    wanted = DeadLetterFilter("orders")
    assert redrive(SETTINGS, wanted) == Redriven(sent=2)
    assert (broker.values, broker.kept) == ([b"a", b"b"], {("orders.dlq", 0): 2})
    assert redrive(SETTINGS, wanted) == Redriven(sent=1)
    assert broker.values[2:] == [b"again"]


def test_a_filter_looks_at_all_of_them_and_leaves_the_place_of_the_next_redrive_alone(
    broker: Broker,
) -> None:
    for value, error in ((b"a", "Bad"), (b"b", "Worse"), (b"c", "Bad")):
        broker.hold(letter(value, error=error))
    broker.kept["orders.dlq", 0] = 2
    assert redrive(SETTINGS, DeadLetterFilter(error="bad")) == Redriven(sent=2, skipped=1)
    assert broker.values == [b"a", b"c"]
    assert redrive(SETTINGS, DeadLetterFilter(error="bad"), most=1) == Redriven(sent=1)
    assert broker.kept == {("orders.dlq", 0): 2}
    assert redrive(SETTINGS) == Redriven(sent=1)
    assert broker.kept == {("orders.dlq", 0): 3}
    assert redrive(SETTINGS, from_start=True, most=2) == Redriven(sent=2)
    assert broker.values[-2:] == [b"a", b"b"]


def test_late_orders_that_are_redriven_do_not_pass_by_the_clicks_between_them(
    broker: Broker,
) -> None:
    for topic, value in (("orders", b"o1"), ("clicks", b"c1"), ("orders", b"o2")):
        broker.hold(late_record(Source(topic, 1, 5, 0, b"k", value, []), "late", LIMIT))
    orders = DeadLetterFilter("orders", late=True)
    assert redrive(SETTINGS, orders) == Redriven(sent=2, skipped=1)
    assert (broker.values, broker.kept) == ([b"o1", b"o2"], {})
    assert redrive(SETTINGS, DeadLetterFilter(late=True)) == Redriven(sent=3)
    assert broker.kept == {("late", 0): 3}
    assert redrive(SETTINGS, DeadLetterFilter(late=True)) == Redriven()
    assert redrive(SETTINGS, orders) == Redriven(sent=2, skipped=1), "a filter looks at all"


def test_a_letter_of_a_table_stays_where_the_table_holds_a_newer_record_of_its_key(
    broker: Broker,
) -> None:
    broker.tables = [held(4), held(5), held(9, b"other"), held(6, b"n"), held(7, b"n")]
    for offset, key in ((4, b"k"), (5, b"k"), (6, b"n"), (8, b"new")):
        broker.hold(entry(offset, key))
    assert str(redrive(SETTINGS)) == (
        "2 dead letters (2 were superseded by newer records and stay)"
    )
    assert broker.values == [b"5", b"8"]
    assert broker.kept == {(f"{CATALOG}.dlq", 0): 4}


def test_sent_again_a_letter_of_a_table_stays_behind_its_own_copy(broker: Broker) -> None:
    broker.hold(entry(5))
    broker.tables = [held(5)]
    assert redrive(SETTINGS, DeadLetterFilter(CATALOG)) == Redriven(sent=1)
    broker.tables.append(held(6, timestamp_ms=20))
    again = redrive(SETTINGS, DeadLetterFilter(CATALOG), from_start=True)
    assert (again, broker.values) == (Redriven(superseded=1), [b"5"])


def test_on_another_partition_and_on_a_topic_made_again_the_timestamp_says_what_is_newer(
    broker: Broker,
) -> None:
    for offset, key in ((500, b"made again"), (501, b"moved"), (502, b"moved long ago")):
        broker.hold(entry(offset, key, timestamp_ms=10))
    broker.tables = [
        held(3, b"made again", 11),
        held(900, b"moved", 11, partition=2),
        held(901, b"moved long ago", 9, partition=2),
    ]
    assert redrive(SETTINGS, DeadLetterFilter(CATALOG)) == Redriven(sent=1, superseded=2)
    assert broker.values == [b"502"]


def test_letters_of_what_is_no_table_go_back_whatever_came_after_them(broker: Broker) -> None:
    topics = SETTINGS.kafka.topics
    others = [topics.drift, topics.retrain, topics.alerts, topics.forecasts, topics.scores]
    for topic in others:
        broker.hold(letter(topic.encode(), topic))
        broker.tables.append(TableRecord(topic, b"k", b"newer", 99, 1, 8))
    assert redrive(SETTINGS) == Redriven(sent=5)
    assert {value.decode() for value in broker.values} == set(others)


def test_a_record_that_kafka_never_takes_stays_and_holds_up_no_other(broker: Broker) -> None:
    for value in (b"a", b"x" * (MAX_BYTES + 1), b"b"):
        broker.hold(letter(value))
    assert str(redrive(SETTINGS)) == "2 dead letters (1 were refused by Kafka and stay)"
    assert broker.values == [b"a", b"b"]
    assert broker.kept == {("orders.dlq", 0): 3}


def test_dead_letter_topics_that_an_older_cluster_lacks_are_passed_over_unless_named(
    broker: Broker,
) -> None:
    broker.missing = frozenset({"freshet.drift.v1.dlq", "freshet.drift.v1"})
    broker.hold(letter(b"a"))
    assert redrive(SETTINGS) == Redriven(sent=1)
    with pytest.raises(BrokerError, match="no such topic"):
        redrive(SETTINGS, DeadLetterFilter("freshet.drift.v1"))


def test_a_letter_that_comes_to_an_empty_partition_meanwhile_waits_for_the_next_redrive(
    broker: Broker,
) -> None:
    broker.hold(letter(b"a"))
    broker.after_assign = lambda: broker.hold(letter(b"meanwhile"), partition=1)
    assert redrive(SETTINGS, DeadLetterFilter("orders")) == Redriven(sent=1)
    assert redrive(SETTINGS, DeadLetterFilter("orders")) == Redriven(sent=1)
    assert broker.values == [b"a", b"meanwhile"]


def test_a_topic_that_grows_all_the_time_is_read_to_the_end_that_it_had(broker: Broker) -> None:
    broker.batch = 1
    for value in (b"a", b"b", b"c"):
        broker.hold(letter(value))
    broker.after_read = lambda: broker.hold(letter(b"more"))
    assert redrive(SETTINGS, DeadLetterFilter("orders")) == Redriven(sent=3)
    assert (broker.values, broker.reads) == ([b"a", b"b", b"c"], 3)


def test_no_more_are_sent_than_was_asked_in_however_many_reads(broker: Broker) -> None:
    broker.batch = 2
    for value in (b"a", b"b", b"c", b"d"):
        broker.hold(letter(value))
    assert redrive(SETTINGS, DeadLetterFilter("orders"), most=3) == Redriven(sent=3)
    assert (broker.values, broker.reads) == ([b"a", b"b", b"c"], 2)


def test_every_letter_that_was_tried_counts_and_what_was_not_wanted_does_not() -> None:
    both = Redriven(1, 2, 3, 4, 5) + Redriven(10, 20, 30, 40, 50)
    assert both == Redriven(sent=11, cut=22, superseded=33, refused=44, skipped=55)
    assert both.tried == 110


@pytest.mark.parametrize(
    ("unsaid", "record", "stays"),
    [
        ("timestamp_ms", held(9), True),
        ("timestamp_ms", held(9, timestamp_ms=99, partition=2), False),
        ("timestamp_ms", held(5), False),
        ("offset", held(0), True),
        ("offset", held(9, partition=2), False),
    ],
)
def test_of_a_tables_letter_that_does_not_say_all_of_its_place_the_rest_counts(
    broker: Broker, unsaid: str, record: TableRecord, stays: bool
) -> None:
    old = entry(5)
    said = [pair for pair in old.headers if pair[0] != f"freshet.error.{unsaid}"]
    broker.hold(old._replace(headers=said))
    broker.tables = [record]
    expected = Redriven(superseded=1) if stays else Redriven(sent=1)
    assert redrive(SETTINGS, DeadLetterFilter(CATALOG)) == expected


def test_a_tables_letter_without_a_key_has_nothing_newer(broker: Broker) -> None:
    broker.hold(entry(5, key=None))
    broker.tables = [held(9, key=None)]
    assert redrive(SETTINGS, DeadLetterFilter(CATALOG)) == Redriven(sent=1)


def test_a_long_log_is_no_silence(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.batch = 1
    for _ in range(40):
        broker.hold(letter(b"a"))
    seconds = itertools.count()
    silence = partial(Silence, now_s=lambda: next(seconds))
    monkeypatch.setattr("freshet.stream.ops.redrive.Silence", silence)
    assert redrive(SETTINGS, DeadLetterFilter("orders")) == Redriven(sent=40)


def test_a_broker_that_falls_silent_ends_a_redrive(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.hold(letter(b"a"))
    broker.silent = True
    seconds = itertools.count()
    silence = partial(Silence, now_s=lambda: next(seconds))
    monkeypatch.setattr("freshet.stream.ops.redrive.Silence", silence)
    with pytest.raises(BrokerError, match="has said nothing for 30 s"):
        redrive(SETTINGS)
    assert next(seconds) == 32 and broker.open == 0


# One record ---------------------------------------------------------------------------------------


def test_redriving_gives_back_the_original_and_names_it() -> None:
    letter = dead_letter(source(headers=[("trace", b"1")]), "decode", "Bad", "x", LIMIT)
    back = original_of(received(letter), {"orders": 4})
    assert back is not None
    assert (back.topic, back.partition, back.key, back.value) == ("orders", 3, b"k", b"{")
    assert back.headers == [("trace", b"1"), ("freshet-redrive", b"orders-3-17")]


def test_each_line_of_a_record_goes_back_under_a_name_of_its_own() -> None:
    partitions = {"orders": 9}
    history = ("freshet-history", b"2024:7")
    for came in ([], [("freshet-redrive", b"orders-0-1")], [("freshet-redrive", b"orders-0-1#2")]):
        first = came[0][1].removesuffix(b"#2") if came else b"orders-3-17"
        headers = [history, *came, ("freshet-line", b"2")]
        letter = dead_letter(source(headers=headers), "decode", "Bad", "x", LIMIT)
        back = original_of(received(letter), partitions)
        assert back is not None
        assert dict(back.headers)["freshet-redrive"] == first + b"#2"
        assert history in back.headers, "it is history again, whatever a person sends"
        assert dict(back.headers)["freshet-line"] == b"2"


def test_a_cut_dead_letter_is_not_sent_again() -> None:
    letter = dead_letter(source(b"v" * 200_000), "decode", "Bad", "x", LIMIT)
    assert original_of(received(letter), {"orders": 4}) is None


def test_a_record_that_fails_again_keeps_the_place_of_the_very_first_one() -> None:
    first = ("freshet-redrive", b"orders-3-2")
    letter = dead_letter(source(headers=[first]), "decode", "Bad", "x", LIMIT)
    back = original_of(received(letter), {"orders": 4})
    assert back is not None and back.headers == [first]


def test_a_late_record_goes_back_to_the_topic_and_partition_it_came_from() -> None:
    late = late_record(source(b"{}"), "late", LIMIT)
    back = original_of(received(late), {"orders": 4, "clicks": 4})
    assert back is not None
    assert (back.topic, back.partition, back.headers) == (
        "orders",
        3,
        [("freshet-redrive", b"orders-3-17")],
    )


@pytest.mark.parametrize(
    ("topic", "partition", "sent_to"),
    [
        ("orders", 2, 2),
        ("orders", 3, 3),
        ("orders", 4, -1),
        ("orders", 9, -1),
        ("clicks", 1, 1),
        ("clicks", 2, -1),
        ("elsewhere", 0, None),
    ],
)
def test_a_record_goes_back_to_its_partition_or_where_that_is_gone_to_its_keys(
    topic: str, partition: int, sent_to: int | None
) -> None:
    came = Source(topic, partition, 17, 1_000, b"k", b"{", [])
    letter = dead_letter(came, "decode", "Bad", "x", LIMIT)
    back = original_of(received(letter), {"orders": 4, "clicks": 2})
    assert (None if back is None else back.partition) == sent_to


def test_a_dead_letter_without_the_notes_of_its_place_cannot_go_back() -> None:
    letter = Source("orders.dlq", 0, 0, 0, b"k", b"{", [("freshet.error.topic", b"orders")])
    assert original_of(letter, {"orders": 4}) is None
