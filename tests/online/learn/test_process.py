"""The learner's process on its own: told to stop, it waits for no broker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from freshet.online.effects.table import EffectsTable
from freshet.online.learn import process
from freshet.online.learn.learner import Stopped
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.process import Inbox, check_writable, publisher_of, stopper
from freshet.stream.codec import encode
from freshet.stream.config import Settings, Topics
from freshet.stream.errors import (
    BrokerError,
    InvalidInputError,
    RegistryError,
    StoreUnavailableError,
)
from freshet.stream.health import Health
from freshet.stream.kafka import Delivery, Outgoing, Publisher, TableRecord
from freshet.stream.process import Stop
from freshet.stream.schemas import DriftAlert, ModelEvent, Record, RetrainRequest


class AwayBroker:
    """A publisher whose broker is away; the process is told to stop at the second attempt."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.attempts = 0

    def produce(self, topic: str, value: bytes, **_: object) -> None:
        self.attempts += 1
        if self.attempts == 2:
            self.stop.set()

    def flush(self, **_: object) -> None:
        raise BrokerError("away")


def test_told_to_stop_it_gives_up_publishing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshet.stream.health.FIRST_WAIT_S", 0.0)
    stop = Stop()
    broker, health = AwayBroker(stop), Health(stop, "")
    health.over("start")
    publish = publisher_of(Delivery(cast("Publisher", broker), health), "models")
    with pytest.raises(Stopped):
        publish(ModelEvent(kind="promoted", version="v1", at_ms=0))
    assert broker.attempts == 2
    assert health.ready() == "away"


def test_a_registry_that_could_not_be_written_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk" / "registry"
    check_writable(folder)
    assert list(tmp_path.iterdir()) == [], "the disk may not be mounted"
    # Root may write everywhere, whatever the mode of a folder says.
    monkeypatch.setattr(process.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(RegistryError, match="registry cannot be written"):
        check_writable(folder)
    folder.mkdir(parents=True)
    check_writable(folder)


# What it reads ------------------------------------------------------------------------------------

TOPICS = Topics()


class Told:
    """A ledger that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def __getattr__(self, name: str) -> Callable[[object], None]:
        return lambda record: self.said.append((name, record))


def row(topic: str, value: bytes | None, key: bytes = b"k", offset: int = 5) -> TableRecord:
    return TableRecord(topic, key, value, 7, 0, offset)


REQUEST = RetrainRequest(request_id="r", requested_at_ms=50, reason="manual")
EVENT = ModelEvent(kind="promoted", version="v1", at_ms=50)
DRIFT = DriftAlert(
    alert_id="a",
    segment="s",
    state="drift",
    kind="level",
    detector="cusum",
    detected_at_ms=50,
    onset_ms=50,
    size=1.0,
    weights_version="v",
    description="",
    action="",
)


def inbox(ledger: Told, *, latest: int = 50) -> Inbox:
    return Inbox(TOPICS, cast("Ledger", ledger), EffectsTable(), lambda: latest)


def test_each_topic_goes_where_it_belongs_and_what_cannot_be_read_is_passed_over() -> None:
    ledger = Told()
    box = inbox(ledger)
    wanted = [TOPICS.retrain, TOPICS.models, TOPICS.drift, TOPICS.effects]
    assert sorted(box.topics) == sorted(wanted)
    for topic, record in (
        (TOPICS.retrain, REQUEST),
        (TOPICS.models, EVENT),
        (TOPICS.drift, DRIFT),
    ):
        for value in (b"{", None, encode(record)):
            box.take(row(topic, value))
    assert ledger.said == [("take_request", REQUEST), ("take_event", EVENT), ("take_drift", DRIFT)]


@pytest.mark.parametrize(
    ("topic", "record"),
    [(TOPICS.retrain, REQUEST), (TOPICS.models, EVENT), (TOPICS.drift, DRIFT)],
)
def test_what_the_clock_has_not_reached_is_not_believed(topic: str, record: Record) -> None:
    ledger = Told()
    inbox(ledger, latest=49).take(row(topic, encode(record)))
    assert ledger.said == []


# Its loop -----------------------------------------------------------------------------------------


class Turns:
    """Reader, learner and pauses of a loop: each step does what it is told, the last one stops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Exception | None) -> None:
        self.stop, self.steps, self.phase = Stop(), list(steps), "training"
        self.health = Health(self.stop, "reading the topics")
        self.ledger = Told()
        self.waited: list[str] = []
        monkeypatch.setattr(self.health, "wait_out", lambda error: self.waited.append(str(error)))
        self.polled: list[int] = []
        self.missing: list[str] = []

    def poll(self, max_wait_ms: int | None = None) -> list[TableRecord]:
        if max_wait_ms is None:  # As the feed of the shop's tables.
            self.waits_for = self.missing.pop(0) if self.missing else ""
            return []
        self.polled.append(max_wait_ms)
        return [row(TOPICS.models, encode(EVENT))]

    @property
    def caught_up(self) -> bool:
        return not self.waits_for

    def step(self) -> None:
        error = self.steps.pop(0)
        if not self.steps:
            self.stop.set()
        if error is not None:
            raise error

    def run(self) -> None:
        me: Any = self
        metrics: Any = SimpleNamespace(step_seconds=SimpleNamespace(time=contextlib.nullcontext))
        process._loop(me, me, inbox(self.ledger), me, self.health, metrics)


