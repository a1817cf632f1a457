"""Orders that say what they are, against the rules read out one record after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.errors import StoreError
from freshet.stream.fold.state_changes import StateLines, find_changes, revenue
from freshet.stream.fold.state_log import StateLog
from freshet.stream.fold.states import Versions, judge
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.layout import Keys
from freshet.stream.store.orders import OrderStates, decode_orders, encode_orders
from freshet.stream.units import DAY_MS

KEEP_MS = 2 * DAY_MS
Line = tuple[int, int, int]
"""Slot, thousandths, price in ten-thousandths."""


@dataclass(frozen=True)
class Told:
    """One version of an order, as decoded."""

    order: int
    version: int
    lines: tuple[Line, ...] = ()
    created_ms: int = 0
    watermark_ms: int = 0
    patient: bool = False
    changed_ms: int = 5


@dataclass
class Memory:
    """Hashes as Redis keeps them, and what was added."""

    hashes: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    added: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    outcomes: list[str] = field(default_factory=list)
    conflicting: int = 0

    def __post_init__(self) -> None:
        self.log = StateLog(self.read, Keys(0, "orders", 0), KEEP_MS)

    def read(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        return [[self.hashes.get(key, {}).get(name) for name in names] for key, names in asked]

    def fold(self, batch: list[Told], room: int | None = None) -> None:
        """Judge and write a batch; with `room`, an order of that many items is refused."""
        created_ms = np.array([told.created_ms for told in batch], np.int64)
        hashes = np.array([told.order for told in batch], np.uint64)
        order, loaded = self.log.load(created_ms, hashes)
        versions = Versions(
            order=order,
            version=np.array([told.version for told in batch], np.int64),
            created_ms=created_ms,
            watermark_ms=np.array([told.watermark_ms for told in batch], np.int64),
            patient=np.array([told.patient for told in batch], np.bool_),
        )
        admit = None if room is None else lambda n: len(batch[n].lines) < room
        judged = judge(versions, loaded.states, keep_ms=KEEP_MS, admit=admit)
        rows = [
            (n, *line)
            for n, told in enumerate(batch)
            for line in told.lines
            if judged.applied[n] or judged.same[n]
        ]
        lines = StateLines(*np.array(rows, np.int64).reshape(-1, 4).T)
        changed_ms = np.array([told.changed_ms for told in batch], np.int64)
        changes = find_changes(lines, versions, judged, loaded.states, changed_ms)
        names = ("applied", "late", "refused", "duplicate")
        for n in range(len(batch)):
            self.outcomes += [name for name in names if getattr(judged, name)[n]]
        self.conflicting += int(changes.conflicting.sum())
        found = changes.additions
        columns = (found.item, found.time_ms, found.channel, found.value)
        for slot, time_ms, channel, value in zip(*(c.tolist() for c in columns), strict=True):
            assert value > 0
            self.added[slot, time_ms, CHANNELS[channel]] += value
        writes = self.log.writes(loaded, changes)
        for one in writes:
            own = self.hashes.setdefault(self.log._keys.orders(one.day), {})
            own.update(zip(one.names, one.data, strict=True))
        self.log.remember(writes)


@dataclass
class Plain:
    """The same with dictionaries, one record at a time."""

    states: dict[tuple[int, int], tuple[int, int, dict[int, int]]] = field(default_factory=dict)
    added: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    outcomes: list[str] = field(default_factory=list)
    conflicting: int = 0

    def fold(self, told: Told, room: int | None = None) -> None:
        self.outcomes.append(self._judge(told, room))

    def _judge(self, told: Told, room: int | None) -> str:
        day = told.created_ms // DAY_MS
        state = self.states.get((told.order, day))
        if state is not None and (state[1] + 1) * DAY_MS + KEEP_MS <= told.watermark_ms:
            state = None
        new: dict[int, int] = {}
        worth: dict[int, int] = {}
        for slot, quantity, price in told.lines:
            new[slot] = new.get(slot, 0) + quantity
            worth[slot] = worth.get(slot, 0) + quantity * price
        old = {} if state is None else state[2]
        kept = [day] if state is None else [day, state[1]]
        if state is not None and told.version <= state[0]:
            self.conflicting += told.version == state[0] and new != old
            return "duplicate"
        if told.created_ms + KEEP_MS < told.watermark_ms:
            if state is None and not told.patient:
                return "late"
            kept += [told.watermark_ms // DAY_MS] if told.patient else []
        if room is not None and len(told.lines) >= room:
            return "refused"
        for slot in {*old, *new}:
            self._change(told, slot, old.get(slot, 0), new.get(slot, 0), worth.get(slot, 0))
        self.states[told.order, day] = (told.version, max(kept), new)
        return "applied"

    def _change(self, told: Told, slot: int, old: int, new: int, worth: int) -> None:
        def add(channel: str, value: int) -> None:
            if value:
                self.added[slot, told.changed_ms, channel] += value

        if new > old:
            add("units", new - old)
            add("revenue", (2 * (new - old) * worth + 1_000 * new) // (2_000 * new))
            add("orders", 1 if old == 0 else 0)
        else:
            add("returns", old - new)

    def stored(self) -> dict[tuple[int, int], bytes]:
        """Every state as the bytes that Redis then keeps."""
        found = {}
        for (order, day), (version, kept, items) in self.states.items():
            rows = [(version, kept), *((items[slot], slot) for slot in sorted(items))]
            data = b"".join(
                number.to_bytes(8, "little", signed=True) + name.to_bytes(4, "little")
                for number, name in rows
            )
            found[order, day] = data
        return found


LINES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([500, 1_000, 3_000]), st.sampled_from([0, 7, 99])),
    max_size=4,
).map(tuple)
RECORDS = st.lists(
    st.builds(
        Told,
        order=st.integers(0, 3),
        version=st.integers(-1, 4),
        lines=LINES,
        created_ms=st.sampled_from([0, 5, DAY_MS]),
        watermark_ms=st.sampled_from([0, 0, 1, DAY_MS // 2, DAY_MS]),
        patient=st.booleans(),
        changed_ms=st.integers(0, 2),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=200)
@given(RECORDS, st.lists(st.integers(1, 9), min_size=30, max_size=30), st.sampled_from([None, 3]))
def test_any_split_into_batches_gives_what_the_rules_give_record_by_record(
    steps: list[Told], sizes: list[int], room: int | None
) -> None:
    records, watermark_ms = [], 0
    for step in steps:
        watermark_ms += step.watermark_ms
        records.append(Told(**{**vars(step), "watermark_ms": watermark_ms}))
    plain, memory = Plain(), Memory()
    for record in records:
        plain.fold(record, room)
    at = 0
    for size in sizes:
        if at < len(records):
            memory.fold(records[at : at + size], room)
        at += size
    assert memory.outcomes == plain.outcomes
    assert memory.added == plain.added
    assert memory.conflicting == plain.conflicting
    stored = {
        (int.from_bytes(name, "little"), int(key.rpartition(":")[2])): data
        for key, entries in memory.hashes.items()
        for name, data in entries.items()
    }
    assert stored == plain.stored()


def in_turn(*records: Told) -> Memory:
    """Each in a batch of its own; all in one batch must give the same."""
    memory, together = Memory(), Memory()
    for record in records:
        memory.fold([record])
    together.fold(list(records))
    assert (together.added, together.outcomes) == (memory.added, memory.outcomes)
    assert together.hashes == memory.hashes
    return memory


def test_more_of_an_item_is_sold_at_the_new_price_and_counts_as_one_order() -> None:
    memory = in_turn(
        Told(1, 1, ((0, 2_000, 50_000),), changed_ms=10),
        Told(1, 2, ((0, 5_000, 40_000),), changed_ms=20),
    )
    assert memory.added == {
        (0, 10, "units"): 2_000,
        (0, 10, "revenue"): 100_000,
        (0, 10, "orders"): 1,
        (0, 20, "units"): 3_000,
        (0, 20, "revenue"): 120_000,
    }


def test_less_of_an_item_is_a_return_when_it_changed() -> None:
    memory = in_turn(
        Told(1, 1, ((0, 5_000, 10_000),), changed_ms=10),
        Told(1, 2, ((0, 2_000, 10_000),), changed_ms=20),
    )
    assert memory.added[0, 20, "returns"] == 3_000
    assert memory.added[0, 20, "units"] == 0


def test_an_item_in_place_of_another_is_a_return_and_a_sale() -> None:
    memory = in_turn(
        Told(1, 1, ((0, 1_000, 10_000),), changed_ms=10),
        Told(1, 2, ((3, 1_000, 30_000),), changed_ms=20),
    )
    assert memory.added[0, 20, "returns"] == 1_000
    assert memory.added[3, 20, "units"] == 1_000
    assert memory.added[3, 20, "revenue"] == 30_000
    assert memory.added[3, 20, "orders"] == 1


def test_lines_of_one_item_count_together_at_their_mean_price() -> None:
    """Two at 1.0 and one at 2.0 are three at 4/3; two more at that price bring 2.6667."""
    memory = in_turn(
        Told(1, 1, ((0, 1_000, 10_000),), changed_ms=10),
        Told(1, 2, ((0, 2_000, 10_000), (0, 1_000, 20_000)), changed_ms=20),
    )
    assert memory.added[0, 20, "units"] == 2_000
    assert memory.added[0, 20, "revenue"] == 26_667
    assert memory.added[0, 20, "orders"] == 0


def test_what_is_cancelled_comes_back_and_can_be_sold_again() -> None:
    memory = in_turn(
        Told(1, 1, ((0, 2_000, 10_000),), changed_ms=10),
        Told(1, 2, (), changed_ms=20),
        Told(1, 3, ((0, 2_000, 10_000),), changed_ms=30),
    )
    assert memory.added[0, 20, "returns"] == 2_000
    assert memory.added[0, 30, "units"] == 2_000
    assert memory.added[0, 30, "orders"] == 1


def test_an_older_version_and_the_same_again_change_nothing() -> None:
    first = Told(1, 5, ((0, 2_000, 10_000),), changed_ms=10)
    memory = in_turn(first, Told(1, 4, ((0, 9_000, 1),)), first)
    assert memory.outcomes == ["applied", "duplicate", "duplicate"]
    assert memory.conflicting == 0
    assert memory.added[0, 10, "units"] == 2_000
    assert memory.added.total() == 2_000 + 20_000 + 1


@pytest.mark.parametrize("line", [(0, 3_000, 10_000), (1, 2_000, 10_000)])
def test_a_version_with_other_content_is_a_duplicate_that_conflicts(line: Line) -> None:
    memory = in_turn(Told(1, 5, ((0, 2_000, 10_000),)), Told(1, 5, (line,)))
    assert memory.outcomes == ["applied", "duplicate"]
    assert memory.conflicting == 1


def test_a_change_of_price_alone_counts_and_adds_nothing() -> None:
    memory = in_turn(Told(1, 1, ((0, 2_000, 10_000),)), Told(1, 2, ((0, 2_000, 90_000),)))
    assert memory.outcomes == ["applied", "applied"]
    assert memory.added.total() == 2_000 + 20_000 + 1


def test_an_unknown_order_older_than_the_keep_time_is_late_and_not_new() -> None:
    still = Told(1, 1, ((0, 1_000, 1),), created_ms=5, watermark_ms=5 + KEEP_MS)
    late = Told(2, 1, ((0, 1_000, 1),), created_ms=5, watermark_ms=6 + KEEP_MS)
    assert in_turn(still, late).outcomes == ["applied", "late"]


def test_a_known_order_changes_until_its_day_has_left() -> None:
    """The day ends at 1 day, and is kept 2 more: at 3 days its orders are forgotten."""
    first = Told(1, 1, ((0, 1_000, 1),), created_ms=5)
    change = Told(1, 2, ((0, 3_000, 1),), created_ms=5, watermark_ms=3 * DAY_MS - 1)
    gone = Told(1, 3, ((0, 1_000, 1),), created_ms=5, watermark_ms=3 * DAY_MS)
    assert in_turn(first, change, gone).outcomes == ["applied", "applied", "late"]


def test_history_is_never_late_and_keeps_its_order() -> None:
    """At 10 days an order of day 0 is told; it is kept as if made then, to the end of day 12."""
    old = Told(1, 1, ((0, 1_000, 1),), created_ms=5, watermark_ms=10 * DAY_MS, patient=True)
    change = Told(1, 2, ((0, 3_000, 1),), created_ms=5, watermark_ms=13 * DAY_MS - 1)
    gone = Told(1, 3, (), created_ms=5, watermark_ms=13 * DAY_MS)
    memory = in_turn(old, change, gone)
    assert memory.outcomes == ["applied", "applied", "late"]
    assert memory.added[0, 5, "units"] == 3_000


def test_what_found_no_room_leaves_the_state_as_it_was() -> None:
    memory = Memory()
    both = ((0, 1_000, 1), (1, 1_000, 1))
    memory.fold([Told(1, 1, ((0, 2_000, 1),)), Told(1, 2, both), Told(1, 2, ((0, 1_000, 1),))], 2)
    assert memory.outcomes == ["applied", "refused", "applied"]
    assert memory.added[0, 5, "returns"] == 1_000


def test_revenue_of_an_increase_never_leaves_int64_on_the_way() -> None:
    quantity = np.array([10**12 * 3])
    worth = np.array([2**61 + 1])
    expected = (2 * 10**12 * (2**61 + 1) + 3 * 10**15) // (6 * 10**15)
    assert revenue(np.array([10**12]), quantity, worth).tolist() == [expected]


def test_entries_are_read_as_they_were_written_and_damage_is_said() -> None:
    states = OrderStates(
        known=np.ones(3, np.bool_),
        version=np.array([-5, 2**62, 0]),
        kept_day=np.array([0, 20_000, 7]),
        start=np.array([0, 2, 2, 3]),
        slot=np.array([4, 2**31, 9]),
        quantity=np.array([1, 2**60, 3]),
    )
    entries = encode_orders(states)
    assert [len(entry) for entry in entries] == [36, 12, 24]
    first, second, third = entries
    read = decode_orders([None, first, None, second, third])
    assert read.known.tolist() == [False, True, False, True, True]
    assert read.version.tolist() == [0, -5, 0, 2**62, 0]
    assert read.kept_day.tolist() == [0, 0, 0, 20_000, 7]
    assert read.start.tolist() == [0, 0, 2, 2, 2, 3]
    assert (read.slot.tolist(), read.quantity.tolist()) == ([4, 2**31, 9], [1, 2**60, 3])
    with pytest.raises(StoreError, match="rows of 12 bytes"):
        decode_orders([b"1234567890123"])
