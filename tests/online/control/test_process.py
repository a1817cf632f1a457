"""The agents without a broker: what they publish, in which order, and how they sign in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from freshet.online.control import process as module
from freshet.online.control import restored as restored_module
from freshet.online.control.controller import Controller, Output
from freshet.online.control.door import Busy
from freshet.online.control.process import (
    Agents,
    credentials,
    outgoing_of,
)
from freshet.online.control.restored import input_topics, restored
from freshet.online.control.rules import RetrainRules
from freshet.stream.codec import encode
from freshet.stream.config import ControlSettings, KafkaSettings, Settings, Topics
from freshet.stream.errors import BrokerError, ConfigError, StoreUnavailableError
from freshet.stream.events.dead_letter import Source
from freshet.stream.health import Health
from freshet.stream.kafka import Outgoing, TableRecord
from freshet.stream.process import Stop
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, Promotion, RetrainRequest
from freshet.stream.units import HOUR_MS

TOPICS = Topics()


def drift(alert_id: str, at_ms: int, segment: str = "shoes") -> DriftAlert:
    return DriftAlert(
        alert_id=alert_id,
        segment=segment,
        state="drift",
        kind="level",
        detector="cusum",
        detected_at_ms=at_ms,
        onset_ms=at_ms,
        size=1.0,
        weights_version="base",
        description="d",
        action="a",
    )


def told(topic: str, value: bytes | None, key: bytes = b"k", offset: int = 0) -> Source:
    return Source(topic, 0, offset, 7, key, value, [])


class Control:
    """Agents on a controller; what they sent and the letters they wrote."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.letters: list[tuple[Source, str, str]] = []
        self.acknowledges = True
        self.now: Callable[[], int] = lambda: 10 * HOUR_MS
        rules = RetrainRules(12 * HOUR_MS, min_new_data_ms=0, schedule_ms=0)
        self.controller = Controller(TOPICS, rules, HOUR_MS)
        self.health = Health(Stop(), "waiting")
        self.agents = Agents(
            KafkaSettings(),
            self.controller,
            clock=SimpleNamespace(now_ms=lambda: self.now()),  # type: ignore[arg-type]
            delivery=SimpleNamespace(deliver=self._deliver),  # type: ignore[arg-type]
            letters=SimpleNamespace(send=self._letter),  # type: ignore[arg-type]
            health=self.health,
        )

    def _deliver(self, records: Sequence[Outgoing]) -> bool:
        self.sent += records
        return self.acknowledges

    def _letter(self, source: Source, stage: str, error: Exception) -> None:
        self.letters.append((source, stage, type(error).__name__))

    def handle(self, *sources: Source) -> None:
        for source in sources:
            asyncio.run(self.agents._handle(source))

    def tick(self) -> None:
        asyncio.run(self.agents._tick())


def test_an_alert_is_said_once_it_is_acknowledged_and_again_where_it_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    control = Control()
    source = told(TOPICS.drift, encode(drift("a", HOUR_MS)))
    control.acknowledges = False
    control.handle(source)
    control.acknowledges = True
    control.handle(source, source)
    assert [record.topic for record in control.sent] == [TOPICS.alerts] * 2
    assert control.sent[0] == control.sent[1]
    assert control.letters == []
    assert capsys.readouterr().out.count("published") == 1


def test_a_record_that_cannot_be_used_has_its_letter_and_those_behind_it_their_turn() -> None:
    control = Control()
    bad = told(TOPICS.drift, b"{", offset=4)
    control.handle(bad, told(TOPICS.drift, encode(drift("a", HOUR_MS))))
    assert control.letters == [(bad, "control", "EventError")]
    assert len(control.sent) == 1


def test_a_record_of_a_shop_table_that_cannot_be_used_has_its_letter_from_ingest_alone() -> None:
    control = Control()
    control.handle(told(TOPICS.promotions, b"{"), told(TOPICS.drift, encode(drift("a", HOUR_MS))))
    assert control.letters == []
    assert len(control.sent) == 1


def test_a_turn_of_the_clock_asks_for_training_that_is_due_once() -> None:
    control = Control()
    control.handle(told(TOPICS.drift, encode(drift("a", HOUR_MS))))
    control.tick()
    control.tick()
    assert [record.topic for record in control.sent] == [TOPICS.alerts, TOPICS.retrain]
    assert control.health.trouble("tick") is None


