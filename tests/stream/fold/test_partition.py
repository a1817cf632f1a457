"""A partition's windows equal a naive recount, whatever the batches, crashes, zombies and
rollbacks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import Settings, WindowSettings
from freshet.stream.errors import FingerprintError, StoreError, StoreUnavailableError
from freshet.stream.fold.headers import fingerprint
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.store.layout import OUTCOMES, Answer
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.stream.fold.windows_checks import (
    START_MS,
    Driver,
    LogRecord,
    MemoryStore,
    batch_of,
    log_records,
    naive,
    small_settings,
    stored_state,
)

KINDS = st.sampled_from(["orders", "clicks"])
STAMPS = st.sampled_from(["LogAppendTime", "CreateTime"])


def order(number: int, time_ms: int, sku: str = "a", **fields: object) -> LogRecord:
    event = {
        "event_id": f"o{number}",
        "event_time": time_ms,
        "sku": sku,
        "region": "n",
        "quantity": 1,
    }
    return LogRecord(json.dumps(event | {"unit_price": 2.5} | fields).encode(), time_ms)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_split_into_batches_equals_judging_record_by_record(data: st.DataObject) -> None:
    kind, stamps = data.draw(KINDS), data.draw(STAMPS)
    log = data.draw(log_records(kind))
    begin_ms = data.draw(st.sampled_from([None, START_MS, START_MS + 200_000]))
    most_items = data.draw(st.sampled_from([1, 3, 100]))
    config = small_settings(max_items_per_partition=most_items, history_before=begin_ms)
    reference = naive(kind, config, log, stamps)
    store = MemoryStore()
    driver = Driver(store, kind, config, log, stamps)
    verdicts = ["taken in or settled"] * len(log)
    frontiers = []
    while driver.windows.next_offset < len(log):
        start = driver.windows.next_offset
        fold = driver.windows.fold(
            batch_of(log, start, min(len(log), start + data.draw(st.integers(1, 25))))
        )
        for letter in [one for one in fold.dead if one.line is None]:
            verdicts[start + letter.index] = "dead_letter"
        for index in fold.too_late:
            verdicts[start + index] = "late_dropped"
        assert driver.windows.apply(fold) is Answer.APPLIED
        frontiers.append(fold.frontier_ms)
    assert [
        v if v in ("dead_letter", "late_dropped") else "taken in or settled"
        for v in reference.verdicts
    ] == verdicts
    seen = [frontier for frontier in frontiers if frontier is not None]
    assert seen == sorted(seen)
    assert stored_state(store, store, driver.topic, config) == reference.state()
    header = store.header(driver.topic, 0)
    assert header.read == sum(getattr(header, name) for name in OUTCOMES) == len(log)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-100, 200), min_size=1, max_size=60), st.integers(1, 20))
def test_days_follow_the_calendar_over_both_changes_of_the_clocks(
    minutes: list[int], size: int
) -> None:
    sizes = [
        {"resolution_ms": DAY_MS, "buckets": 2},
        {"resolution_ms": HOUR_MS, "buckets": 30},
    ]
    windows = WindowSettings(
        resolutions=sizes, allowed_lateness_ms=50 * HOUR_MS, max_future_ms=10**9
    )
    config = Settings(
        windows=windows,
        calendar={"time_zone": "Europe/Berlin"},
        worker={"resolution_ms": HOUR_MS},
    )
    log, now_ms = [], 1_774_700_000_000
    for n, step in enumerate(minutes):
        now_ms += step * 900_000
        log.append(order(n, now_ms))
    log.append(order(1_000, 1_792_900_000_000))
    log += [order(2_000 + n, 1_792_900_000_000 + n * 3_000_000) for n in range(30)]
    store = MemoryStore()
    driver = Driver(store, "orders", config, log)
    while driver.windows.next_offset < len(log):
        assert driver.step(size) is Answer.APPLIED
    assert stored_state(store, store, driver.topic, config) == naive("orders", config, log).state()


def again(number: int, time_ms: int, now_ms: int, place: bytes, **fields: object) -> LogRecord:
    """A record that is sent again at `now_ms`."""
    return replace(order(number, time_ms, **fields), timestamp_ms=now_ms, redrive=place)


def test_a_redriven_record_skips_lateness_and_leaves_the_frontier_alone() -> None:
    late_ms = START_MS - 100_000
    log = [order(1, START_MS), order(2, late_ms), again(2, late_ms, START_MS, b"t-0-1")]
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(), log)
    driver.drain()
    header = store.header(driver.topic, 0)
    assert (header.applied, header.late_dropped, header.frontier_ms) == (2, 1, START_MS)
    widths = {
        width for width, *_ in stored_state(store, store, driver.topic, driver.settings)["sums"]
    }
    sums = stored_state(store, store, driver.topic, driver.settings)["sums"]
    assert widths == {1_000, 60_000}
    assert sums[60_000, late_ms // 60_000, "a|n", "orders"] == 1, "the minute still retains it"
    assert (1_000, late_ms // 1_000, "a|n", "orders") not in sums, "the second does not"


def test_a_redriven_record_is_a_duplicate_for_good_by_its_header_also_after_a_restart() -> None:
    far_ms = START_MS + 10**9
    first = again(2, START_MS, START_MS, b"t-0-1")
    log = [order(1, START_MS), first, order(3, far_ms), again(2, far_ms, far_ms, b"t-0-1")]
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(), log)
    for _ in log:
        driver.step(1)
        driver.claim()
    header = store.header(driver.topic, 0)
    assert (header.applied, header.duplicate) == (3, 1)


def test_a_redriven_record_ahead_of_the_frontier_is_kept_when_its_bucket_comes() -> None:
    ahead_ms = START_MS + 20_000
    log = [order(1, START_MS), again(2, ahead_ms, ahead_ms, b"t-0-1"), order(3, ahead_ms + 500)]
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(), log)
    for _ in log:
        driver.step(1)
        driver.claim()
    sums = stored_state(store, store, driver.topic, driver.settings)["sums"]
    assert sums[1_000, ahead_ms // 1_000, "a|n", "orders"] == 2


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "crash", "zombie", "save", "restore", "idle"]),
        st.integers(1, 9),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(log=log_records("orders"), actions=ACTIONS, stamps=STAMPS)
def test_crashes_zombies_and_rollbacks_leave_no_trace(
    log: list[LogRecord], actions: list[tuple[str, int]], stamps: str
) -> None:
    config = small_settings()
    store = MemoryStore()
    driver = Driver(store, "orders", config, log, stamps)
    saved = store.save()
    for action, size in actions:
        if action == "step":
            driver.step(size)
        elif action == "crash":
            driver.crash(size)
        elif action == "zombie":
            driver.zombies()
        elif action == "save":
            saved = store.save()
        elif action == "restore":
            store.restore(saved)
        else:
            driver.windows.declare_idle(START_MS + size)
    driver.drain()
    reference = naive("orders", config, log, stamps)
    if reference.frontier_ms is not None:
        assert stored_state(store, store, driver.topic, config) == reference.state()


def test_a_fold_changes_nothing_until_it_is_applied() -> None:
    log = [order(n, START_MS + n) for n in range(4)]
    driver = Driver(MemoryStore(), "orders", small_settings(), log)
    first, second = (driver.windows.fold(batch_of(log, 0, 4)) for _ in range(2))
    assert first.update.arguments("p") == second.update.arguments("p")
    assert driver.windows.next_offset == 0


def test_an_answer_that_was_lost_is_found_out_by_applying_again() -> None:
    class Deaf(MemoryStore):
        def apply(self, update):
            answer = super().apply(update)
            if answer is Answer.APPLIED:
                raise StoreUnavailableError("the answer was lost")
            return answer

    log = [order(n, START_MS + n) for n in range(4)]
    driver = Driver(Deaf(), "orders", small_settings(), log)
    fold = driver.windows.fold(batch_of(log, 0, 4))
    with pytest.raises(StoreUnavailableError):
        driver.windows.apply(fold)
    assert driver.windows.next_offset == 0
    assert driver.windows.apply(fold) is Answer.ALREADY
    assert driver.windows.next_offset == 4
    assert driver.windows.header.applied == 4


def test_a_rollback_between_claim_and_first_fold_is_a_gap_and_not_damage() -> None:
    store = MemoryStore()
    log = [order(n, START_MS + n, sku=f"s{n}") for n in range(6)]
    driver = Driver(store, "orders", small_settings(), log)
    empty = store.save()
    driver.step(3)
    driver.claim()
    store.restore(empty)
    assert driver.step(3) is Answer.GAP
    driver.drain()
    assert store.header(driver.topic, 0).applied == 6


def test_a_dictionary_that_lost_items_while_nothing_else_moved_is_damage_and_no_gap() -> None:
    store = MemoryStore()
    log = [order(n, START_MS + n, sku=f"s{n}") for n in range(6)]
    driver = Driver(store, "orders", small_settings(), log)
    driver.step(3)
    driver.claim()
    store.items[driver.topic, 0] = ["s0|n"]
    with pytest.raises(StoreError, match="dictionary is damaged"):
        driver.windows.fold(batch_of(log, 3, 6))


def test_windows_whose_only_record_was_refused_go_on_after_a_restart() -> None:
    lines = [{"sku": sku, "quantity": 1, "unit_price": 1} for sku in ("b", "c")]
    event = {"event_id": "w", "event_time": START_MS, "region": "n", "lines": lines}
    log = [LogRecord(json.dumps(event).encode(), START_MS), order(1, START_MS)]
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(max_items_per_partition=1), log)
    driver.step(1)
    header = store.header(driver.topic, 0)
    assert (header.frontier_ms, header.first_event_ms) == (START_MS, None)
    driver.claim()
    assert driver.step(1) is Answer.APPLIED
    assert store.header(driver.topic, 0).first_event_ms == START_MS


def test_two_owners_of_the_same_epoch_after_a_rollback_do_not_both_write() -> None:
    store = MemoryStore()
    log = [order(n, START_MS + n) for n in range(6)]
    before = store.save()
    first = Driver(store, "orders", small_settings(), log)
    store.restore(before)
    second = Driver(store, "orders", small_settings(), log)
    assert first.windows.header.epoch == second.windows.header.epoch
    assert first.windows.apply(first.windows.fold(batch_of(log, 0, 3))) is Answer.FENCED
    assert second.step(3) is Answer.APPLIED


def test_other_settings_are_refused_once_there_are_windows_and_idle_ms_is_not_one_of_them() -> None:
    store = MemoryStore()
    log = [order(0, START_MS)]
    Driver(store, "orders", small_settings(allowed_lateness_ms=1), log)
    driver = Driver(store, "orders", small_settings(), log)
    driver.drain()
    with pytest.raises(FingerprintError):
        Driver(store, "orders", small_settings(allowed_lateness_ms=1), log)
    Driver(store, "orders", small_settings(idle_ms=1), log)


def test_the_fingerprint_names_every_setting_that_decides_what_tiles_hold() -> None:
    names = set(json.loads(fingerprint("orders", small_settings())))
    assert names == {
        "format",
        "kind",
        "events.series_by",
        "windows.out_of_order_ms",
        "windows.allowed_lateness_ms",
        "windows.max_future_ms",
        "windows.resolutions",
        "windows.max_items_per_partition",
        "windows.max_step_ms",
        "windows.max_ahead_ms",
    }


def test_records_beyond_a_hole_in_the_log_move_the_offset_on() -> None:
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(), [order(0, START_MS)])
    hole = batch_of([], 0, 0)
    fold = driver.windows.fold(
        type(hole)(hole.values, hole.keys, hole.timestamps_ms, hole.offsets, 41)
    )
    assert driver.windows.apply(fold) is Answer.APPLIED
    assert store.header(driver.topic, 0).next_offset == 41
    assert store.header(driver.topic, 0).frontier_ms is None


def test_touched_items_are_those_of_applied_lines_only() -> None:
    log = [
        order(0, START_MS, "a"),
        order(0, START_MS, "b"),
        order(1, START_MS - 10**6, "c"),
        order(2, START_MS, "d"),
    ]
    driver = Driver(MemoryStore(), "orders", small_settings(), log)
    assert driver.windows.fold(batch_of(log, 0, 4)).touched_item_ids == ["a|n", "d|n"]
    driver.step(1)
    assert driver.windows.fold(batch_of(log, 1, 4)).touched_item_ids == ["d|n"]


def test_every_dead_letter_says_stage_class_and_what_was_found() -> None:
    ahead = json.loads(order(0, START_MS + 10**8).value)
    log = [
        LogRecord(None, START_MS),
        LogRecord(json.dumps(ahead).encode(), START_MS),
        order(1, START_MS, "a"),
        order(2, START_MS, "b"),
    ]
    driver = Driver(MemoryStore(), "orders", small_settings(max_items_per_partition=1), log)
    dead = driver.windows.fold(batch_of(log, 0, 4)).dead
    assert [(d.index, d.stage, d.error_class) for d in dead] == [
        (0, "decode", "NullValue"),
        (1, "future", "FutureEvent"),
        (3, "dictionary", "DictionaryFull"),
    ]
    assert "100000000 ms after" in dead[1].message and "30000" in dead[1].message


def test_an_order_that_is_refused_by_a_full_dictionary_takes_no_slot() -> None:
    whole = {"event_id": "w", "event_time": START_MS, "region": "n"}
    lines = [{"sku": sku, "quantity": 1, "unit_price": 1} for sku in ("b", "c")]
    log = [
        order(0, START_MS, "a"),
        LogRecord(json.dumps(whole | {"lines": lines}).encode(), START_MS),
        order(1, START_MS, "d"),
        order(2, START_MS, "e"),
    ]
    store = MemoryStore()
    driver = Driver(store, "orders", small_settings(max_items_per_partition=2), log)
    driver.step(4)
    assert store.dictionary(driver.topic, 0, 2) == ["a|n", "d|n"]
    assert store.header(driver.topic, 0).dead_letter == 2


def test_idle_never_falls_and_leaves_the_offset() -> None:
    store = MemoryStore()
    log = [order(0, START_MS)]
    driver = Driver(store, "orders", small_settings(), log)
    driver.drain()
    assert driver.windows.declare_idle(START_MS + 500) is Answer.APPLIED
    assert driver.windows.declare_idle(START_MS + 400) is Answer.APPLIED
    assert (
        driver.windows.header.idle_frontier_ms
        == store.header(driver.topic, 0).idle_frontier_ms
        == START_MS + 500
    )
    assert store.header(driver.topic, 0).next_offset == 1


def test_a_batch_that_begins_before_the_windows_is_a_mistake_of_the_caller() -> None:
    log = [order(n, START_MS) for n in range(3)]
    driver = Driver(MemoryStore(), "orders", small_settings(), log)
    driver.step(2)
    with pytest.raises(AssertionError, match="before"):
        driver.windows.fold(batch_of(log, 0, 3))


@pytest.mark.parametrize(("name", "written"), [("before_apply", False), ("after_apply", True)])
def test_failpoints_kill_the_process_on_their_side_of_the_write(
    name: str, written: bool, tmp_path
) -> None:
    mark = tmp_path / "written"
    code = f"""
