"""Dead letters and late records are found by filters, and go back to where they came from."""

from __future__ import annotations

import pytest

from freshet.stream.config import KafkaSettings, Settings, Topics
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.events.dead_letter import Source, dead_letter, limit_of
from freshet.stream.kafka import Publisher, TableReader, ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.ops.dead_letters import DeadLetterFilter, list_dead_letters, show_dead_letter
from freshet.stream.ops.redrive import redrive

LIMIT = limit_of(KafkaSettings(max_record_bytes=1_000))


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
