"""Dead letters keep what came, say why, and always fit."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import KafkaSettings, Settings, Topics
from stream.deadletter import Source, again, dead_letter, late_record, limit_of, list_letters, redrive
from stream.errors import ConfigError
from stream.kafka import Publisher, TableReader, ensure_topics
from stream.topics import dead_letter_topic

LIMIT = limit_of(KafkaSettings(max_record_bytes=1_000))


def source(
    value: bytes | None = b"{", key: bytes | None = b"k", headers: list[tuple[str, bytes | None]] | None = None
) -> Source:
    return Source("orders", 3, 17, 1_000, key, value, headers or [])


def test_it_keeps_bytes_key_and_headers_and_adds_why() -> None:
    letter = dead_letter(source(b"\xff\x00", headers=[("trace", b"1"), ("none", None)]), "decode", "Bad", "é", LIMIT)
    assert (letter.topic, letter.key, letter.value) == ("orders.dlq", b"k", b"\xff\x00")
    assert letter.headers == [
        ("trace", b"1"),
        ("none", None),
        ("freshet.error.topic", b"orders"),
        ("freshet.error.partition", b"3"),
        ("freshet.error.offset", b"17"),
        ("freshet.error.timestamp_ms", b"1000"),
        ("freshet.error.stage", b"decode"),
        ("freshet.error.class", b"Bad"),
        ("freshet.error.message", "é".encode()),
    ]


def test_a_null_value_stays_null() -> None:
    assert dead_letter(source(None), "decode", "Bad", "null", LIMIT).value is None


def test_an_oversized_value_is_cut_and_its_size_and_hash_are_kept() -> None:
    value = b"v" * 200_000
    letter = dead_letter(source(value), "decode", "Bad", "too large", LIMIT)
    said = dict(letter.headers)
    assert letter.value is not None and value.startswith(letter.value)
    assert 60_000 < len(letter.value) < LIMIT
    assert said["freshet.error.value_bytes"] == b"200000"
    assert said["freshet.error.value_sha256"] == hashlib.sha256(value).hexdigest().encode()


@given(
    st.integers(0, 200_000),
    st.integers(0, 200_000),
    st.lists(st.integers(0, 90_000), max_size=4),
    st.text(max_size=3_000),
)
def test_whatever_came_it_fits_and_nothing_is_cut_that_would_fit(
    value: int, key: int, headers: list[int], text: str
) -> None:
    came = source(b"v" * value, b"k" * key, [("h", b"x" * size) for size in headers])
    letter = dead_letter(came, "decode", "Bad", text, LIMIT)
    sizes = [len(name) + len(data or b"") + 10 for name, data in letter.headers]
    assert len(letter.key or b"") + len(letter.value or b"") + sum(sizes) <= LIMIT - 1_000
    whole = value + key + sum(size + 11 for size in headers) < LIMIT - 5_000
    cut = any(name.endswith("_bytes") for name, _ in letter.headers)
    assert not (whole and cut)
    assert cut == (
        (letter.value, letter.key) != (came.value, came.key) or letter.headers[: len(headers)] != came.headers
    )


def test_a_late_record_keeps_its_bytes_and_says_where_it_came_from() -> None:
    record = late_record(source(b"{}"), "late", LIMIT)
    assert (record.topic, record.value) == ("late", b"{}")
    assert dict(record.headers)["freshet.source.offset"] == b"17"


def test_redriving_gives_back_the_original_and_names_it() -> None:
    letter = dead_letter(source(headers=[("trace", b"1"), ("freshet-redrive", b"old")]), "decode", "Bad", "x", LIMIT)
    back = again(Source(letter.topic, 0, 0, 0, letter.key, letter.value, letter.headers), "orders")
    assert back is not None
    assert (back.topic, back.key, back.value) == ("orders", b"k", b"{")
    assert back.headers == [("trace", b"1"), ("freshet-redrive", b"orders-3-17")]


def test_a_cut_letter_is_not_sent_again() -> None:
    letter = dead_letter(source(b"v" * 200_000), "decode", "Bad", "x", LIMIT)
    assert again(Source(letter.topic, 0, 0, 0, letter.key, letter.value, letter.headers), "orders") is None


@pytest.fixture
def settings(mock_broker: str, request: pytest.FixtureRequest) -> Settings:
    name = request.node.name[-40:]
    topics = Topics(orders=f"{name}.orders", clicks=f"{name}.clicks")
    kafka = KafkaSettings(bootstrap_servers=mock_broker, group_prefix=name, topics=topics)
    settings = Settings(kafka=kafka)
    ensure_topics(settings, live=False)
    return settings


def send_letters(settings: Settings, values: list[bytes]) -> None:
    topic = settings.kafka.topics.orders
    with Publisher(settings) as publisher:
        for offset, value in enumerate(values):
            record = dead_letter(Source(topic, 0, offset, 0, b"k", value, []), "decode", "Bad", "x", LIMIT)
            publisher.produce(record.topic, record.value, key=record.key, headers=record.headers)


def test_letters_are_listed_with_where_they_came_from(settings: Settings) -> None:
    send_letters(settings, [b"one", b"\xff"])
    letters = list_letters(settings)
    topic = settings.kafka.topics.orders
    assert [letter.as_dict()["value"] for letter in letters] == ["one", "�"]
    assert letters[0].as_text() == f"{topic}-0-0  decode/Bad: x  'one'"
    assert len(list_letters(settings, topic=topic, most=1)) == 1
    assert list_letters(settings, topic=settings.kafka.topics.clicks) == []


def test_only_event_topics_have_letters(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="alerts is not an event topic"):
        list_letters(settings, topic="alerts")


def test_a_redrive_goes_on_where_the_last_one_ended(settings: Settings) -> None:
    topic = settings.kafka.topics.orders
    send_letters(settings, [b"one", b"two", b"v" * 200_000])
    assert str(redrive(settings)) == "2 dead letters (1 were cut and stay)"
    assert str(redrive(settings)) == "0 dead letters"
    send_letters(settings, [b"three"])
    assert redrive(settings, topic=topic).sent == 1
    assert redrive(settings, topic=topic, from_start=True, most=2).sent == 2
    with TableReader(settings, [topic]) as reader:
        records = reader.read_to_end()
    assert sorted(record.value or b"" for record in records)[:3] == [b"one", b"one", b"three"]
    assert dict(records[0].headers)["freshet-redrive"] == f"{topic}-0-0".encode()
    with TableReader(settings, [dead_letter_topic(topic)]) as reader:
        assert len(reader.read_to_end()) == 4