def test_a_turn_without_a_clock_says_so_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    beats: list[bool] = []
    monkeypatch.setattr(control.health, "beat", lambda: beats.append(True))

    def away() -> int:
        raise StoreUnavailableError("no redis")

    usual, control.now = control.now, away
    control.tick()
    said = "alerts and requests that time brings wait: no redis"
    assert control.health.trouble("tick") == said
    control.now = usual
    control.tick()
    assert control.health.trouble("tick") is None and beats == [True, True]


def test_what_is_asked_for_by_hand_is_on_the_topic_and_one_thing_at_a_time() -> None:
    control = Control()

    async def asked(segments: list[str]) -> RetrainRequest:
        await control.agents._assigned(None, [])
        return await asyncio.to_thread(control.agents.ask, segments)

    request = asyncio.run(asked(["shoes", "hats", "shoes"]))
    assert (request.reason, request.segments) == ("manual", ["hats", "shoes"])
    assert request.requested_at_ms == 10 * HOUR_MS
    assert control.sent == [
        Outgoing(TOPICS.retrain, request.request_id.encode(), encode(request)),
    ]
    with pytest.raises(Busy) as busy:
        asyncio.run(asked([]))
    assert busy.value.request == request
    answered = ModelEvent(
        kind="rejected", version="v", at_ms=1, request_id=request.request_id, reason="no"
    )
    control.handle(told(TOPICS.models, encode(answered)))
    assert asyncio.run(asked([])).request_id != request.request_id


def test_what_the_schedule_has_open_keeps_nobody_from_asking_by_hand() -> None:
    control = Control()
    scheduled = RetrainRequest(request_id="s", requested_at_ms=1, reason="schedule")
    control.handle(told(TOPICS.retrain, encode(scheduled)))
    assert control.controller.rules.hurried() is None
    by_hand = RetrainRequest(request_id="m", requested_at_ms=1, reason="manual")
    control.handle(told(TOPICS.retrain, encode(by_hand)))
    assert control.controller.rules.hurried() == by_hand


def test_what_is_asked_for_before_the_topics_are_read_or_while_it_stops_is_not_accepted() -> None:
    control = Control()
    with pytest.raises(BrokerError, match="not read its topics"):
        control.agents.ask([])
    control.acknowledges = False

    async def asked() -> RetrainRequest:
        await control.agents._assigned(None, [])
        return await asyncio.to_thread(control.agents.ask, [])

    with pytest.raises(BrokerError, match="told to stop"):
        asyncio.run(asked())
    assert control.controller.rules.hurried() is None


def test_it_is_ready_once_it_was_given_its_topics() -> None:
    control = Control()
    assert control.health.ready() == "waiting"
    asyncio.run(control.agents._assigned(None, ["anything"], more=1))
    assert control.health.ready() is None


def test_it_reads_what_decides_and_the_shops_tables() -> None:
    decisive = (TOPICS.drift, TOPICS.retrain, TOPICS.models, TOPICS.alerts)
    tables = (TOPICS.catalog, TOPICS.promotions, TOPICS.inventory, TOPICS.covariates)
    assert sorted(input_topics(TOPICS)) == sorted((*decisive, *tables))


def test_outputs_are_sent_as_they_are_under_their_own_key() -> None:
    record = drift("a", 1)
    output = Output("t", "é", record, 1)  # type: ignore[arg-type]
    assert outgoing_of([output]) == [Outgoing("t", "é".encode(), encode(record))]


def test_a_record_is_taken_out_of_its_message_with_its_time_in_milliseconds() -> None:
    message = SimpleNamespace(
        topic="t",
        partition=2,
        offset=5,
        timestamp=1.5,
        key=b"k",
        value=None,
        headers={"h": bytearray(b"1")},
    )
    assert module._source_of(message) == Source("t", 2, 5, 1_500, b"k", None, [("h", b"1")])
    message.headers = None
    assert module._source_of(message).headers == []


# A start ------------------------------------------------------------------------------------------


def start(
    monkeypatch: pytest.MonkeyPatch, *records: TableRecord, schedule_ms: int = 0
) -> tuple[Controller, list[Output]]:
    settings = Settings(
        control=ControlSettings(cooldown_ms=5, min_new_data_ms=3, schedule_ms=schedule_ms)
    )

    class Reader:
        def __init__(self, given: Settings, topics: list[str]) -> None:
            assert given is settings and topics == list(input_topics(TOPICS))

        def __enter__(self) -> Reader:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_to_end(self) -> list[TableRecord]:
            return list(records)

    monkeypatch.setattr(restored_module, "TableReader", Reader)
    clock: Any = SimpleNamespace(now_ms=lambda: 10 * HOUR_MS, speed=2.0)
    return restored(settings, clock)


