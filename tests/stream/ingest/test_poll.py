"""What a turn polls: each partition's records in log order, and no later than it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.arrays import Ints
from freshet.stream.config import EventSettings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.events.redrive import Headers
from freshet.stream.ingest.poll import Polled, Values, by_partition, poll, runs
from freshet.stream.kafka import Message, Taken

PLACES = st.tuples(st.sampled_from(["orders", "clicks"]), st.integers(0, 2))


def message(topic: str, partition: int, offset: int, **over: object) -> Message:
    parts = {"key": b"k", "value": b"%d" % offset, "headers": [], "timestamp": (1, 1_000 + offset)}
    return Message(topic=topic, partition=partition, offset=offset, **(parts | over))


@given(st.lists(PLACES, max_size=40))
def test_runs_are_all_messages_in_order_each_of_one_partition(
    places: list[tuple[str, int]],
) -> None:
    messages = [message(*place, offset) for offset, place in enumerate(places)]
    found = list(runs(messages))
    assert [one for _, run in found for one in run] == messages
    assert [key for key, run in found for _ in run] == places
    assert all(before != after for (before, _), (after, _) in pairwise(found))


@given(st.lists(PLACES, max_size=40))
def test_a_partition_is_decoded_once_a_slice_in_its_own_order(
    places: list[tuple[str, int]],
) -> None:
    messages = [message(*place, offset) for offset, place in enumerate(places)]
    found = by_partition(messages)
    assert set(found) == set(places)
    for key, mine in found.items():
        assert mine == [one for one, place in zip(messages, places, strict=True) if place == key]


@dataclass
class Tape:
    """A consumer that hands out what it holds; reading takes time when there is too little."""

    messages: list[Message]
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    now_ms: float = 0.0
    asked: list[tuple[int, int]] = field(default_factory=list)

    def take(self, max_records: int, max_wait_ms: int) -> Taken:
        self.asked.append((max_records, max_wait_ms))
        found, self.messages = self.messages[:max_records], self.messages[max_records:]
        self.now_ms += 1 if len(found) == max_records else max_wait_ms
        ends, self.ends = ({}, self.ends) if self.messages else (self.ends, {})
        return Taken(found, ends)


def nothing(
    values: Values, keys: Values, timestamps_ms: Ints, headers: Mapping[int, Headers]
) -> Decoded:
    return EventDecoder("orders", EventSettings()).decode(values, keys)


def read(
    tape: Tape, max_records: int = 10
) -> tuple[dict[tuple[str, int], Polled], dict[tuple[str, int], int]]:
    mine = {("orders", 0): nothing, ("orders", 1): nothing}
    return poll(
        tape.take, mine.get, max_records=max_records, max_wait_ms=50, now_ms=lambda: tape.now_ms
    )


def test_slices_of_a_partition_become_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshet.stream.ingest.poll.SLICE_RECORDS", 3)
    redrive = [("trace", b"1"), ("freshet-redrive", b"orders-0-2")]
    messages = [message("orders", n % 2, n, headers=redrive if n == 6 else []) for n in range(8)]
    tape = Tape(messages, ends={("orders", 1): 8})
    polled, ends = read(tape)
    batch = polled["orders", 0].batch()
    assert [one.offset() for one in polled["orders", 0].messages] == [0, 2, 4, 6]
    assert (batch.first_offset, batch.next_offset, batch.decoded.num_records) == (0, 7, 4)
    assert [refusal.index for refusal in batch.decoded.refusals] == [0, 1, 2, 3]
    assert batch.timestamps_ms.tolist() == [1_000, 1_002, 1_004, 1_006]
    assert batch.redrives == {3: b"orders-0-2"}
    assert ends == {("orders", 1): 8}


def test_messages_of_partitions_that_are_not_ours_are_dropped() -> None:
    polled, _ = read(Tape([message("orders", 0, 0), message("clicks", 0, 0)]))
    assert list(polled) == [("orders", 0)]


def test_it_waits_no_longer_in_all_than_it_may_and_reads_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("freshet.stream.ingest.poll.SLICE_RECORDS", 4)
    tape = Tape([message("orders", 0, n) for n in range(30)])
    read(tape)
    assert tape.asked == [(4, 50), (4, 49), (2, 48)]
    short = Tape([message("orders", 0, n) for n in range(5)])
    read(short)
    assert short.asked == [(4, 50), (4, 49)]
    assert short.now_ms == 50


def test_partitions_that_take_turns_are_decoded_once_each() -> None:
    calls: list[int] = []

    def decode(
        values: Values, keys: Values, timestamps_ms: Ints, headers: Mapping[int, Headers]
    ) -> Decoded:
        calls.append(len(values))
        return nothing(values, keys, timestamps_ms, headers)

    tape = Tape([message("orders", n % 2, n // 2) for n in range(10)])
    mine = {("orders", 0): decode, ("orders", 1): decode}
    poll(tape.take, mine.get, max_records=20, max_wait_ms=50, now_ms=lambda: tape.now_ms)
    assert calls == [5, 5]
