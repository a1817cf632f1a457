"""Partitions of orders that are states equal the rules with dictionaries, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.errors import StoreError
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Answer
from freshet.stream.units import DAY_MS
from freshet.stream.verify.recount import Recount
from tests.stream.fold.states_checks import (
    KEEP_MS,
    line,
    naive_states,
    state_record,
    state_records,
    state_settings,
)
from tests.stream.fold.test_partition import ACTIONS
from tests.stream.fold.windows_checks import (
    BOOKS,
    START_MS,
    Driver,
    LogRecord,
    MemoryStore,
    batch_of,
    stored_state,
)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_split_into_batches_equals_judging_record_by_record(data: st.DataObject) -> None:
    log = data.draw(state_records())
    config = state_settings(max_items_per_partition=data.draw(st.sampled_from([1, 3, 100])))
    reference = naive_states(config, log)
    store = MemoryStore()
    driver = Driver(store, "orders", config, log)
    verdicts = ["applied or duplicate"] * len(log)
    while driver.windows.next_offset < len(log):
        start = driver.windows.next_offset
        end = min(len(log), start + data.draw(st.integers(1, 25)))
        fold = driver.windows.fold(batch_of(log, start, end))
        for letter in fold.dead:
            verdicts[start + letter.index] = "dead_letter"
        for index in fold.too_late:
            verdicts[start + index] = "late_dropped"
        assert driver.windows.apply(fold) is Answer.APPLIED
    others = ("dead_letter", "late_dropped")
    expected = [v if v in others else "applied or duplicate" for v in reference.verdicts]
    assert verdicts == expected
    assert stored_state(store, store, driver.topic, config) == reference.state()


@settings(deadline=None, max_examples=15)
@given(log=state_records(), sizes=st.lists(st.integers(1, 25), min_size=60, max_size=60))
def test_any_split_into_batches_leaves_the_same_bytes(
    log: list[LogRecord], sizes: list[int]
) -> None:
    one_by_one, split = MemoryStore(), MemoryStore()
    first, second = (Driver(s, "orders", state_settings(), log) for s in (one_by_one, split))
    while first.windows.next_offset < len(log):
        first.step(1)
    for size in sizes:
        if second.windows.next_offset < len(log):
            second.step(size)
    assert one_by_one.orders == split.orders
    assert one_by_one.items == split.items
    assert retained(one_by_one) == retained(split)


def retained(store: MemoryStore) -> dict[str, bytes]:
    """Tiles that are still retained, as they are stored."""
    [header] = store.headers.values()
    config = state_settings()
    watermark_ms = (header.frontier_ms or 0) - config.windows.out_of_order_ms
    buckets = {width.resolution_ms: width.buckets for width in config.windows.resolutions}
    found = {}
    for name, data in store.strings.items():
        width, bucket = map(int, name.split(":")[-3:-1])
        if Grid(width).expiry_ms(bucket, buckets[width]) > watermark_ms:
            found[name] = data
    return found


@settings(deadline=None, max_examples=25)
@given(log=state_records(), actions=ACTIONS)
def test_crashes_zombies_and_rollbacks_leave_no_trace(
    log: list[LogRecord], actions: list[tuple[str, int]]
) -> None:
    config, store = state_settings(), MemoryStore()
    driver = Driver(store, "orders", config, log)
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
    reference = naive_states(config, log)
    if reference.frontier_ms is not None:
        assert stored_state(store, store, driver.topic, config) == reference.state()


TAKEN_BACK = [
    state_record("o1", 0, START_MS, [line(2)]),
    state_record("o1", 1, START_MS + 100, []),
]


def test_an_owner_that_slept_while_another_wrote_is_fenced_and_does_not_fail() -> None:
    """It reads the other's order, whose line is an item that it has not heard of."""
    config, store = state_settings(), MemoryStore()
    asleep = Driver(store, "orders", config, TAKEN_BACK)
    other = Driver(store, "orders", config, TAKEN_BACK)
    other.step(1)
    assert asleep.step(2) is Answer.FENCED
    asleep.drain()
    assert (
        stored_state(store, store, other.topic, config) == naive_states(config, TAKEN_BACK).state()
    )


