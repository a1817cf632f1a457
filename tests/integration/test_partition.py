"""The same checks as in memory, on a real Redis: any batches, crashes, zombies, rollbacks, restarts
of Redis.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from freshet.stream.config import RedisSettings
from freshet.stream.errors import StoreUnavailableError
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from tests.stream.fold.test_partition import ACTIONS, order
from tests.stream.fold.windows_checks import (
    START_MS,
    Driver,
    LogRecord,
    RedisCopies,
    batch_of,
    log_records,
    naive,
    small_settings,
    stored_state,
)


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=SecretStr(redis_server)))
    yield client
    client.close()


def same_as_naive(client: redis.Redis, driver: Driver) -> bool:
    reference = naive(driver.kind, driver.settings, driver.log)
    if reference.frontier_ms is None:
        return True
    stored = stored_state(
        WindowStore(client, 0), RedisCopies(client), driver.topic, driver.settings
    )
    return stored == reference.state()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_split_into_batches_equals_judging_record_by_record(
    client: redis.Redis, data: st.DataObject
) -> None:
    client.flushall()
    kind = data.draw(st.sampled_from(["orders", "clicks"]))
    config = small_settings(max_items_per_partition=data.draw(st.sampled_from([1, 3, 100])))
    driver = Driver(WindowStore(client, 0), kind, config, data.draw(log_records(kind)))
    while driver.windows.next_offset < len(driver.log):
        assert driver.step(data.draw(st.integers(1, 25))) is Answer.APPLIED
    assert same_as_naive(client, driver)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(log=log_records("orders"), actions=ACTIONS)
def test_crashes_zombies_and_rollbacks_leave_no_trace(
    client: redis.Redis, log: list[LogRecord], actions: list[tuple[str, int]]
) -> None:
    client.flushall()
    copies = RedisCopies(client)
    driver = Driver(WindowStore(client, 0), "orders", small_settings(), log)
    saved = copies.save()
    act: dict[str, Callable[[int], object]] = {
        "step": driver.step,
        "crash": driver.crash,
        "zombie": lambda _: driver.zombies(),
        "restore": lambda _: copies.restore(saved),
        "idle": lambda size: driver.windows.declare_idle(START_MS + size),
    }
    for action, size in actions:
        if action == "save":
            saved = copies.save()
        else:
            act[action](size)
    driver.drain()
    assert same_as_naive(client, driver)


def test_the_scripts_come_back_after_redis_forgot_them(client: redis.Redis) -> None:
    driver = Driver(
        WindowStore(client, 0), "orders", small_settings(), [order(n, START_MS) for n in range(4)]
    )
    driver.step(2)
    client.script_flush()
    assert driver.step(2) is Answer.APPLIED


def test_a_flushed_redis_is_a_gap_and_the_log_is_folded_again(client: redis.Redis) -> None:
    driver = Driver(
        WindowStore(client, 0),
        "orders",
        small_settings(),
        [order(n, START_MS + n) for n in range(6)],
    )
    driver.step(3)
    client.flushall()
    assert driver.step(3) is Answer.GAP
    driver.drain()
    assert same_as_naive(client, driver)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_append_only_file_cut_at_a_random_byte_is_folded_on(tmp_path: Path, seed: int) -> None:
    """Redis dies by SIGKILL and loses the end of its file: the log gives it back, bit for bit."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on PATH")
    draw = random.Random(seed)
    log = [order(n % 30, START_MS + 400 * n, f"s{n % 7}") for n in range(200)]
    process, client = _start_redis(binary, tmp_path)
    try:
        driver = Driver(WindowStore(client, 0), "orders", small_settings(), log)
        while driver.windows.next_offset < 150:
            driver.step(10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1"):
            driver.step(10)
        file = max(tmp_path.glob("appendonlydir/*.incr.aof"))
        size = file.stat().st_size
        os.truncate(file, draw.randrange(size // 4, size))
        client.close()
        process, client = _start_redis(binary, tmp_path)
        driver.store = WindowStore(client, 0)
        driver.claim()
        assert driver.windows.next_offset < 160
        driver.drain()
        assert same_as_naive(client, driver)
    finally:
        client.close()
        process.kill()
        process.wait(60)


def _start_redis(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], redis.Redis]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "no", "--aof-load-truncated", "yes"]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while True:
        try:
            return process, connect(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0")))
        except StoreUnavailableError:
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)


def test_what_left_retention_is_freed_and_nothing_else_is(client: redis.Redis) -> None:
    """Six hundred batches write 3,000 tiles; then time jumps, and two tiles are left."""
    config = small_settings()
    log = [order(n, START_MS + 1_000 * n) for n in range(3_000)]
    log += [order(3_000 + n, START_MS + 10**7 + n) for n in range(4)]
    driver = Driver(WindowStore(client, 0), "orders", config, log)
    for start in range(0, 3_000, 5):
        windows = driver.windows
        assert windows.apply(windows.fold(batch_of(log, start, start + 5))) is Answer.APPLIED
    kept = [len(client.keys("*:w:*"))]
    while driver.windows.next_offset < len(log):
        driver.step(1)
        kept.append(len(client.keys("*:w:*")))
    assert kept[-1] == 2
    assert len(client.keys("*:u:*")) == 1
    assert client.zcard(WindowStore(client, 0).keys(driver.topic, 0).retained) == 3
    assert client.zcard(WindowStore(client, 0).keys(driver.topic, 0).index(1_000)) == 1
