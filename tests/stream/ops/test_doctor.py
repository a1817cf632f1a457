"""Checks run at once, each ends by itself, and what depends on a broken one is left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.online.doctor import check_weights, examine, line_of
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.config import (
    KafkaSettings,
    LearnSettings,
    RedisSettings,
    Settings,
    Topics,
    WindowSettings,
)
from freshet.stream.errors import ConfigError, RegistryError, WeightsError
from freshet.stream.fold.headers import fingerprint
from freshet.stream.kafka import Cluster
from freshet.stream.kafka.topics import TopicPlan
from freshet.stream.ops.doctor import Check, Examination, Probe
from freshet.stream.store.connection import connect
from freshet.stream.store.redis import WindowStore

STREAM = {"kafka", "redis", "sign-in", "topics", "retention", "orders", "clicks", "clock"}
WINDOWS = {"tables", "windows", "books", "ingest", "worker", "broker's clock"}


def says(name: str, *states: str) -> Probe:
    return Probe(name, lambda: [Check(name, state, "x") for state in states])  # type: ignore[arg-type]


def names(checks: Iterator[Check]) -> list[tuple[str, str]]:
    return [(check.name, check.state) for check in checks]


def test_each_finding_comes_as_its_check_ends() -> None:
    second = threading.Event()

    def wait_for_second() -> list[Check]:
        assert second.wait(60)
        return [Check("first", "ok", "x")]

    found = Examination([Probe("first", wait_for_second), says("second", "ok")]).findings()
    assert next(found).name == "second"
    second.set()
    assert next(found).name == "first"


def test_what_needs_a_broken_one_is_left_out_and_said_so() -> None:
    probes = [
        says("kafka", "ok", "problem"),
        Probe("topics", lambda: [Check("topics", "ok", "x")], needs=("kafka",)),
        Probe("lag", lambda: [Check("lag", "ok", "x")], needs=("topics", "redis")),
        says("redis", "warning"),
        Probe("clock", lambda: [Check("clock", "ok", "x")], needs=("redis",)),
    ]
    found = list(Examination(probes).findings())
    assert ("clock", "ok") in names(iter(found))
    assert found[-1].message == "not looked at, for want of the above: topics, lag"


def test_one_that_hangs_holds_up_nobody_and_is_named() -> None:
    never = threading.Event()

    def hang() -> list[Check]:
        never.wait(30)
        return []

    probes = [
        Probe("hangs", hang),
        Probe("slow", hang, late="warning"),
        says("well", "ok"),
        Probe("after", lambda: [], needs=("hangs",)),
    ]
    began_s = time.monotonic()
    found = list(Examination(probes, limit_s=0.3).findings())
    assert time.monotonic() - began_s < 15.0
    never.set()
    told = [("well", "ok"), ("hangs", "problem"), ("slow", "warning"), ("doctor", "warning")]
    assert names(iter(found)) == told
    assert found[1].message == "no answer within 0.3 s"
    assert found[-1].message.endswith("of the above: after")


def test_an_error_is_a_finding_with_its_hint_and_a_fault_is_one_too() -> None:
    def known() -> list[Check]:
        raise WeightsError("sha256 differs", hint="download them again")

    def unknown() -> list[Check]:
        raise KeyError("x")

    probes = [Probe("known", known), Probe("unknown", unknown, needs=())]
    found = {check.name: check for check in Examination(probes).findings()}
    assert line_of(found["known"]) == "problem  known: sha256 differs; download them again"
    assert found["unknown"].message == "the check failed: KeyError: 'x'"


def test_all_is_well_with_an_embedded_broker_and_an_empty_redis(
    mock_broker: str, redis_server: str
) -> None:
    topics = Topics(**{name: f"doctor.{name}" for name in Topics.model_fields})
    kafka = KafkaSettings(bootstrap_servers=mock_broker, topics=topics)
    settings = Settings(kafka=kafka, redis=RedisSettings(url=redis_server))
    found = list(examine(settings, only=STREAM | WINDOWS))
    assert not [check for check in found if check.state == "problem"], found
    (broker,) = [check for check in found if check.name == "kafka"]
    assert "embedded" in broker.message


def test_nothing_there_shows_no_password() -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_ms=200)
    settings = Settings(kafka=kafka, redis=RedisSettings(url="redis://me:secret@127.0.0.1:1/0"))
    found = list(examine(settings, only=STREAM | WINDOWS))
    assert names(iter(found)).count(("kafka", "problem")) == 1
    assert names(iter(found)).count(("redis", "problem")) == 1
    assert not any("secret" in line_of(check) for check in found)


@pytest.mark.parametrize(("hint", "line"), [("", "ok       x: y"), ("z", "ok       x: y; z")])
def test_a_line_says_state_name_message_and_hint(hint: str, line: str) -> None:
    assert line_of(Check("x", "ok", "y", hint)) == line


def test_weights_and_horizon_are_looked_at_without_the_library_that_takes_seconds_to_load() -> None:
    code = (
        "import sys\n"
        "from freshet.online.doctor import examine\n"
        "from freshet.stream.config import Settings, WorkerSettings\n"
        "far = WorkerSettings(resolution_ms=3_600_000, prediction_length=2_000)\n"
        "for check in examine(Settings(worker=far), only={'weights', 'device'}):\n"
        "    print(check.name, check.state, check.message)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = sorted(done.stdout.splitlines())
    assert said[:2] == ["False", "device ok auto: a GPU where there is one, else the CPU"]
    assert said[2].startswith("weights ok base (") and said[2].endswith(") is whole")
    assert said[3] == "weights problem 2000 steps of 3600000 ms are asked for"


def test_of_two_versions_that_serve_both_are_looked_at_and_whom_they_serve(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path)

    def build(folder: Path) -> None:
        shutil.copytree(BASE_WEIGHTS, folder, dirs_exist_ok=True)

    version = registry.add(build, parent=BASE, created_at_ms=0).version
    registry.serve(Assignment(BASE, version, ("pets", "toys")))
    settings = Settings(learn=LearnSettings(registry=tmp_path))
    first, second = (check.message for check in check_weights(settings))
    assert first.startswith("base (") and first.endswith(") is whole")
    assert second.startswith(f"{version} (") and second.endswith(") is whole, for pets, toys")
    (registry.path(version) / "model.safetensors").write_bytes(b"altered")
    with pytest.raises(RegistryError, match="altered"):
        list(check_weights(settings))


def test_history_that_is_announced_is_missed_until_every_partition_has_it(
    mock_broker: str, redis_server: str
) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=mock_broker),
        redis=RedisSettings(url=redis_server),
        windows=WindowSettings(history_before=1_700_000_000_000),
    )
    client = connect(settings.redis)
    store = WindowStore(client, 0)

    def said(**complete: int) -> list[tuple[str, str]]:
        for name, number in complete.items():
            topic = getattr(settings.kafka.topics, name)
            store.claim(topic, 0, fingerprint("orders", settings))
            fields = {"first_offset": 0, "next_offset": 1, "num_partitions": 1}
            at = store.keys(topic, 0).header
            client.hset(at, mapping={**fields, "history_complete": number})
        checks = examine(settings, only={"history"})
        return [(one.state, one.message) for one in checks if one.name == "history"]

    waits = "until all of it is there nothing is forecast"
    assert said() == [("warning", f"no history is loaded yet: {waits}")]
    half = "history is being loaded: 1 of 2 partitions have it"
    assert said(orders=1, clicks=0) == [("warning", f"{half}: {waits}")]
    assert said(clicks=1) == [("ok", "all of it is loaded")]


def test_a_topic_that_is_misspelt_is_not_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = import_module("freshet.stream.ops.kafka_checks")
    topics = Topics(orders="shopify.order", clicks="shop.click", catalog="shop.catalogs")
    settings = Settings(kafka=KafkaSettings(topics=topics))
    there = {"shopify.orders": 2, "shop.clicks": 1, "bananas": 1}
    ends = {("shopify.orders", 0): (5, 5), ("shopify.orders", 1): (5, 6)}

    class Logs:
        def __init__(self, settings: Settings) -> None: ...

        def ranges(self, keys: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
            return {key: ends.get(key, (3, 3)) for key in keys}

    monkeypatch.setattr(module, "LogOffsets", Logs)
    wanted = [TopicPlan(name, 1, {}) for name in ("shopify.order", "shop.click", "freshet.late.v1")]
    found = list(module._missing(settings, wanted, Cluster(1, True, there, ())))
    assert [one.message for one in found] == [
        "missing: shopify.order; did you mean shopify.orders, which has records?",
        "missing: shop.click, freshet.late.v1",
    ]


def test_the_first_line_comes_before_anything_is_loaded(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "none.toml")])
    assert done.stdout.startswith("freshet ") and "looks at Kafka, Redis" in done.stdout
    assert isinstance(done.exception, ConfigError)