def test_an_order_of_items_that_nobody_has_while_nothing_moved_is_damage() -> None:
    config, store, third = state_settings(), MemoryStore(), MemoryStore()
    longer = [state_record("o0", 0, START_MS, [line(1, "x"), line(1, "y")]), *TAKEN_BACK]
    Driver(third, "orders", config, longer).step(2)
    driver = Driver(store, "orders", config, TAKEN_BACK)
    driver.step(1)
    store.orders = third.orders
    driver.claim()
    with pytest.raises(StoreError, match=r"the orders of .*-0 are damaged"):
        driver.windows.fold(batch_of(TAKEN_BACK, 1, 2))


@settings(deadline=None, max_examples=20)
@given(log=state_records(), max_items=st.sampled_from([1, 3, 100]))
def test_the_recount_of_verify_tells_the_same_of_any_log(
    log: list[LogRecord], max_items: int
) -> None:
    config = state_settings(max_items_per_partition=max_items)
    reference, recount = naive_states(config, log), Recount("orders", config)
    for record in log:
        recount.take(record.key, record.value, record.timestamp_ms, record.redrive, record.history)
    assert {name: recount.books[name] for name in BOOKS} == reference.books
    assert list(recount.item_ids) == reference.items
    watermark_ms = reference.watermark_ms()
    if watermark_ms is not None:
        states = recount.orders.states(watermark_ms)
        assert {place: tuple(state) for place, state in states.items()} == (
            reference.kept_orders(watermark_ms)
        )
        for width in config.windows.resolutions:
            kept = reference.state()["sums"].items()
            own = {cell[1:]: value for cell, value in kept if cell[0] == width.resolution_ms}
            assert recount.cells(width.resolution_ms) == own


# By hand ------------------------------------------------------------------------------------------

MINUTE = 60_000
PATIENT = state_settings(
    resolutions=[{"resolution_ms": MINUTE, "buckets": 10**6}], allowed_lateness_ms=5 * MINUTE
)
Sums = dict[tuple[int, str, str], int]


def at(minute: float) -> int:
    return START_MS + round(minute * MINUTE)


def folded(*records: LogRecord, claims: bool = False) -> tuple[Sums, dict[str, Any]]:
    """Sums by minute, item and channel, and the state; with `claims` each by a new process."""
    store = MemoryStore()
    driver = Driver(store, "orders", PATIENT, records)
    while driver.windows.next_offset < len(records):
        if claims:
            driver.claim()
        assert driver.step(1 if claims else len(records)) is Answer.APPLIED
    state = stored_state(store, store, driver.topic, PATIENT)
    first = START_MS // MINUTE
    sums = {
        (bucket - first, item.removesuffix("|n"), channel): value
        for (_, bucket, item, channel), value in state["sums"].items()
    }
    return sums, state


BOUGHT = {(0, "a", "units"): 3_000, (0, "a", "revenue"): 60_000, (0, "a", "orders"): 1}
FIRST = state_record("7", 1, at(0), [line(3, "a", 2.0)])


@pytest.mark.parametrize(
    ("change", "added"),
    [
        (  # One more of a, at its new price.
            state_record("7", 2, at(2), [line(4, "a", 5.0)]),
            {(2, "a", "units"): 1_000, (2, "a", "revenue"): 50_000},
        ),
        (state_record("7", 2, at(2), [line(1, "a", 2.0)]), {(2, "a", "returns"): 2_000}),
        (  # Two of a left, and came as b.
            state_record("7", 2, at(2), [line(1, "a", 2.0), line(2, "b", 4.5)]),
            {
                (2, "a", "returns"): 2_000,
                (2, "b", "units"): 2_000,
                (2, "b", "revenue"): 90_000,
                (2, "b", "orders"): 1,
            },
        ),
        (state_record("7", 2, at(2), [line(0, "a")]), {(2, "a", "returns"): 3_000}),
        (state_record("7", 2, at(2)), {(2, "a", "returns"): 3_000}),
        (
            state_record("7", 2, at(2), [line(3, "a", 2.0)], cancelled=True),
            {(2, "a", "returns"): 3_000},
        ),
        (state_record("7", 2, at(2), deleted=True), {(2, "a", "returns"): 3_000}),
        (state_record("7", 2, at(2), [line(3, "a", 99.0)]), {}),
        (state_record("7", 2, at(2), [line(1, "a", 1), line(2, "a", 3)]), {}),
    ],
)
@pytest.mark.parametrize("claims", [False, True])
def test_a_newer_version_adds_what_is_more_and_returns_what_is_less_when_it_changed(
    change: LogRecord, added: Sums, claims: bool
) -> None:
    sums, state = folded(FIRST, change, claims=claims)
    assert sums == BOUGHT | added
    assert state["header"]["applied"] == 2


