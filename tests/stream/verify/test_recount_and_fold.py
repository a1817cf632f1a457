"""The recount and the fold, which share no code, say the same of any log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.verify.compare import BOOKS, TIMES
from freshet.stream.verify.recount import Recount
from tests.stream.fold.windows_checks import (
    START_MS,
    Driver,
    MemoryStore,
    log_records,
    small_settings,
    stored_state,
)

pytestmark = pytest.mark.slow  # many logs; test_recount.py holds the cases


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(["orders", "clicks"]), st.sampled_from(["CreateTime", ""]))
def test_books_times_frontier_and_cells_are_the_same(
    data: st.DataObject, kind: str, stamps: str
) -> None:
    log = data.draw(log_records(kind))
    begin_ms = data.draw(st.sampled_from([None, START_MS]))
    config = small_settings(history_before=begin_ms, max_items_per_partition=4)
    store = MemoryStore()
    driver = Driver(store, kind, config, log, stamps)
    driver.drain()
    recount = Recount(kind, config, stamps)  # type: ignore[arg-type]
    for one in log:
        recount.take(one.key, one.value, one.timestamp_ms, one.redrive, one.history)
    header = store.header(driver.topic, 0)
    assert header is not None
    assert {name: getattr(header, name) for name in BOOKS} == {
        name: recount.books[name] for name in BOOKS
    }
    assert [getattr(header, name) for name in TIMES] == [getattr(recount, name) for name in TIMES]
    assert header.top_ms == ",".join(map(str, recount.frontier.largest))
    assert header.ahead_events == len(recount.frontier.row)
    assert header.doubted_ms == recount.frontier.doubted_ms
    assert store.loaded(driver.topic, 0, list(recount.loads.highest)) == recount.loads.highest
    sums = stored_state(store, store, driver.topic, config)["sums"]
    for width in (1_000, 60_000):
        stored = {cell[1:]: value for cell, value in sums.items() if cell[0] == width}
        assert stored == recount.cells(width)