def test_it_reads_and_steps_until_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch, None, None, None)
    turns.run()
    assert turns.ledger.said == [("take_event", EVENT)] * 3
    assert turns.polled == [200] * 3 and turns.waited == []
    assert turns.health.ready() is None


def test_nothing_is_learnt_before_the_shops_tables_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch, None)
    turns.missing = ["catalog", "catalog"]
    said: list[str | None] = []
    monkeypatch.setattr(turns.health, "say", lambda what, text: said.append(f"{what}: {text}"))
    turns.run()
    assert said == ["tables: catalog"] * 2
    assert len(turns.polled) == 3 and turns.health.ready() is None


def test_what_may_come_back_is_waited_for_and_anything_else_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = [BrokerError("no broker"), StoreUnavailableError("no redis"), RegistryError("no disk")]
    turns = Turns(monkeypatch, *away, Stopped())
    turns.run()
    assert turns.waited == ["no broker", "no redis", "no disk"]
    assert turns.health.ready() == "reading the topics", "no whole turn went well"
    broken = Turns(monkeypatch, InvalidInputError("these settings cannot work"), None)
    with pytest.raises(InvalidInputError):
        broken.run()
    assert broken.waited == []


def test_a_long_computation_beats_and_ends_when_the_process_is_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch)
    beats: list[bool] = []
    monkeypatch.setattr(turns.health, "beat", lambda: beats.append(True))
    check = stopper(turns.health)
    check()
    assert beats == [True]
    turns.stop.set()
    with pytest.raises(Stopped):
        check()


def test_an_event_is_published_under_its_kind_and_version() -> None:
    sent: list[Outgoing] = []
    delivery: Any = SimpleNamespace(deliver=lambda records: sent.extend(records) or True)
    publisher_of(delivery, "models")(EVENT)
    assert sent == [Outgoing("models", b"promoted:v1", encode(EVENT))]


def test_what_takes_long_to_import_is_imported_before_signals_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []

    @contextlib.contextmanager
    def heard() -> Iterator[Stop]:
        done.append("hears")
        yield Stop()

    monkeypatch.setattr(process, "import_module", done.append)
    monkeypatch.setattr(process, "encode_texts", done.append)
    monkeypatch.setattr(process, "stop_on_signals", heard)
    monkeypatch.setattr(process, "_run", lambda *_: done.append("runs"))
    process.run(Settings())
    assert done == ["torch._dynamo", [], "hears", "runs"]


def test_all_that_was_said_before_is_read_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[object] = []
    opened: list[Any] = []
    settings = Settings(learn={"threads": 3, "registry": tmp_path})

    class Topic:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Topic:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_to_end(self) -> list[TableRecord]:
            done.append("read")
            return [row(TOPICS.retrain, encode(REQUEST))]

    def loop(reader: object, feed: object, inbox: Inbox, *rest: Any) -> None:
        learner, health, _ = rest
        assert learner.ledger.requests.open_training() == REQUEST
        assert learner.settings is settings.learn and learner.registry.folder == tmp_path
        assert health.ready() is None
        health.stop.set()
        for stopped in (learner.stopped, learner.networks.stopped, opened[-1]):
            with pytest.raises(Stopped):
                stopped()
        done.append("loop")

    def topics(given: Settings, *, live: bool) -> None:
        done.append(("topics", live))

    @contextlib.contextmanager
    def watch(health: Health, questions: dict[str, Callable[[], None]]) -> Iterator[None]:
        assert health.ready() == "reading the topics"
        questions["registry"]()
        done.append(sorted(questions))
        yield

    fakes: dict[str, Any] = {
        "ensure_topics": topics,
        "connect": lambda redis: None,
        "open_clock": lambda client: SimpleNamespace(now_ms=lambda: 50, speed=1.0),
        "open_history": lambda *given: opened.extend(given),
        "serve_http": lambda *_, **__: 1,
        "broker_question": lambda settings: None,
        "redis_question": lambda redis: None,
        "TableReader": Topic,
        "Publisher": Topic,
        "Watch": watch,
        "_loop": loop,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(process, name, fake)
    monkeypatch.setattr(process.os, "nice", lambda by: done.append(by > 0))
    monkeypatch.setattr(process, "use_threads", done.append)
    process._run(settings, Stop())
    questions = ["kafka", "registry", "store"]
    assert done == [True, 3, ("topics", True), questions, "read", "loop"]
