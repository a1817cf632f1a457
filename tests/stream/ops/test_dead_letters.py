"""Dead letters and late records are found by filters, and go back to where they came from."""

from __future__ import annotations

import pytest

from freshet.stream.config import KafkaSettings, Settings, Topics
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.events.dead_letter import Source, dead_letter, late_record, limit_of
from freshet.stream.kafka import Outgoing, Publisher, TableReader, ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.ops.dead_letters import DeadLetterFilter, list_dead_letters, show_dead_letter
from freshet.stream.ops.redrive import Redriven, original_of, redrive

LIMIT = limit_of(KafkaSettings(max_record_bytes=1_000))


def source(
    value: bytes | None = b"{",
    key: bytes | None = b"k",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> Source:
    return Source("orders", 3, 17, 1_000, key, value, headers or [])


def received(sent: Outgoing) -> Source:
    """A dead letter or a late record as it is read back from its topic."""
    return Source(sent.topic, 0, 0, 0, sent.key, sent.value, list(sent.headers))


def test_redriving_gives_back_the_original_and_names_it() -> None:
    letter = dead_letter(source(headers=[("trace", b"1")]), "decode", "Bad", "x", LIMIT)
    back = original_of(received(letter), {"orders": 4})
    assert back is not None
    assert (back.topic, back.partition, back.key, back.value) == ("orders", 3, b"k", b"{")
    assert back.headers == [("trace", b"1"), ("freshet-redrive", b"orders-3-17")]


def test_a_cut_dead_letter_is_not_sent_again() -> None:
    letter = dead_letter(source(b"v" * 200_000), "decode", "Bad", "x", LIMIT)
    assert original_of(received(letter), {"orders": 4}) is None


@pytest.fixture
def settings(mock_broker: str, request: pytest.FixtureRequest) -> Settings:
    name = request.node.name[-40:]
    topics = Topics(orders=f"{name}.orders", clicks=f"{name}.clicks")
    kafka = KafkaSettings(bootstrap_servers=mock_broker, group_prefix=name, topics=topics)
    settings = Settings(kafka=kafka)
    ensure_topics(settings, live=False)
    return settings


def send_dead_letters(settings: Settings, values: list[bytes]) -> None:
    topic = settings.kafka.topics.orders
    with Publisher(settings) as publisher:
        for offset, value in enumerate(values):
            record = dead_letter(
                Source(topic, 0, offset, 0, b"k", value, []), "decode", "Bad", "x", LIMIT
            )
            publisher.produce(record.topic, record.value, key=record.key, headers=record.headers)


def test_dead_letters_are_listed_with_where_they_came_from(settings: Settings) -> None:
    send_dead_letters(settings, [b"one", b"\xff"])
    letters = list_dead_letters(settings)
    topic = settings.kafka.topics.orders
    assert [letter.as_dict()["value"] for letter in letters] == ["one", "�"]
    assert letters[0].as_text() == f"{topic}-0-0  decode/Bad: x  'one'"
    assert len(list_dead_letters(settings, DeadLetterFilter(topic), most=1)) == 1
    assert list_dead_letters(settings, DeadLetterFilter(settings.kafka.topics.clicks)) == []


def test_a_topic_that_nobody_reads_has_no_dead_letters(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="is no topic that freshet reads"):
        list_dead_letters(settings, DeadLetterFilter("shop.other"))


def test_a_redrive_goes_on_where_the_last_one_ended(settings: Settings) -> None:
    topic = settings.kafka.topics.orders
    send_dead_letters(settings, [b"one", b"two", b"v" * 200_000])
    assert str(redrive(settings)) == "2 dead letters (1 were cut and stay)"
    assert str(redrive(settings)) == "0 dead letters"
    send_dead_letters(settings, [b"three"])
    assert redrive(settings, DeadLetterFilter(topic)).sent == 1
    assert redrive(settings, DeadLetterFilter(topic), from_start=True, most=2).sent == 2
    with TableReader(settings, [topic]) as reader:
        records = reader.read_to_end()
    assert sorted(record.value or b"" for record in records)[:3] == [b"one", b"one", b"three"]
    assert dict(records[0].headers)["freshet-redrive"] == f"{topic}-0-0".encode()
    with TableReader(settings, [dead_letter_topic(topic)]) as reader:
        assert len(reader.read_to_end()) == 4


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


def test_dead_letters_are_filtered_by_error_and_time_and_one_is_shown_whole(
    settings: Settings,
) -> None:
    topic = settings.kafka.topics.orders
    with Publisher(settings) as publisher:
        for offset, (stage, wrong) in enumerate(
            [("decode", "Undecodable"), ("future", "FutureEvent")]
        ):
            record = dead_letter(
                Source(topic, 1, offset, 0, b"k", b"\xff", [("trace", b"7")]),
                stage,
                wrong,
                "x",
                LIMIT,
            )
            publisher.produce(
                record.topic,
                record.value,
                headers=record.headers,
                timestamp_ms=1_000 * (offset + 1),
            )
    assert [
        letter.place
        for letter in list_dead_letters(settings, DeadLetterFilter(error="futureevent"))
    ] == [f"{topic}-1-1"]
    decode, future = f"{topic}-1-0", f"{topic}-1-1"
    filters = {
        future: [DeadLetterFilter(error="futureevent"), DeadLetterFilter(from_ms=1_001)],
        decode: [DeadLetterFilter(error="decode"), DeadLetterFilter(to_ms=2_000)],
    }
    for place, narrow in filters.items():
        for wanted in narrow:
            assert [found.place for found in list_dead_letters(settings, wanted)] == [place]
    page = show_dead_letter(settings, f"{topic}-1-1").as_page()
    assert "future/FutureEvent: x" in page and "trace: 7" in page
    with pytest.raises(InvalidInputError, match="no dead letter of 'nowhere-0-0'"):
        show_dead_letter(settings, "nowhere-0-0")


def test_a_filtered_redrive_sends_what_it_names_and_leaves_the_place_of_the_next_one_alone(
    settings: Settings,
) -> None:
    topic = settings.kafka.topics.orders
    send_dead_letters(settings, [b"one", b"two"])
    assert redrive(settings, DeadLetterFilter(error="Good")).skipped == 2
    assert redrive(settings, DeadLetterFilter(error="Bad"), most=1).sent == 1
    assert redrive(settings).sent == 2
    with TableReader(settings, [topic]) as reader:
        records = reader.read_to_end()
    assert {record.partition for record in records} == {0} and len(records) == 3


def send_late(settings: Settings, values: list[tuple[str, bytes]]) -> None:
    """Late records of some topics, all into the late topic's partition 0."""
    late = settings.kafka.topics.late
    with Publisher(settings) as publisher:
        for offset, (topic, value) in enumerate(values):
            record = late_record(Source(topic, 1, offset, 0, b"k", value, []), late, LIMIT)
            publisher.produce(
                late, record.value, key=record.key, headers=record.headers, partition=0
            )


def values_in(settings: Settings, topic: str) -> list[bytes]:
    with TableReader(settings, [topic]) as reader:
        return sorted(record.value or b"" for record in reader.read_to_end())


def test_a_redrive_of_late_orders_does_not_pass_by_the_clicks_between_them(
    settings: Settings,
) -> None:
    topics = settings.kafka.topics
    own = f"{topics.orders}.late"
    settings = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(
                update={"topics": topics.model_copy(update={"late": own})}
            )
        }
    )
    ensure_topics(settings, live=False)
    send_late(settings, [(topics.orders, b"o1"), (topics.clicks, b"c1"), (topics.orders, b"o2")])
    orders_only = DeadLetterFilter(topics.orders, late=True)
    assert redrive(settings, orders_only) == Redriven(sent=2, skipped=1)
    assert values_in(settings, topics.clicks) == []
    assert redrive(settings, DeadLetterFilter(late=True)) == Redriven(sent=3)
    assert values_in(settings, topics.clicks) == [b"c1"]
    assert redrive(settings, DeadLetterFilter(late=True)) == Redriven()
    assert redrive(settings, orders_only) == Redriven(sent=2, skipped=1), "a filter looks at all"
    assert values_in(settings, topics.orders) == [b"o1"] * 3 + [b"o2"] * 3


