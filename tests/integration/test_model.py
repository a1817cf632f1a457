"""A machine of random moves against a real Redis: whatever happens, what is stored is the log up to
its offset.

`MODEL_EXAMPLES=2000` runs the long set; without it, forty examples. The moves are produce, deliver,
crash at any of the failpoints between fold and notice, a zombie's write, a rebalance, Redis coming
back older, FLUSHALL, and idling.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr

from freshet.stream.config import RedisSettings, Settings
from freshet.stream.fold import partition as partition_module
from freshet.stream.fold.batches import Fold
from freshet.stream.fold.partition import PartitionWindows, TopicFacts
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import OUTCOMES, Answer
from freshet.stream.store.redis import WindowStore
from tests.stream.fold.states_checks import naive_states, state_records, state_settings
from tests.stream.fold.windows_checks import (
    START_MS,
    LogRecord,
    NaiveWindows,
    RedisCopies,
    batch_of,
    log_records,
    naive,
    small_settings,
    stored_state,
)

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))
TOPIC, KIND = "freshet.orders.v1", "orders"
TIMES = ("event_time", "changed_at")
FAILPOINTS = ("after_dead_letters", "before_apply", "after_apply", "before_notice")


class CrashError(Exception):
    """The process died here."""


@dataclass
class Worker:
    """One process's view of the partition: what it claimed, and perhaps a fold that it has not
    written yet.
    """

    windows: PartitionWindows
    unwritten: Fold | None = None


class Shop(RuleBasedStateMachine):
    """One partition, any number of processes, one Redis."""

    client: ClassVar[redis.Redis]
    settings: ClassVar[Settings] = small_settings()
    zombies = Bundle("zombies")

    @initialize(stamps=st.sampled_from(["CreateTime", "LogAppendTime"]))
    def begin(self, stamps: str) -> None:
        self.stamps = stamps
        self.client.flushall()
        self.store, self.copies = WindowStore(self.client, 0), RedisCopies(self.client)
        self.log: list[LogRecord] = []
        self.saved = self.copies.save()
        self.owner = self._claimed()

    def _claimed(self) -> Worker:
        windows = PartitionWindows.claim(
            self.store, KIND, TOPIC, 0, self.settings, facts=TopicFacts(timestamp_type=self.stamps)
        )
        if windows.header.next_offset is None:
            windows.start_at(0)
        return Worker(windows)

    def _told(self, log: list[LogRecord]) -> NaiveWindows:
        """By the rules, record by record."""
        return naive(KIND, self.settings, log, self.stamps)

    def _fold(self, worker: Worker, size: int) -> Fold:
        start = worker.windows.next_offset
        return worker.windows.fold(batch_of(self.log, start, min(len(self.log), start + size)))

    # Moves ----------------------------------------------------------------------------------------

    @rule(records=log_records(KIND, max_size=12))
    def produce(self, records: list[LogRecord]) -> None:
        """The log goes on where its time stands."""
        ahead_ms = max((record.timestamp_ms for record in self.log), default=START_MS) - START_MS
        self.log += [_later(record, ahead_ms) for record in records]

    @precondition(lambda self: self.owner.windows.next_offset < len(self.log))
    @rule(size=st.integers(1, 9))
    def deliver(self, size: int) -> None:
        answer = self.owner.windows.apply(self._fold(self.owner, size))
        assert answer is not Answer.ALREADY
        if answer is Answer.FENCED:
            # Redis went back to a time under a claim with a higher number, or with the same one by
            # another owner.
            stored, mine = self.store.header(TOPIC, 0), self.owner.windows.header
            assert stored is not None and stored.epoch >= mine.epoch and stored.owner != mine.owner
        if answer is not Answer.APPLIED:
            self.owner = self._claimed()

    @precondition(lambda self: self.owner.windows.next_offset < len(self.log))
    @rule(target=zombies, size=st.integers(1, 9), name=st.sampled_from(FAILPOINTS))
    def crash(self, size: int, name: str) -> Worker:
        """Die at a failpoint; another process takes over, and the dead one may turn out to be only
        asleep.
        """
        lost = self.owner
        lost.unwritten = self._fold(lost, size)
        with _dying_at(name):
            try:
                if name != "after_dead_letters":
                    lost.windows.apply(lost.unwritten)
            except CrashError:
                pass
        self.owner = self._claimed()
        return lost

    @rule(target=zombies)
    def rebalance(self) -> Worker:
        """The group gives the partition to another process while the first knows nothing of it."""
        lost, self.owner = self.owner, self._claimed()
        return lost

    @rule(zombie=zombies, size=st.integers(1, 9))
    def zombie_write(self, zombie: Worker, size: int) -> None:
        header = zombie.windows.header
        stored = self.store.header(TOPIC, 0)
        if stored is not None and (stored.epoch, stored.owner) == (header.epoch, header.owner):
            return  # Redis went back to when it was the owner: then it is no zombie.
        before = self._everything()
        if zombie.unwritten is None and zombie.windows.next_offset < len(self.log):
            zombie.unwritten = self._fold(zombie, size)
        if zombie.unwritten is not None:
            assert zombie.windows.apply(zombie.unwritten) in (Answer.FENCED, Answer.GAP)
        assert zombie.windows.declare_idle(START_MS) in (Answer.FENCED, Answer.GAP)
        assert self._everything() == before, "a zombie has written"

    def _everything(self) -> dict[bytes, Any]:
        """By content: in a dump the order of a hash's fields changes while Redis moves them to a
        larger table.
        """
        read = {
            b"hash": self.client.hgetall,
            b"set": self.client.smembers,
            b"string": self.client.get,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
        }
        return {key: read[self.client.type(key)](key) for key in self.client.keys("*")}

    @rule()
    def snapshot(self) -> None:
        self.saved = self.copies.save()

    @rule()
    def redis_comes_back_older(self) -> None:
        self.copies.restore(self.saved)

    @rule()
    def flushall(self) -> None:
        self.client.flushall()

    @rule(ahead_ms=st.integers(0, 10**6))
    def idle(self, ahead_ms: int) -> None:
        if self.owner.windows.declare_idle(START_MS + ahead_ms) is not Answer.APPLIED:
            self.owner = self._claimed()

    # What must be so ------------------------------------------------------------------------------

    @invariant()
    def what_is_stored_is_a_prefix_of_the_log_with_balanced_books(self) -> None:
        header = self.store.header(TOPIC, 0) if hasattr(self, "store") else None
        if header is None or header.next_offset is None:
            return
        assert header.read == header.next_offset <= len(self.log)
        assert header.read == sum(getattr(header, name) for name in OUTCOMES)
        expected = self._told(self.log[: header.next_offset]).state()
        assert stored_state(self.store, self.copies, TOPIC, self.settings) == expected

    def teardown(self) -> None:
        """In peace, all of the log is folded."""
        if not hasattr(self, "store"):
            return
        for _ in range(len(self.log) + 3):
            while self.owner.windows.next_offset < len(self.log):
                self.deliver(7)
            if self.owner.windows.declare_idle(START_MS) is Answer.APPLIED:
                break
            self.owner = self._claimed()
        header = self.store.header(TOPIC, 0)
        assert header is not None and (header.next_offset or 0) == len(self.log)
        self.what_is_stored_is_a_prefix_of_the_log_with_balanced_books()


class ChangingShop(Shop):
    """The same with orders that are states."""

    settings: ClassVar[Settings] = state_settings()

    @rule(records=state_records(max_size=12))
    def produce(self, records: list[LogRecord]) -> None:
        """The log goes on where its time stands."""
        ahead_ms = max((record.timestamp_ms for record in self.log), default=START_MS) - START_MS
        self.log += [_later(record, ahead_ms) for record in records]

    def _told(self, log: list[LogRecord]) -> NaiveWindows:
        return naive_states(self.settings, log, self.stamps)


def _later(record: LogRecord, ahead_ms: int) -> LogRecord:
    """The same record as it would have been so much later; values that are no events stay as they
    are.
    """
    value = record.value
    try:
        event = json.loads(value or b"")
        moved = {name: event[name] + ahead_ms for name in TIMES if name in event}
        value = json.dumps(event | moved).encode()
    except (ValueError, TypeError):
        pass
    return replace(record, value=value, timestamp_ms=record.timestamp_ms + ahead_ms)


@contextmanager
def _dying_at(name: str) -> Iterator[None]:
    """Raise at a failpoint of the write path; `before_notice` is passed after apply has
    returned.
    """

    def failpoint(passed: str) -> None:
        if passed == name:
            raise CrashError

    kept, partition_module.failpoint = partition_module.failpoint, failpoint
    try:
        yield
    finally:
        partition_module.failpoint = kept


@pytest.mark.timeout(max(600, EXAMPLES))
@pytest.mark.parametrize("shop", [Shop, ChangingShop])
def test_no_order_of_moves_leaves_a_trace(redis_server: str, shop: type[Shop]) -> None:
    Shop.client = connect(RedisSettings(url=SecretStr(redis_server)))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=checks
    )
    try:
        run_state_machine_as_test(shop, settings=profile)
    finally:
        Shop.client.close()
