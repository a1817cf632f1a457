"""Every verdict once in one batch, by hand; and what a full dictionary lets in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xxhash

from freshet.stream.config import EventSettings
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.fold.content import ContentDigests
from freshet.stream.fold.dedupe import Entries, SeenHashes
from freshet.stream.fold.dictionary import NO_SLOT, ItemDictionary
from freshet.stream.fold.frontier import NEVER_MS, LargestTime, Reach
from freshet.stream.fold.verdicts import Known, Verdicts, dead_letters, reach_verdicts
from freshet.stream.fold.watermark import TimeRules

RULES = TimeRules(out_of_order_ms=2_000, allowed_lateness_ms=60_000, max_future_ms=30_000)


def order(event_id: str, time_ms: int, *skus: str) -> bytes:
    lines = [{"sku": sku, "quantity": 1, "unit_price": 1} for sku in skus]
    event = {"event_id": event_id, "event_time": time_ms, "region": "n", "lines": lines}
    return json.dumps(event).encode()


def judged(
    values: list[bytes],
    redrives: dict[int, bytes] | None = None,
    *,
    stamps: dict[int, int] | None = None,
    known_redrives: frozenset[bytes] = frozenset(),
    items: tuple[str, ...] = (),
    max_items: int = 100,
    seen: dict[str, int] | None = None,
    frontier_ms: int = NEVER_MS,
) -> Verdicts:
    """A batch, its redrive headers by place; its timestamps are 300,000 where nothing is said.

    What came before it: the minutes of event ids that were `seen`, and a frontier.
    """
    decoded = EventDecoder("orders", EventSettings()).decode(values, [None] * len(values))
    good = decoded.index.tolist()
    before = SeenHashes()
    for event_id, minute in (seen or {}).items():
        name = xxhash.xxh3_64_intdigest(event_id.encode())
        said = Entries(np.array([name], np.uint64), np.array([minute]), np.zeros(1, np.uint32))
        before.add(said, oldest_minute=0)
    known = Known(
        Reach(frontier_ms), LargestTime(), before, ItemDictionary(max_items, items), known_redrives
    )
    return reach_verdicts(
        decoded,
        np.array([(stamps or {}).get(place, 300_000) for place in good], np.int64),
        [redrives.get(place) for place in good] if redrives else [],
        history=np.zeros(len(good), bool),
        contents=ContentDigests().of(decoded),
        known=known,
        rules=RULES,
    )


BATCH = [
    b"broken",
    order("e1", 100_000, "a"),
    order("e1", 100_000, "a"),
    order("e2", 500_000, "f"),
    order("e3", 200_000, "b", "a"),
    order("e4", 100_000, "g"),
    order("e5", 90_000, "c"),
    order("e6", 200_000, "d"),
    order("e7", 90_000, "b"),
    order("e8", 199_000, "z"),
    order("e3", 200_000, "b"),
    order("e9", 900_000, "h"),
]
REDRIVES = {3: b"r3", 6: b"r6", 8: b"r6", 9: b"old"}


def verdicts_of_the_batch() -> Verdicts:
    return judged(
        BATCH,
        REDRIVES,
        stamps={3: 100_000},
        known_redrives=frozenset({b"old"}),
        items=("z|n",),
        max_items=4,
    )


def places(verdicts: Verdicts, column: np.ndarray) -> list[int]:
    return verdicts.decoded.index[column].tolist()


def test_each_record_of_a_batch_gets_its_own_verdict() -> None:
    verdicts = verdicts_of_the_batch()
    assert places(verdicts, verdicts.times.future) == [3, 11]
    assert places(verdicts, verdicts.times.too_late) == [5]
    assert places(verdicts, verdicts.duplicate) == [2, 8, 9, 10]
    assert places(verdicts, verdicts.conflicting) == [10], "it lacks the line that came first"
    assert places(verdicts, verdicts.refused) == [7]
    assert places(verdicts, verdicts.applied) == [1, 4, 6]
    assert verdicts.applied_times_ms.tolist() == [100_000, 200_000, 90_000]
    assert verdicts.new_redrives == [b"r6"], "one from the future may be sent again"


def test_slots_are_given_in_log_order_by_applied_lines_only() -> None:
    verdicts = verdicts_of_the_batch()
    assert verdicts.new_items == ["a|n", "b|n", "c|n"]
    lines = [verdicts.decoded.item_of(line) for line in np.flatnonzero(verdicts.applied_lines)]
    assert lines == ["a|n", "b|n", "a|n", "c|n"]
    assert verdicts.line_slot[verdicts.applied_lines].tolist() == [1, 2, 1, 3]


def test_dead_letters_come_in_log_order_each_with_its_stage_and_how_far_ahead_it_was() -> None:
    stamps = np.full(len(BATCH), 300_000)
    stamps[3] = 100_000
    dead = dead_letters(verdicts_of_the_batch(), stamps, RULES)
    assert [(letter.index, letter.stage) for letter in dead] == [
        (0, "decode"),
        (3, "future"),
        (7, "dictionary"),
        (11, "future"),
    ]
    assert [letter.message for letter in dead if letter.stage == "future"] == [
        "event_time is 400000 ms after the record's timestamp, expected at most 30000 "
        "(windows.max_future_ms)",
        "event_time is 600000 ms after the record's timestamp, expected at most 30000 "
        "(windows.max_future_ms)",
    ]


@pytest.mark.parametrize(("frontier_ms", "applied"), [(181_999, [0, 1]), (182_000, [0, 1, 2])])
def test_a_hash_may_expire_in_the_middle_of_a_batch(frontier_ms: int, applied: list[int]) -> None:
    # The minute of 100,000 ends at 120,000; its hashes count until the watermark is 180,000.
    batch = [order("e", 100_000, "a"), order("o", frontier_ms, "a"), order("e", 182_000, "a")]
    verdicts = judged(batch)
    assert places(verdicts, verdicts.applied) == applied


def test_what_earlier_batches_applied_makes_duplicates_whatever_came_in_between() -> None:
    # The watermark is 180,000 until the third record, and 198,000 after it: minute 1 counts until
    # 180,000, minute 2 until 240,000.
    batch = [
        order("future", 900_000, "a"),
        order("late", 119_999, "a"),
        order("minute 1", 200_000, "a"),
        order("minute 2", 190_000, "a"),
        order("new", 190_000, "a"),
        order("minute 2", 120_000, "a"),
        order("new", 190_000, "a"),
    ]
    seen = {"minute 1": 1, "minute 2": 2, "late": 2, "future": 2}
    verdicts = judged(batch, seen=seen, frontier_ms=182_000)
    assert places(verdicts, verdicts.times.too_late) == [1, 5]
    assert places(verdicts, verdicts.duplicate) == [3, 6]
    assert places(verdicts, verdicts.applied) == [2, 4]
    alone = judged(batch[:1] + batch[2:3], seen=seen, frontier_ms=181_999)
    assert places(alone, alone.duplicate) == [1], "a moment earlier, minute 1 counts still"


def test_a_full_dictionary_takes_whole_orders_while_all_their_new_items_fit() -> None:
    batch = [
        order("e1", 1_000, "a", "b"),
        order("e2", 1_000, "c", "d"),
        order("e3", 1_000, "a", "z", "b"),
        order("e4", 1_000, "c", "c", "a"),
        order("e5", 1_000, "d"),
        order("e6", 1_000, "c"),
    ]
    verdicts = judged(batch, items=("z|n",), max_items=4)
    assert places(verdicts, verdicts.applied) == [0, 2, 3, 5]
    assert places(verdicts, verdicts.refused) == [1, 4]
    assert verdicts.new_items == ["a|n", "b|n", "c|n"]


def test_a_record_that_was_refused_makes_no_duplicate_of_the_same_event() -> None:
    batch = [order("e", 1_000, "x", "y"), order("e", 1_000, "x"), order("e", 1_000, "x")]
    verdicts = judged(batch, max_items=1)
    assert places(verdicts, verdicts.refused) == [0]
    assert places(verdicts, verdicts.applied) == [1]
    assert places(verdicts, verdicts.duplicate) == [2]


def test_an_exactly_full_dictionary_refuses_nobody() -> None:
    batch = [order("e1", 1_000, "a", "a"), order("e2", 1_000, "b"), order("e3", 1_000, "a")]
    assert not judged(batch, max_items=2).refused.any()
    small = judged(batch, max_items=1)
    assert places(small, small.refused) == [1]


def test_a_dictionary_knows_its_items_and_those_that_were_added_in_any_table() -> None:
    items = ItemDictionary(9, ["a", "b"])
    table = ["b", "c", "a"]
    assert items.slots(np.array([2, 0, 1, 1]), table).tolist() == [0, 1, NO_SLOT, NO_SLOT]
    items.extend(["d", "c"])
    assert items.item_ids == ["a", "b", "d", "c"] and len(items) == 4
    assert items.slots(np.array([1, 2]), table).tolist() == [3, 0]
    table += ["x", "d"]
    assert items.slots(np.array([4, 3, 1]), table).tolist() == [2, NO_SLOT, 3]
    assert items.slots(np.array([0, 1]), ["d", "a"]).tolist() == [2, 0]


def test_a_line_that_cannot_be_used_is_a_letter_of_its_own_where_its_record_counts() -> None:
    lines = [{"sku": "a", "quantity": 1, "unit_price": 1}, {"sku": "b", "quantity": 0}]
    event = {"event_id": "e", "event_time": 200_000, "region": "n", "lines": lines}
    value = json.dumps(event).encode()
    late = json.dumps(event | {"event_id": "late", "event_time": 90_000}).encode()
    verdicts = judged([order("o", 190_000, "a"), value, value, late])
    assert places(verdicts, verdicts.applied) == [0, 1]
    dead = dead_letters(verdicts, np.full(4, 300_000), RULES)
    assert [(letter.index, letter.line, letter.stage) for letter in dead] == [(1, 1, "decode")]
    assert verdicts.new_items == ["a|n"]
