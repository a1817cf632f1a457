"""`docker compose up`, events in, forecasts out, `down`, `up` again: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshet.stream.codec import decode, encode
from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.kafka import Publisher, TableReader
from freshet.stream.process import BackOff, wait_until
from freshet.stream.schemas import Forecast, OrderEvent
from freshet.stream.units import HOUR_MS
from tests.integration.compose_harness import Compose
from tests.integration.shop import TIMEOUT_S

pytestmark = pytest.mark.slow
LOOK_S = 0.5
PAST_MS = 6_000
"""More than records may be out of order: the order closes the hour before it."""

TOML = """
[windows]
idle_ms = 3600000
[worker]
resolution_ms = 3600000
prediction_length = 4
context_length = 64
effects = false
[kafka]
partitions = 1
"""


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    home = os.environ.get("KAFKA_HOME", "")
    if not home or not Path(home, "bin").exists() or shutil.which("java") is None:
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka, or there is no Java")
    if shutil.which("redis-cli") is None or shutil.which("redis-server") is None:
        pytest.skip("the compose file asks for redis-server and redis-cli")
    (tmp_path / "freshet.toml").write_text(TOML, "utf-8")
    made = Compose(
        "docker-compose.yml",
        folder=tmp_path,
        kafka_home=Path(home),
        environ={"FRESHET_CONFIG": str(tmp_path / "freshet.toml")},
    )
    try:
        yield made
    finally:
        made.down()


def from_outside(compose: Compose) -> Settings:
    """The settings of a program of the host: what the compose file publishes."""
    port = compose.port("kafka", "29092")
    return Settings(kafka=KafkaSettings(bootstrap_servers=f"localhost:{port}"))


def sell(settings: Settings, hours: range, hour_ms: int) -> None:
    """One order of each item in each of these hours before this one, the oldest first."""
    with Publisher(settings) as publisher:
        for hour in hours:
            for sku in ("a", "b"):
                order = OrderEvent(
                    event_id=f"{sku}{hour}",
                    event_time=hour_ms + PAST_MS - hour * HOUR_MS,
                    sku=sku,
                    region="north",
                    quantity=2,
                    unit_price=1.5,
                )
                publisher.produce(settings.kafka.topics.orders, encode(order), key=sku)
        publisher.flush()


def forecasts(settings: Settings) -> set[tuple[str, int]]:
    """Which items have one, and of which cutoff."""
    with TableReader(settings, [settings.kafka.topics.forecasts]) as reader:
        found = [decode(Forecast, record.value) for record in reader.read_to_end() if record.value]
    return {(one.item_id, one.cutoff_ms) for one in found}


def wait_for_all(compose: Compose, settings: Settings, wanted: set[tuple[str, int]]) -> None:
    """Until these forecasts are there; a look is a client of its own, so not at once again."""
    look = BackOff(LOOK_S, LOOK_S)
    assert wait_until(lambda: ran(compose) and wanted <= forecasts(settings), TIMEOUT_S, look)


@pytest.mark.timeout(900)  # A dozen processes start, which two busy cores take minutes for.
def test_what_came_before_down_is_there_after_up(compose: Compose) -> None:
    hour_ms = int(time.time() * 1_000) // HOUR_MS * HOUR_MS
    compose.up("ingest", "worker", "control", "learn", "dashboard")
    settings = from_outside(compose)
    sell(settings, range(6, 1, -1), hour_ms)
    early = {(f"{sku}|north", hour_ms - 2 * HOUR_MS) for sku in "ab"}
    wait_for_all(compose, settings, early)
    for name in ("ingest", "worker", "control", "learn", "dashboard"):
        compose.wait_healthy(name)

    compose.down()
    compose.up("ingest", "worker")
    assert early <= forecasts(settings)
    sell(settings, range(1, -1, -1), hour_ms)
    late = {(f"{sku}|north", hour_ms) for sku in "ab"}
    wait_for_all(compose, settings, late)
    said = compose.run("ingest", "verify", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    report = json.loads(said.stdout)
    assert sum(part["records"] for part in report["partitions"]) == 14


def ran(compose: Compose) -> bool:
    """Nothing has ended by itself."""
    ended = compose.ended()
    assert not ended, compose.log(ended[0])
    return True
