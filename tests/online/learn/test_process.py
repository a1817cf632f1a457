"""The learner's process on its own: told to stop, it waits for no broker."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from freshet.online.learn import process
from freshet.online.learn.learner import Stopped
from freshet.online.learn.process import check_writable, publisher_of
from freshet.stream.errors import BrokerError, RegistryError
from freshet.stream.health import Health
from freshet.stream.kafka import Delivery, Publisher
from freshet.stream.process import Stop
from freshet.stream.schemas import ModelEvent


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
