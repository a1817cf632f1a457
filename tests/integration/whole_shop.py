"""All processes of a shop on servers that are killed: started, asked, told to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from freshet.stream.codec import encode
from freshet.stream.config import Settings, load
from freshet.stream.kafka import Publisher, TableReader, TableRecord, ensure_topics
from freshet.stream.schemas import Record
from tests.integration.faults.world import Broker, HurtRedis
from tests.starved import Stopwatch, ended

NAMES = ("ingest", "worker", "control", "learn", "dashboard")
STEP_MS = 5_000
TIMEOUT_S = 240.0


class WholeShop:
    """Broker, Redis, and five processes that stand on them.

    Args:
        home: An unpacked Kafka.
        folder: Where everything lies.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker(home, folder / "kafka")
        self.redis = HurtRedis(folder / "redis")
        self.ports = dict(zip(NAMES, quiet_ports(len(NAMES)), strict=True))
        self.environ = self._environ()
        self.settings: Settings = load(environ=self.environ).settings
        ensure_topics(self.settings, live=True)
        self.processes = {name: self._started(name) for name in NAMES}
        self._selling = threading.Event()

    def _environ(self) -> dict[str, str]:
        widths = [{"resolution_ms": STEP_MS, "buckets": 600}]
        ports = {
            f"FRESHET_{name.upper()}__{'PORT' if name == 'dashboard' else 'HTTP_PORT'}": str(port)
            for name, port in self.ports.items()
        }
        return {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": self.broker.address,
            "FRESHET_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "FRESHET_KAFKA__PARTITIONS": "1",
            "FRESHET_REDIS__URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "FRESHET_REDIS__TIMEOUT_MS": "1000",
            "FRESHET_WINDOWS__RESOLUTIONS": json.dumps(widths),
            "FRESHET_WINDOWS__OUT_OF_ORDER_MS": "500",
            "FRESHET_WINDOWS__ALLOWED_LATENESS_MS": "2000",
            "FRESHET_WORKER__RESOLUTION_MS": str(STEP_MS),
            "FRESHET_WORKER__CONTEXT_LENGTH": "64",
            "FRESHET_WORKER__PREDICTION_LENGTH": "4",
            "FRESHET_WORKER__SEASON_LENGTH": "2",
            "FRESHET_WORKER__SCORE_STEPS": "[1]",
            "FRESHET_WORKER__EFFECTS": "false",
            "FRESHET_CONTROL__MIN_NEW_DATA_MS": "0",
            "FRESHET_CONTROL__COOLDOWN_MS": "1",
            "FRESHET_LEARN__REGISTRY": str(self.folder / "registry"),
            "FRESHET_LEARN__HOLDOUT_BUCKETS": "2",
            "FRESHET_TELEMETRY__LOG_FORMAT": "json",
            **ports,
        }

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "freshet", name],
                env={**os.environ, **self.environ, "OMP_NUM_THREADS": "1"},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    # What happens in the shop ---------------------------------------------------------------------

    def send(self, topic: str, *records: Record | bytes | None, key: bytes = b"k") -> None:
        """Records, or bytes as they are, onto a topic."""
        with Publisher(self.settings, message_max_bytes=4_000_000) as publisher:
            for record in records:
                value = encode(record) if isinstance(record, Record) else record
                publisher.produce(topic, value, key=key)
            publisher.flush()

    def sell(self) -> None:
        """From now on an order of sku "a" every half second, as long as the broker takes them."""
        threading.Thread(target=self._sell, daemon=True).start()

    def _sell(self) -> None:
        number = 0
        while not self._selling.wait(0.5):
            number += 1
            with suppress(Exception):
                self.send(self.settings.kafka.topics.orders, order(number))

    # What is asked --------------------------------------------------------------------------------

    def probe(self, name: str, path: str = "/readyz") -> tuple[int, str]:
        """Status and text of a probe; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[name]}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def page(self, path: str) -> Any:
        """What the page answers."""
        status, text = self.probe("dashboard", path)
        assert status == 200, (path, status, text)
        return json.loads(text)

    def records(self, topic: str) -> list[TableRecord]:
        """Everything that a topic holds."""
        with TableReader(self.settings, [topic]) as reader:
            return reader.read_to_end()

    def wait(self, so: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Until it is so; a process that ended meanwhile fails the test."""
        end_s = time.monotonic() + timeout_s
        while not so():
            dead = [name for name, one in self.processes.items() if one.poll() is not None]
            assert not dead, f"{dead} ended while waiting for {what}: {self.log(dead[0])}"
            assert time.monotonic() < end_s, f"{what}: not within {timeout_s} s"
            time.sleep(0.2)

    def wait_ready(self) -> None:
        """Until all processes say that they do their work."""
        for name in NAMES:
            self.wait(lambda name=name: self.probe(name)[0] == 200, f"{name} is ready")

    def log(self, name: str) -> str:
        """The end of a process's log."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-3_000:]

    # The end --------------------------------------------------------------------------------------

    def stop_all(self) -> dict[str, tuple[float, int | None]]:
        """SIGTERM for every process: how long each took, and its exit status."""
        self._selling.set()
        told_s = time.monotonic()
        watches = {name: Stopwatch(process.pid) for name, process in self.processes.items()}
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        took: dict[str, tuple[float, int | None]] = {}
        while len(took) < len(self.processes) and time.monotonic() < told_s + TIMEOUT_S:
            for name, process in self.processes.items():
                if name not in took and ended(process.pid):
                    took[name] = (round(watches[name].seconds(), 1), process.wait())
            time.sleep(0.05)
        return took

    def kill(self) -> None:
        """Everything ends."""
        self._selling.set()
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.redis.kill()
        self.broker.stop()


def quiet_ports(count: int) -> list[int]:
    """Free ports below those that connections of other tests get while a process starts."""
    found: list[int] = []
    candidates = random.Random(os.getpid()).sample(range(20_000, 30_000), 200)
    for port in candidates:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found[:count]


def order(number: int, sku: str = "a") -> bytes:
    """An order of now."""
    now_ms = time.time_ns() // 1_000_000
    fields = {"event_id": f"o{number}", "sku": sku, "region": "n", "quantity": 2, "unit_price": 1.5}
    return json.dumps(fields | {"event_time": now_ms}).encode()
