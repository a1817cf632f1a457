"""One shop under fault: a log on a real Kafka, a Redis that can be hurt, child processes, proof.

The proof is the same after every fault: all records are read to the end, `freshet verify` finds
every cell, header and book as it counts them from the log, and produced = applied + duplicate +
late + dead, record for record.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from freshet.stream.child import free_port
from freshet.stream.config import Settings, load
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import LogOffsets, ensure_topics
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import redis_binary
from freshet.stream.verify.verify import verify
from tests.integration.faults.proxy import TcpProxy
from tests.integration.messy_log import START_MS, MessyLog, Odd, publish
from tests.integration.shop import OUTCOMES, environ_for, wait_for

RUN = """
from freshet.stream.config import load
from freshet.stream.ingest.process import run
run(load().settings, until_end={until_end})
"""
PARTITIONS = 3
RECORDS = 600
TIMEOUT_S = 240.0


class Broker:
    """A Kafka that is killed, stopped and started again on the same folder and port."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home, self._folder, self.port = home, folder, free_port()
        self._kafka = self._started()

    def _started(self) -> RealKafka:
        return RealKafka(self._home, self._folder, self.port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._kafka.alive

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._kafka.process.pid, number)

    def restart(self) -> None:
        """Kill it where it stands, and start it again."""
        self.signal(signal.SIGKILL)
        self._kafka.process.wait()
        self._kafka = self._started()

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self._kafka.process.wait()


class HurtRedis:
    """A redis-server, synced to disk every second, which can be killed and started again."""

    def __init__(self, folder: Path, **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self._options = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
        } | options
        self.start()

    def start(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            **self._options,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen([redis_binary(), *arguments], stdout=subprocess.DEVNULL)
        wait_for(lambda: _listens(self.port), TIMEOUT_S)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def truncate(self, rng: random.Random) -> int:
        """Cut the append-only file at a random byte; how many bytes were lost."""
        # Redis 7 keeps a folder of them, Redis 6 one.
        files = [*self.folder.glob("appendonlydir/*.incr.aof"), *self.folder.glob("appendonly.aof")]
        file = max(files)
        size = file.stat().st_size
        kept = rng.randrange(size // 2, size)
        os.truncate(file, kept)
        return size - kept


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


class Ingest:
    """An ingest process; its output goes to a file."""

    def __init__(self, environ: dict[str, str], log_file: Path, *, until_end: bool = False) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN.format(until_end=until_end)],
                env={**os.environ, **environ, "OMP_NUM_THREADS": "1"},
                cwd="/",
                stdout=log,
                stderr=log,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self, text: str) -> int:
        return self.log_file.read_text("utf-8", "replace").count(text)


@dataclass
class World:
    """Everything that one fault needs; with `states` orders say what they are.

    With `history` old records are loaded while live ones come in.
    """

    name: str
    seed: int
    broker: Broker
    folder: Path
    states: bool = False
    history: bool = False
    rng: random.Random = field(init=False)
    redis: HurtRedis = field(init=False)
    environ: dict[str, str] = field(init=False)
    settings: Settings = field(init=False)
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.name}:{self.seed}")
        self.redis = HurtRedis(self.folder / "redis")
        self.proxy = TcpProxy(self.redis.port)
        self._children: list[Ingest] = []
        self.environ = environ_for(
            self.broker.address,
            f"redis://127.0.0.1:{self.proxy.port}/0",
            f"{self.name}:{self.seed}",
            FRESHET_KAFKA__SESSION_TIMEOUT_MS="6000",
            FRESHET_KAFKA__REQUEST_TIMEOUT_MS="4000",
            FRESHET_KAFKA__PARTITIONS=str(PARTITIONS),
            FRESHET_KAFKA__GROUP_INSTANCE_ID="a",
            FRESHET_INGEST__BATCH_MAX_RECORDS="300",
            FRESHET_INGEST__DEAD_LETTER_PAUSE_SHARE="0.99",
            FRESHET_WINDOWS__IDLE_MS="30000",
            FRESHET_EVENTS__ORDERS__MODE="state" if self.states else "events",
        )
        if self.history:
            self.environ["FRESHET_WINDOWS__HISTORY_BEFORE"] = str(START_MS)
        self.settings = load(environ=self.environ).settings
        self._log = MessyLog(self.settings, self.rng, range(PARTITIONS), self.states, self.history)
        ensure_topics(self.settings, live=False)

    # What happens ---------------------------------------------------------------------------------

    def start(self, **over: str) -> Ingest:
        """An ingest process; two of one `kafka.group_instance_id` would fence each other."""
        child = Ingest(self.environ | over, self.folder / "ingest.log")
        self._children.append(child)
        return child

    @contextmanager
    def ingesting(self, odd: Odd | None = None, **over: str) -> Iterator[Ingest]:
        """An ingest that has applied some of `RECORDS` records, and goes on meanwhile."""
        self.send(RECORDS, odd)
        child = self.start(**over)
        before = self.read()
        wait_for(lambda: self.read() > before or not child.alive, TIMEOUT_S)
        yield child

    def read(self) -> int:
        """How many records are in the windows; -1 while Redis does not say."""
        try:
            return sum(header.read for header in self.headers())
        except Exception:
            return -1

    def headers(self) -> list[Any]:
        client = connect(self.settings.redis)
        store = WindowStore(client, current_generation(client, 0))
        found = [store.header(*key) for key in store.partitions()]
        client.close()
        return [header for header in found if header is not None]

    def send(self, records: int, odd: Odd | None = None) -> None:
        """More of the log."""
        batch = [self._log.record(odd) for _ in range(records)]
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                publish(self.settings, batch)
                return
            except BrokerError:
                # What was acknowledged is sent a second time: those records are duplicates, as a
                # producer's would be.
                assert time.monotonic() < deadline_s, "the broker did not come back"
                time.sleep(0.2)

    # What must be so afterwards -------------------------------------------------------------------

    def prove(self) -> dict[str, Any]:
        """Read to the end in peace, and count again."""
        for child in self._children:
            child.signal(signal.SIGCONT)
            child.kill()
        if self.history:
            publish(self.settings, self._log.completes())
        last = Ingest(self.environ, self.folder / "ingest.log", until_end=True)
        assert last.process.wait(TIMEOUT_S) == 0, self.tail()
        keys = [(topic, n) for topic in self._events() for n in range(PARTITIONS)]
        logs = LogOffsets(self.settings)
        produced = sum(end - start for start, end in logs.ranges(keys).values())
        logs.close()
        headers = self.headers()
        assert all(header.history_complete == self.history for header in headers)
        books = {name: sum(getattr(header, name) for header in headers) for name in OUTCOMES}
        assert produced == sum(books.values()), (produced, books)
        report = verify(self.settings)
        assert report.agrees, report.as_text()
        return {"events": produced, **books, "cells": report.as_dict()["cells"], **self.notes}

    def _events(self) -> tuple[str, str]:
        return self.settings.kafka.topics.orders, self.settings.kafka.topics.clicks

    def tail(self) -> str:
        return (self.folder / "ingest.log").read_text("utf-8", "replace")[-3_000:]

    def close(self) -> None:
        for child in self._children:
            child.signal(signal.SIGCONT)
            child.kill()
        self.proxy.close()
        self.redis.kill()
