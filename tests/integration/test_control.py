"""`freshet control` as a process on a broker: alerts and requests out, through a SIGKILL too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings, Topics, load
from freshet.stream.kafka import Publisher, TableReader, TableRecord
from freshet.stream.schemas import Alert, DriftAlert, RetrainRequest
from freshet.stream.units import HOUR_MS

DEADLINE_S = 60.0
RUN = (
    "from freshet.stream.config import load; from freshet.online.control.process import run; "
    "run(load().settings)"
)
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
        return self.process.wait(30)

    def send(self, topic: str, *values: bytes) -> None:
        with Publisher(self.settings) as publisher:
            for value in values:
                publisher.produce(topic, value, key="k")
            publisher.flush()

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
    assert control.stop(signal.SIGTERM) == 0
    assert list(control.folder.iterdir()) == [], "no data folder is left behind"


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
