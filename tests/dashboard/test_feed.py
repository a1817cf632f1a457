"""Where reading starts, goes on, and starts anew; and what aiokafka is told about security."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.abc import AbstractTokenProvider

from freshet.dashboard import feed as feed_module
from freshet.dashboard.feed import Feed, consumer_options
from freshet.stream.codec import encode
from freshet.stream.config import KafkaSettings
from freshet.stream.errors import ConfigError

SETTINGS = KafkaSettings()
FORECASTS = TopicPartition(SETTINGS.topics.forecasts, 0)
MODELS = TopicPartition(SETTINGS.topics.models, 0)


AWAY = (
    "Kafka at localhost:9092 does not answer; is it running, and is kafka.bootstrap_servers right?"
)


class FakeConsumer:
    """The few calls of a consumer that placing needs."""

    def __init__(self, ranges: dict[TopicPartition, tuple[int, int]]) -> None:
        self.ranges = ranges
        self.sought: dict[TopicPartition, int] = {}

    def assignment(self) -> set[TopicPartition]:
        return set(self.ranges)

    async def beginning_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return {partition: self.ranges[partition][0] for partition in partitions}

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return {partition: self.ranges[partition][1] for partition in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought[partition] = offset


def place(feed: Feed, ranges: dict[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, int]:
    consumer = FakeConsumer(ranges)
    asyncio.run(feed._place(consumer))
    return consumer.sought


def records(*pairs: tuple[int, bytes | None]) -> list[Any]:
    return [
        SimpleNamespace(offset=offset, key=b"k", value=value, timestamp=0, headers=())
        for offset, value in pairs
    ]


def test_small_topics_are_read_whole_and_forecasts_from_a_bounded_tail(make: Any) -> None:
    feed = Feed(SETTINGS, make.topics())
    sought = place(feed, {FORECASTS: (100, 1_000_000), MODELS: (5, 1_000_000)})
    assert sought == {FORECASTS: 1_000_000 - feed_module.TAILS["forecasts"], MODELS: 5}


def test_a_changed_assignment_goes_on_where_reading_stopped_and_repeats_are_dropped(
    make: Any,
) -> None:
    topics = make.topics()
    feed = Feed(SETTINGS, topics)
    place(feed, {MODELS: (0, 10)})
    event = encode(make.model("training", "v2", 1))
    feed._apply(MODELS, records((0, event), (1, b"junk")))
    assert place(feed, {MODELS: (0, 10), FORECASTS: (0, 0)}) == {MODELS: 2, FORECASTS: 0}
    feed._apply(MODELS, records((0, event), (1, b"junk"), (2, event)))
    assert (topics.applied["models"], topics.malformed["models"]) == (2, 1)


def test_a_log_that_lost_its_beginning_goes_on_with_what_is_left(make: Any) -> None:
    feed = Feed(SETTINGS, make.topics())
    place(feed, {MODELS: (0, 10)})
    assert place(feed, {MODELS: (40, 90)}) == {MODELS: 40}


def test_a_topic_made_anew_is_read_from_its_start(make: Any) -> None:
    feed = Feed(SETTINGS, make.topics())
    place(feed, {MODELS: (0, 10)})
    feed._apply(MODELS, records((9, None)))
    assert place(feed, {MODELS: (0, 3)}) == {MODELS: 0}


def test_a_broker_that_is_away_is_asked_again_and_said_to_be_away(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FIRST_WAIT_S", 0.0)
    feed, tries = Feed(SETTINGS, make.topics()), []

    async def follow() -> None:
        tries.append(feed.problem)
        if len(tries) == 3:
            feed.problem = None
            await asyncio.Event().wait()
        raise OSError("refused")

    monkeypatch.setattr(feed, "_follow", follow)

    async def scenario() -> None:
        running = asyncio.create_task(feed.run())
        while feed.problem is not None:
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert tries == ["not connected yet"] + [AWAY] * 2


def test_security_settings_reach_aiokafka() -> None:
    plain = consumer_options(SETTINGS)
    assert plain["group_id"] is None and plain["enable_auto_commit"] is False
    assert "ssl_context" not in plain and "sasl_mechanism" not in plain
    secure = consumer_options(
        KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="me",
            sasl_password="secret",
        )
    )
    assert (secure["sasl_mechanism"], secure["sasl_plain_username"]) == ("SCRAM-SHA-512", "me")
    assert secure["sasl_plain_password"] == "secret" and secure["ssl_context"].check_hostname


def test_a_token_for_oauthbearer_is_handed_over() -> None:
    options = consumer_options(
        KafkaSettings(
            security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_password="token"
        )
    )
    provider = options["sasl_oauth_token_provider"]
    assert isinstance(provider, AbstractTokenProvider)
    assert asyncio.run(provider.token()) == "token"


def test_kerberos_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    options = consumer_options(
        KafkaSettings(
            security_protocol="SASL_SSL", sasl_mechanism="GSSAPI", sasl_kerberos_service_name="bus"
        )
    )
    assert (options["sasl_mechanism"], options["sasl_kerberos_service_name"]) == ("GSSAPI", "bus")
    assert "sasl_plain_username" not in options and "ssl_context" in options


def test_a_certificate_file_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ssl_ca_location '/nowhere.pem'"):
        consumer_options(KafkaSettings(security_protocol="SSL", ssl_ca_location="/nowhere.pem"))


# Whatever the client library raises ---------------------------------------------------------------


class CrashedConsumer:
    """A consumer whose broker died: it raises while reading, and again when it is closed."""

    made: int = 0

    def __init__(self, raised: BaseException) -> None:
        self.raised, self.closed = raised, 0
        self._client = self

    async def start(self) -> None:
        raise self.raised

    async def stop(self) -> None:
        raise asyncio.CancelledError

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "raised", [asyncio.CancelledError(), OSError("refused"), AssertionError("a fault of its own")]
)
def test_a_client_that_breaks_while_it_closes_is_replaced_and_its_connections_are_closed(
    make: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    made: list[CrashedConsumer] = []

    def consumer(*_: Any, **__: Any) -> CrashedConsumer:
        made.append(CrashedConsumer(raised))
        return made[-1]

    monkeypatch.setattr(feed_module, "AIOKafkaConsumer", consumer)
    monkeypatch.setattr(feed_module, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(feed_module, "LONGEST_WAIT_S", 0.0)
    beats: list[int] = []
    feed = Feed(SETTINGS, make.topics(), lambda: beats.append(len(made)))

    async def scenario() -> None:
        running = asyncio.create_task(feed.run())
        while len(made) < 3:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert feed.problem is not None
    assert [one.closed for one in made[:2]] == [1, 1]
    assert beats[:3] == [0, 1, 2]


# How old what is shown may be ---------------------------------------------------------------------


class Trickle:
    """A topic that never pauses: each poll brings a record, the log ends where `ends` says."""

    def __init__(self, ends: list[int | None]) -> None:
        self.ends, self.read = ends, 0
        self._client = self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def close(self) -> None: ...

    def assignment(self) -> set[TopicPartition]:
        return {MODELS}

    async def beginning_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 1_000)

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def getmany(self, **_: int) -> dict[TopicPartition, list[Any]]:
        if self.read == len(self.ends):
            raise asyncio.CancelledError
        self.read += 1
        return {MODELS: records((self.read - 1, None))}

    async def position(self, partition: TopicPartition) -> int:
        return self.read

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        return self.ends[self.read - 1]


@pytest.mark.parametrize(
    ("ends", "heard_s"),
    [([1, 2, 3], 3.0), ([1, 2, 500], 2.0), ([500, 500, 500], None), ([None, None, None], None)],
)
def test_a_topic_that_never_pauses_is_heard_whenever_all_of_it_was_read(
    make: Any, monkeypatch: pytest.MonkeyPatch, ends: list[int | None], heard_s: float | None
) -> None:
    consumer = Trickle(ends)
    monkeypatch.setattr(feed_module, "AIOKafkaConsumer", lambda *_, **__: consumer)
    clock = SimpleNamespace(monotonic=lambda: float(consumer.read))
    monkeypatch.setattr(feed_module, "time", clock)
    feed = Feed(SETTINGS, make.topics())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(feed._follow())
    assert feed.heard_s == heard_s