def row(topic: str, value: bytes, at_ms: int, offset: int = 0) -> TableRecord:
    return TableRecord(topic, b"k", value, at_ms, 0, offset)


def test_what_a_crash_left_unsaid_is_said_and_nothing_that_was_said_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (row(TOPICS.drift, encode(drift(n, HOUR_MS, n)), 1, 5) for n in ("a", "b"))
    _, [said, missed] = start(monkeypatch, first, second)
    assert {said.key, missed.key} == {output.key for output in (said, missed)}
    assert isinstance(said.record, Alert)
    # The alert was read after what caused it, and counts all the same.
    alert = row(TOPICS.alerts, encode(said.record), 9)
    controller, left = start(monkeypatch, first, row(TOPICS.drift, b"{", 0), second, alert)
    assert left == [missed]
    assert {firing.id for firing in controller.book.firing()} == {said.record.id, missed.record.id}  # type: ignore[union-attr]


def test_records_are_taken_in_the_order_of_their_times_then_of_their_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sale(discount: float) -> bytes:
        made = Promotion(promotion_id="p", starts_at=1, ends_at=9, discount=discount, sku="a")
        return encode(made)

    for newest_last in (True, False):
        rows = [row(TOPICS.promotions, sale(0.1), 5, 3), row(TOPICS.promotions, sale(0.2), 5, 4)]
        rows.append(row(TOPICS.promotions, sale(0.3), 4, 9))
        controller, _ = start(monkeypatch, *(rows if newest_last else rows[::-1]))
        assert [found.discount for found in controller.shop.active_promotions(2)] == [0.2]


def test_a_controller_has_the_rules_and_the_clock_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, missed = start(monkeypatch, schedule_ms=7 * HOUR_MS)
    rules = controller.rules
    assert missed == []
    assert (rules.cooldown_ms, rules.min_new_data_ms, rules.schedule_ms) == (5, 3, 7 * HOUR_MS)
    # An hour past the clock, and the half minute that it may go unread at twice the speed.
    assert controller.latest_ms() == 11 * HOUR_MS + 60_000


@pytest.mark.parametrize("acknowledged", [True, False])
def test_what_was_missed_is_said_before_the_agents_begin(
    monkeypatch: pytest.MonkeyPatch, acknowledged: bool
) -> None:
    done: list[object] = []
    missed = [Output("t", "k", drift("a", 1), 1)]  # type: ignore[list-item]
    rules = RetrainRules(1, min_new_data_ms=1, schedule_ms=0)
    controller = Controller(TOPICS, rules, HOUR_MS)

    class Post:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Post:
            return self

        def __exit__(self, *_: object) -> None: ...

        def deliver(self, records: list[Outgoing]) -> bool:
            done.append(records)
            return acknowledged

    async def serve(agents: Agents, folder: str, stop: Stop) -> None:
        done.append("serve")

    def topics(settings: Settings, *, live: bool) -> None:
        done.append(("topics", live))

    fakes: dict[str, Any] = {
        "ensure_topics": topics,
        "connect": lambda redis: None,
        "open_clock": lambda client: None,
        "restored": lambda settings, clock: (controller, missed),
        "Publisher": Post,
        "Delivery": Post,
        "serve_http": lambda *_, **__: 1,
        "broker_question": lambda settings: None,
        "redis_question": lambda redis: None,
        "Watch": lambda health, asked: contextlib.nullcontext(done.append(sorted(asked))),
        "_serve": serve,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(module, name, fake)
    module._run(Settings(), Stop())
    said = [("topics", True), ["kafka", "store"], outgoing_of(missed)]
    assert done == [*said, *(["serve"] if acknowledged else [])]


# The app ------------------------------------------------------------------------------------------


def app_of(**kafka: Any) -> Any:
    return module._new_app(KafkaSettings(**kafka), "/nowhere").conf


def test_sessions_and_requests_fit_each_other_whatever_the_settings() -> None:
    usual = app_of(session_timeout_ms=6_000, request_timeout_ms=9_000)
    assert usual.broker_session_timeout == 6.0
    assert usual.broker_heartbeat_interval == 2.0
    assert usual.broker_request_timeout == 9.0
    fast = app_of(session_timeout_ms=300, request_timeout_ms=9_000)
    assert (fast.broker_session_timeout, fast.broker_heartbeat_interval) == (0.3, 0.1)
    slow = app_of(session_timeout_ms=45_000, request_timeout_ms=9_000)
    assert (slow.broker_heartbeat_interval, slow.broker_request_timeout) == (3.0, 46.0)


def test_the_app_belongs_to_the_shops_group_reads_from_the_start_and_keeps_nothing() -> None:
    conf = app_of(group_prefix="mine", bootstrap_servers="a:1, b:2")
    assert [str(url) for url in conf.broker] == ["kafka://a:1", "kafka://b:2"]
    assert conf.id == "mine.control"
    assert conf.consumer_auto_offset_reset == "earliest"
    assert (conf.web_enabled, conf.topic_allow_declare, conf.topic_disable_leader) == (
        False,
        False,
        True,
    )
    assert str(conf.store).startswith("memory:") and not conf.autodiscover


def test_each_topic_has_one_agent_that_takes_one_record_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Any] = {}

    def agent(topic: str, *, name: str, concurrency: int) -> Callable[[object], None]:
        made[name] = (topic, concurrency)
        return lambda work: None

    def timer(*, interval: float, name: str) -> Callable[[object], None]:
        made[name] = interval
        return lambda work: None

    def topic(name: str, **kinds: object) -> str:
        assert set(kinds.values()) == {bytes, "raw"}
        return name

    connected: list[object] = []
    assigned = SimpleNamespace(connect=lambda work, *, weak: connected.append((work, weak)))
    app = SimpleNamespace(agent=agent, timer=timer, topic=topic, on_partitions_assigned=assigned)
    monkeypatch.setattr(module, "_new_app", lambda kafka, folder: app)
    control = Control()
    assert control.agents.app("/nowhere") is app
    ticks = made.pop("control.tick")
    assert ticks == 0.2
    assert made == {f"control.{name}": (name, 1) for name in input_topics(TOPICS)}
    assert connected == [(control.agents._assigned, False)]