def test_of_one_number_what_is_given_back_comes_after_what_was_there() -> None:
    """A deleted row still says when it was last changed."""
    gone = state_record("7", 1, at(3), [], deleted=True)
    sums, state = folded(FIRST, gone, gone, FIRST)
    assert sums[3, "a", "returns"] == 3_000
    assert (state["header"]["applied"], state["header"]["duplicate"]) == (2, 2)
    assert [order for _, _, order in state["orders"].values()] == [{}]


def test_what_was_cancelled_may_come_back() -> None:
    cancelled = state_record("7", 2, at(2), [line(3, "a", 2.0)], cancelled=True)
    back = state_record("7", 3, at(4), [line(3, "a", 2.0)])
    sums, _ = folded(FIRST, cancelled, back)
    again = {(4, item, channel): value for (_, item, channel), value in BOUGHT.items()}
    assert sums == BOUGHT | {(2, "a", "returns"): 3_000} | again


@pytest.mark.parametrize("claims", [False, True])
def test_what_is_no_newer_adds_nothing_and_other_content_is_counted(claims: bool) -> None:
    other = state_record("7", 1, at(2), [line(9, "a")])
    older = state_record("7", 0, at(2), [line(9, "b")])
    sums, state = folded(FIRST, FIRST, other, older, claims=claims)
    assert sums == BOUGHT
    books = state["header"]
    assert (books["applied"], books["duplicate"], books["conflicting"]) == (1, 3, 1)
    assert state["items"] == ["a|n"]


def test_a_change_that_comes_too_late_leaves_the_state_as_it_was() -> None:
    """At minute 20 a change of minute 10 is too late; the next one is held against the first."""
    now = state_record("8", 1, at(20), [line(1, "b", 1.0)])
    late = replace(state_record("7", 2, at(10), [line(9, "a")]), timestamp_ms=at(20))
    next_one = state_record("7", 3, at(20), [line(1, "a")])
    sums, state = folded(FIRST, now, late, next_one)
    assert sums[20, "a", "returns"] == 2_000
    assert (10, "a", "units") not in sums
    assert state["header"]["late_dropped"] == 1


def test_a_late_change_that_a_person_sends_again_counts_if_it_is_still_the_newest() -> None:
    now = state_record("8", 1, at(20), [line(1, "b", 1.0)])
    late = replace(state_record("7", 2, at(10), [line(5, "a", 2.0)]), timestamp_ms=at(20))
    again = replace(late, redrive=b"orders-0-2")
    sums, state = folded(FIRST, now, late, again, again)
    assert sums[10, "a", "units"] == 2_000
    books = state["header"]
    assert (books["late_dropped"], books["applied"], books["duplicate"]) == (1, 3, 1)
    assert state["redrives"] == set()


def test_an_old_order_of_a_load_counts_and_is_known_from_then_on() -> None:
    """It comes ten days after it was made, and is kept for two days after that one."""
    now = state_record("8", 1, at(0) + 10 * DAY_MS, [line(1, "b")], at(0) + 10 * DAY_MS)
    told = state_record("7", 3, at(0), [line(3, "a", 2.0)], created_ms=at(0))
    loaded = replace(told, timestamp_ms=now.timestamp_ms, history=b"2024:1")
    twice = replace(loaded, history=b"2024:2")
    change = state_record("7", 4, at(0) + 12 * DAY_MS, [line(1, "a")], created_ms=at(0))
    sums, state = folded(now, loaded, loaded, twice, change)
    assert sums[0, "a", "units"] == 3_000
    assert sums[12 * 24 * 60, "a", "returns"] == 2_000
    assert (state["header"]["applied"], state["header"]["duplicate"]) == (3, 2)