import pathlib
from tests.stream.fold.test_partition import *
class Marking(MemoryStore):
    def apply(self, update):
        pathlib.Path({str(mark)!r}).touch()
        return super().apply(update)
log = [order(n, START_MS) for n in range(2)]
Driver(Marking(), "orders", small_settings(), log).drain()
"""
    environment = os.environ | {"FRESHET_FAILPOINT": name}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, timeout=180
    )
    assert finished.returncode == -signal.SIGKILL
    assert mark.exists() == written


def test_claiming_reads_the_header_and_nothing_else() -> None:
    class Shy(MemoryStore):
        def dictionary(self, *_: object) -> list[str]:
            raise AssertionError("loaded at claim")

        def read(self, keys):
            raise AssertionError("loaded at claim")

    windows = PartitionWindows.claim(Shy(), "orders", "t", 0, small_settings())
    assert windows.header.epoch == 1
    assert windows.header.next_offset is None


def test_late_corrections_reach_tiles_that_left_the_cache() -> None:
    skus = [f"s{n}" for n in range(20)]
    log = [order(n, START_MS + 500 * n, skus[n]) for n in range(20)]
    log += [order(100 + n, START_MS + 500 * n, skus[n]) for n in range(12, 20)]
    config = small_settings()
    store = MemoryStore()
    driver = Driver(store, "orders", config, log)
    driver.drain(size=4)
    assert stored_state(store, store, driver.topic, config) == naive("orders", config, log).state()
    assert (
        np.sum(
            [
                value
                for cell, value in naive("orders", config, log).sums.items()
                if cell[3] == "orders"
            ]
        )
        > 0
    )
