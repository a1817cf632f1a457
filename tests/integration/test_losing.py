"""Nobody loses records in silence: a run's books, its exit status, the log, the alert."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from freshet.stream.codec import decode
from freshet.stream.config import load
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.schemas import Alert
from tests.integration.shop import TIMEOUT_S, environ_for, order, read, send


def ingest(environ: dict[str, str], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "freshet", "ingest", *options],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, list[dict[str, Any]]]:
    """What it printed, and the lines of its log."""
    printed, logged = process.communicate(timeout=TIMEOUT_S)
    return printed, [json.loads(line) for line in logged.splitlines() if line.startswith("{")]


def test_seconds_read_as_milliseconds_are_told_and_end_with_status_1(
    kafka_broker: str, redis_server: str
) -> None:
    environ = environ_for(kafka_broker, redis_server, "seconds")
    settings = load(environ=environ).settings
    ensure_topics(settings, live=True)
    orders = settings.kafka.topics.orders
    now_s = int(time.time())
    send(settings, [order(n, event_time_ms=now_s + n) for n in range(60)])
    with Publisher(settings) as publisher:
        for n in range(5):  # Of a load of history nobody is told that it is old.
            mark = [("freshet-history", b"2020:%d" % n)]
            old = order(100 + n, event_time_ms=1_580_000_000_000)
            publisher.produce(orders, old, key=b"key", partition=0, headers=mark)
        publisher.flush()

    process = ingest(environ, "--until-end")
    printed, logged = ended(process)
    assert process.returncode == 1, printed
    assert f"{orders}: 65 read = 65 applied + 0 duplicate" in printed
    assert f"lost of {orders}: 60 x old, such as {orders}-0-0" in printed
    assert 'events.orders.fields.event_time: time = "s"' in printed
    assert f"92.3% of {orders} is lost" in printed
    (warning,) = [line for line in logged if line["event"] == "records_lost"]
    assert (warning["level"], warning["old"], warning["read"]) == ("warning", 60, 65)
    alerts = [
        decode(Alert, one.value or b"") for one in read(settings, settings.kafka.topics.alerts)
    ]
    assert [alert.data.state for alert in alerts] == ["firing", "resolved"]

    # What an earlier run lost is not counted again.
    process = ingest(environ)
    assert process.stderr is not None
    assert any('"started"' in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    printed, _ = ended(process)
    assert (process.returncode, printed) == (0, "this run read nothing\n")
