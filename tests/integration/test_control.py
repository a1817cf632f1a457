"""`freshet control` as a process on a broker: alerts and requests out, through a SIGKILL too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from freshet.online.control.ask import ask, progress
from freshet.stream.child import free_port
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics, load
from freshet.stream.kafka import Publisher, TableReader, TableRecord
from freshet.stream.schemas import Alert, DriftAlert, ModelEvent, ModelEventKind, RetrainRequest
from freshet.stream.units import HOUR_MS

DEADLINE_S = 180.0
RUN = (
    "from freshet.stream.config import load; from freshet.online.control.process import run; "
    "run(load().settings)"
)
TOKEN = "a token of many letters"
NOW_MS = time.time_ns() // 1_000_000


def drift(segment: str, state: str = "drift", at_ms: int = NOW_MS) -> DriftAlert:
    return DriftAlert(
        alert_id=f"{segment}-{at_ms}",
        segment=segment,
        state=state,  # type: ignore[arg-type]
        kind="level",
        detector="cusum",
        detected_at_ms=at_ms,
        onset_ms=at_ms - 20 * HOUR_MS,
        size=1.0,
        weights_version="base",
        description="d",
        action="a",
    )


class Process:
    """One `freshet control` with topics of its own."""

    def __init__(self, broker: str, redis: str, folder: Path) -> None:
        tag = uuid.uuid4().hex[:8]
        self.environ = {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": broker,
            "FRESHET_KAFKA__GROUP_PREFIX": tag,
            "FRESHET_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "FRESHET_REDIS__URL": redis,
            "FRESHET_CONTROL__RETRAIN_TOKEN": TOKEN,
            "FRESHET_CONTROL__HTTP_PORT": str(free_port()),
            **{
                f"FRESHET_KAFKA__TOPICS__{name.upper()}": f"{tag}.{name}"
                for name in Topics.model_fields
            },
        }
        self.settings: Settings = load(environ=self.environ).settings
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = os.environ | self.environ | {"TMPDIR": str(self.folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN], env=environ, cwd=Path(__file__).parents[2]
        )

    def stop(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(120)

    def send(self, topic: str, *values: bytes) -> None:
        with Publisher(self.settings) as publisher:
            for value in values:
                publisher.produce(topic, value, key="k")
            publisher.flush()

    def answer(self, request_id: str) -> None:
        """Learn says no."""
        said = ModelEvent(kind="rejected", version="v", at_ms=NOW_MS, request_id=request_id)
        self.send(self.settings.kafka.topics.models, encode(said))

    def turn(self) -> None:
        """Wait for control's next turn, about."""
        assert self.process is not None and self.process.poll() is None
        time.sleep(0.05)

    def post(self, authorization: str = f"Bearer {TOKEN}") -> tuple[int, Any]:
        """Ask for training over HTTP."""
        connection = HTTPConnection("127.0.0.1", self.settings.control.http_port, timeout=60)
        with closing(connection):
            headers = {"Authorization": authorization}
            connection.request("POST", "/v1/retrain", b'{"segments": ["hats"]}', headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def wait_for(self, topic: str, count: int) -> list[TableRecord]:
        """At least `count` records of a topic, within the deadline."""
        records: list[TableRecord] = []
        deadline = time.monotonic() + DEADLINE_S
        with TableReader(self.settings, [topic]) as reader:
            while len(records) < count:
                assert time.monotonic() < deadline, f"{len(records)} of {count} records on {topic}"
                assert self.process is None or self.process.poll() is None, "control ended"
                records += reader.poll(100)
        return records


@pytest.fixture
def control(mock_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Process]:
    process = Process(mock_broker, redis_server, tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def states(records: list[TableRecord]) -> list[tuple[str, str]]:
    alerts = [decode(Alert, record.value or b"") for record in records]
    return [(alert.data.labels["subject"], alert.data.state) for alert in alerts]


def test_drift_becomes_an_alert_and_a_request_and_a_broken_record_a_dead_letter(
    control: Process,
) -> None:
    topics = control.settings.kafka.topics
    control.start()
    control.send(topics.drift, b"{broken", encode(drift("shoes")))
    (request,) = control.wait_for(topics.retrain, 1)
    assert decode(RetrainRequest, request.value or b"").segments == ["shoes"]
    assert states(control.wait_for(topics.alerts, 1)) == [("shoes", "firing")]
    (letter,) = control.wait_for(f"{topics.drift}.dlq", 1)
    assert letter.value == b"{broken"
    assert control.post("Bearer no")[0] == 403
    status, busy = control.post()
    assert (status, busy["request_id"]) == (409, request.key.decode())
    control.answer(busy["request_id"])
    while (answer := control.post())[0] == 409:
        control.turn()
    status, accepted = answer
    assert status == 202
    asked = {record.key: record.value for record in control.wait_for(topics.retrain, 2)}
    by_hand = decode(RetrainRequest, asked[accepted["request_id"].encode()] or b"")
    assert (by_hand.reason, by_hand.segments) == ("manual", ["hats"])
    assert control.stop(signal.SIGTERM) == 0
    assert list(control.folder.iterdir()) == [], "no data folder is left behind"


def test_the_command_asks_the_same_and_says_what_learn_does_until_it_answers(
    control: Process,
) -> None:
    settings, topics = control.settings, control.settings.kafka.topics
    with Publisher(settings) as publisher:
        publisher.produce(topics.models, b"{", key="k")
        publisher.flush()
    request_id = ask(settings, ["hats", "caps", "hats"])
    (record,) = control.wait_for(topics.retrain, 1)
    request = decode(RetrainRequest, record.value or b"")
    assert (request.request_id, record.key) == (request_id, request_id.encode())
    assert (request.reason, request.segments) == ("manual", ["caps", "hats"])
    kinds: tuple[ModelEventKind, ...] = ("training", "rejected", "trial")
    for kind in kinds:
        for told in (request_id, "other"):
            event = ModelEvent(
                kind=kind, version="v", at_ms=NOW_MS, request_id=told, reason=f"as {told[:6]}"
            )
            control.send(topics.models, encode(event))
    assert list(progress(settings, request_id)) == ["training v as manual", "rejected v as manual"]


def test_a_killed_control_goes_on_without_saying_anything_twice(control: Process) -> None:
    topics = control.settings.kafka.topics
    control.start()
    control.send(topics.drift, encode(drift("shoes")))
    control.wait_for(topics.retrain, 1)
    control.stop(signal.SIGKILL)
    control.process = None
    # While it is down the drift ends, and another begins within the cool-down.
    control.send(
        topics.drift,
        encode(drift("shoes", "stable", NOW_MS + 1)),
        encode(drift("hats", at_ms=NOW_MS + 2)),
    )
    control.start()
    alerts = control.wait_for(topics.alerts, 3)
    assert sorted(states(alerts)) == [
        ("hats", "firing"),
        ("shoes", "firing"),
        ("shoes", "resolved"),
    ]
    control.send(topics.drift, encode(drift("hats", "stable", NOW_MS + 3)))
    assert len(control.wait_for(topics.alerts, 4)) == 4
    assert len(control.wait_for(topics.retrain, 1)) == 1
    assert control.stop(signal.SIGTERM) == 0