def test_settings_become_credentials() -> None:
    assert credentials(KafkaSettings()) is None
    secured = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password="p",
    )
    found = credentials(secured)
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert found.ssl_context is None
    assert credentials(KafkaSettings(security_protocol="SSL")).protocol.value == "SSL"
    both = KafkaSettings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="p")
    assert credentials(both).ssl_context is not None
    with pytest.raises(ConfigError, match=r"ssl_ca_location '/nowhere/ca\.pem'"):
        credentials(KafkaSettings(security_protocol="SSL", ssl_ca_location="/nowhere/ca.pem"))


def test_tokens_and_kerberos_become_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    token = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_password="token"
    )
    found = credentials(token)
    assert found.mechanism.value == "OAUTHBEARER" and found.ssl_context is None
    assert isinstance(found.oauth_cb, module.AbstractTokenProvider)
    assert asyncio.run(found.oauth_cb.token()) == "token"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    kerberos = KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="GSSAPI", sasl_kerberos_service_name="bus"
    )
    found = credentials(kerberos)
    assert (found.mechanism.value, found.kerberos_service_name) == ("GSSAPI", "bus")
    assert found.protocol.value == "SASL_SSL" and found.ssl_context is not None


# Serving ------------------------------------------------------------------------------------------


class App:
    """A Faust app that starts, hangs, or breaks."""

    def __init__(self, *, starts: bool = True, breaks: str = "") -> None:
        self.starts, self.breaks = starts, breaks
        self.crashed, self.crash_reason = False, None
        self.stopped = 0

    async def start(self) -> None:
        if not self.starts:
            await asyncio.sleep(3_600)
        if self.breaks:
            self.crashed, self.crash_reason = True, RuntimeError(self.breaks)

    async def stop(self) -> None:
        self.stopped += 1


def serve(app: App, stop: Stop) -> None:
    agents: Any = SimpleNamespace(app=lambda folder: app)
    asyncio.run(module._serve(agents, "/nowhere", stop))


def test_it_serves_until_told_to_stop_and_stops_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.0)
    stop = Stop()
    stop.set()
    for app in (App(), App(starts=False), App(breaks="late")):
        serve(app, stop)
        assert app.stopped == 1


def test_an_app_that_breaks_or_does_not_start_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.0)
    broken = App(breaks="no group")
    with pytest.raises(BrokerError, match=r"agents broke: RuntimeError\('no group'\)"):
        serve(broken, Stop())
    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.01)
    hanging = App(starts=False)
    with pytest.raises(BrokerError, match=r"did not start within 0\.01 s"):
        serve(hanging, Stop())
    assert (broken.stopped, hanging.stopped) == (1, 1)


def test_whoever_cannot_even_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(App):
        async def start(self) -> None:
            raise BrokerError("no such user")

    refusing = Refusing()
    with pytest.raises(BrokerError, match="no such user"):
        serve(refusing, Stop())
    assert refusing.stopped == 1