def test_a_redrive_without_a_filter_sends_orders_and_clicks_and_counts_both_towards_the_most(
    settings: Settings,
) -> None:
    topics = settings.kafka.topics
    with Publisher(settings) as publisher:
        for topic, value in ((topics.orders, b"o"), (topics.clicks, b"c"), (topics.clicks, b"d")):
            record = dead_letter(Source(topic, 0, 1, 0, b"k", value, []), "decode", "B", "x", LIMIT)
            publisher.produce(record.topic, record.value, key=record.key, headers=record.headers)
    assert redrive(settings, most=2) == Redriven(sent=2)
    assert (values_in(settings, topics.orders), values_in(settings, topics.clicks)) == (
        [b"o"],
        [b"c"],
    )
    assert redrive(settings, DeadLetterFilter(topics.clicks)) == Redriven(sent=1)
    assert values_in(settings, topics.orders) == [b"o"]
    assert values_in(settings, topics.clicks) == [b"c", b"d"]


def test_a_redrive_goes_on_batch_after_batch_and_keeps_its_place_after_each(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshet.stream.ops.redrive.REDRIVE_BATCH", 2)
    values = [b"v%d" % n for n in range(5)]
    send_dead_letters(settings, values)
    assert redrive(settings, most=3) == Redriven(sent=3)
    assert values_in(settings, settings.kafka.topics.orders) == values[:3]
    assert redrive(settings) == Redriven(sent=2)
    assert values_in(settings, settings.kafka.topics.orders) == values


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