def test_what_history_tells_of_an_order_first_counts_when_it_was_made() -> None:
    """An export says what the order is now; a later version of the load says what changed when."""
    export = replace(state_record("7", 5, at(9), [line(3, "a", 2.0)]), history=b"2024:1")
    change = replace(state_record("7", 6, at(12), [line(1, "a", 2.0)]), history=b"2024:2")
    live = state_record("7", 7, at(15), [line(4, "a", 2.0)])
    sums, state = folded(export, change, live)
    assert sums == {
        (0, "a", "units"): 3_000,
        (0, "a", "revenue"): 60_000,
        (0, "a", "orders"): 1,
        (12, "a", "returns"): 2_000,
        (15, "a", "units"): 3_000,
        (15, "a", "revenue"): 60_000,
    }
    times = state["header"]["first_event_ms"], state["header"]["last_event_ms"]
    assert times == (START_MS, at(15))


def test_an_old_order_that_nobody_knows_is_late_and_not_new() -> None:
    later = at(0) + KEEP_MS + 1
    now = state_record("8", 1, later + 2_000, [line(1, "b")], created_ms=later)
    unknown = state_record("9", 5, later + 2_000, [line(1, "c")], created_ms=at(0))
    again = replace(unknown, redrive=b"orders-0-2")
    known = state_record("7", 2, later + 2_000, [line(2, "a")], created_ms=at(0))
    _, state = folded(FIRST, now, unknown, again, known)
    books = state["header"]
    assert (books["applied"], books["late_dropped"]) == (3, 2)
    assert state["items"] == ["a|n", "b|n"]


def test_after_its_keep_time_an_order_is_forgotten() -> None:
    """Made on a day that ends within a day, and kept for two more: on day four nobody knows it."""
    later = at(0) + 3 * DAY_MS + 2_000
    now = state_record("8", 1, later + 2_000, [line(1, "b")], created_ms=later)
    change = state_record("7", 2, later + 2_000, [line(2, "a")], created_ms=at(0))
    _, state = folded(FIRST, now, change)
    assert state["header"]["late_dropped"] == 1
    assert [order for _, _, order in state["orders"].values()] == [{"b|n": 1_000}]


def test_another_key_and_a_line_that_is_bad_make_the_whole_version_dead() -> None:
    moved = replace(state_record("7", 2, at(1), [line(9, "a")]), key=b"customer-5")
    bad = state_record("7", 3, at(1), [line(9, "a"), line(-1, "b")])
    sums, state = folded(FIRST, moved, bad)
    assert sums == BOUGHT
    assert (state["header"]["dead_letter"], state["header"]["applied"]) == (2, 1)


def test_who_holds_the_item_is_told_also_when_it_only_comes_back() -> None:
    log = [FIRST, state_record("7", 2, at(2), [line(1, "b")])]
    driver = Driver(MemoryStore(), "orders", PATIENT, log)
    driver.step(1)
    assert driver.windows.fold(batch_of(log, 1, 2)).touched_item_ids == ["a|n", "b|n"]


def test_a_full_dictionary_refuses_the_version_and_leaves_the_state() -> None:
    config = state_settings(max_items_per_partition=1)
    both = state_record("7", 2, at(1), [line(1, "a"), line(1, "b")])
    one = state_record("7", 2, at(2), [line(4, "a")])
    store = MemoryStore()
    driver = Driver(store, "orders", config, [FIRST, both, one])
    fold = driver.windows.fold(batch_of(driver.log, 0, 3))
    assert [(letter.index, letter.stage) for letter in fold.dead] == [(1, "dictionary")]
    assert driver.windows.apply(fold) is Answer.APPLIED
    [order] = stored_state(store, store, driver.topic, config)["orders"].values()
    assert order == (4, START_MS // DAY_MS, {"a|n": 4_000}), "twice the number"
