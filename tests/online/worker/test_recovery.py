"""What the next worker learns from the topics: forecasts that wait, scores, alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from freshet.online.drift.pending import PendingForecasts
from freshet.online.forecast.publish import issued_of
from freshet.online.worker import recovery
from freshet.online.worker.recovery import Tail, read_forecasts, read_scores
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Taken
from freshet.stream.schemas import WIRE_LEVELS, Forecast, Score, ScoredStep
from freshet.stream.units import HOUR_MS
from tests.online.worker.records import records

STEPS = (1, 2, 4)


class FakeTail:
    """A topic's newest records; `cut` names partitions of which older ones are gone."""

    def __init__(self, values: list[bytes], cut: tuple[int, ...] = ()) -> None:
        self.values, self.cut = values, set(cut)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return iter([(0, value) for value in self.values])


def score(forecast: Forecast, step: int, item: str | None = None) -> Score:
    scored = ScoredStep(
        forecast_id=forecast.forecast_id,
        weights_version="v1",
        step=step,
        pinball=0.0,
        seasonal_naive_pinball=None,
        pit=0.5,
        residual=0.0,
        covered_80=True,
    )
    return Score(
        item_id=item or forecast.item_id,
        segment="-",
        resolution_ms=HOUR_MS,
        bucket_start_ms=forecast.cutoff_ms + (step - 1) * HOUR_MS,
        scored_at_ms=0,
        actual=1.0,
        steps=[scored],
    )


def recovered(forecasts: list[bytes], scores: FakeTail) -> PendingForecasts:
    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    read_forecasts(
        [(0, value) for value in forecasts],
        {HOUR_MS: pending},
        oldest_cutoff_ms={HOUR_MS: 0},
        owns=lambda _: True,
    )
    scores_of(scores, pending)
    return pending


def scores_of(
    scores: FakeTail, pending: PendingForecasts, owns: Callable[[str], bool] = lambda _: True
) -> int:
    """How many buckets of hours were scored."""
    return read_scores(cast("Tail", scores), {HOUR_MS: pending}, owns=owns)


def test_what_waited_before_a_restart_waits_after_it_with_the_same_numbers() -> None:
    made = records(["a|n", "b|n"])
    before = PendingForecasts(STEPS, HOUR_MS, 50)
    before.add(*issued_of(made, STEPS))
    after = recovered([encode(record) for record in made], FakeTail([]))
    (old,), (new,) = before.due(13 * HOUR_MS), after.due(13 * HOUR_MS)
    assert (old.forecast_ids, old.item_ids, old.step) == (new.forecast_ids, new.item_ids, new.step)
    np.testing.assert_array_equal(old.quantiles_IQ, new.quantiles_IQ)


def test_of_several_forecasts_of_an_item_and_cutoff_the_first_waits_whatever_the_weights() -> None:
    first, second = records(["a|n", "b|n"])
    # `a|n` was forecast by v2 before v1 was, `b|n` by v1 alone; v1 began the topic.
    by_other = msgspec.structs.replace(first, weights_version="v2", forecast_id="other")
    repeat = msgspec.structs.replace(by_other, forecast_id="repeat")
    after = recovered([encode(found) for found in (second, by_other, first, repeat)], FakeTail([]))
    due = {found.weights_version: found for found in after.due(10 * HOUR_MS)}
    assert {version: found.forecast_ids for version, found in due.items()} == {
        "v1": [second.forecast_id],
        "v2": ["other"],
    }
    expected = np.array([first.quantiles[0]], np.float32)
    np.testing.assert_array_equal(due["v2"].quantiles_IQ, expected)
    assert (due["v2"].step, due["v2"].cutoff_ms) == (1, 10 * HOUR_MS)
    assert due["v2"].quantile_levels == WIRE_LEVELS


def test_scored_steps_stay_scored_and_broken_records_are_passed_over() -> None:
    made = records(["a|n", "b|n"])
    scores = FakeTail([b"{", encode(score(made[0], 1))])
    after = recovered([b"\xff", *(encode(record) for record in made)], scores)
    assert [due.item_ids for due in after.due(10 * HOUR_MS)] == [["b|n"]]
    assert [due.item_ids for due in after.due(11 * HOUR_MS)] == [["a|n", "b|n"]]


def test_a_score_closes_each_of_its_steps_and_no_other_forecast_of_that_bucket() -> None:
    made = [
        msgspec.structs.replace(record, forecast_id=f"f{hour}", cutoff_ms=hour * HOUR_MS)
        for hour, record in zip((10, 9, 7), records(["a|n"] * 3), strict=True)
    ]
    # The bucket of hour 10 is step 1 of the first, 2 of the second and 4 of the third.
    first, second, third = (
        score(record, step).steps[0] for record, step in zip(made, STEPS, strict=True)
    )
    both = msgspec.structs.replace(score(made[0], 1), steps=[second, third])
    after = recovered([encode(record) for record in made], FakeTail([encode(both)]))
    assert [due.forecast_ids for due in after.due(10 * HOUR_MS)] == [[first.forecast_id]]


def test_of_buckets_that_a_cut_log_no_longer_tells_nothing_is_scored_again() -> None:
    made = records(["a|n", "b|n"])
    values = [encode(record) for record in made]
    other = score(made[0], 2, item="z|n")
    assert recovered(values, FakeTail([encode(other)], cut=(0,))).due_buckets(99 * HOUR_MS) == [
        13 * HOUR_MS
    ]
    kept = recovered(values, FakeTail([encode(other)]))
    assert kept.due_buckets(99 * HOUR_MS) == [10 * HOUR_MS, 11 * HOUR_MS, 13 * HOUR_MS]


def test_where_a_cut_log_tells_nothing_of_a_resolution_what_was_over_when_it_begins_is_left() -> (
    None
):
    """An hour of scores by the minute fills a tail in which yesterday's scores of days are not."""
    made = records(["a|n", "b|n"])
    values = [encode(record) for record in made]
    minute = msgspec.structs.replace(
        score(made[0], 1, item="z|n"), resolution_ms=60_000, scored_at_ms=12 * HOUR_MS
    )
    later = msgspec.structs.replace(minute, scored_at_ms=99 * HOUR_MS)
    # The buckets of hours 10 and 11 were over at 12, that of 13 was not.
    tail = FakeTail([encode(minute), encode(later)], cut=(0,))
    assert recovered(values, tail).due_buckets(99 * HOUR_MS) == [13 * HOUR_MS]
    whole = FakeTail([encode(minute), encode(later)])
    assert len(recovered(values, whole).due_buckets(99 * HOUR_MS)) == 3


@pytest.mark.parametrize("bad", [b'["x",', b"[null,", b"[1,", b"[[1],"])
def test_a_forecast_whose_numbers_are_none_is_passed_over(bad: bytes) -> None:
    made = records(["a|n", "b|n"])
    first = encode(made[0])
    broken = first.replace(b'"quantiles":[[', b'"quantiles":[' + bad, 1)
    assert broken != first
    after = recovered([broken, encode(made[1])], FakeTail([]))
    assert after.items_at(10 * HOUR_MS) == {"b|n"}


def test_buckets_of_repeated_scores_count_once_and_items_of_others_are_left() -> None:
    made = records(["a|n", "b|n"])
    tail = FakeTail(
        [encode(score(made[0], 1)), encode(score(made[0], 1)), encode(score(made[1], 1))]
    )
    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    found = scores_of(tail, pending, owns=lambda item: item == "a|n")
    assert found == 1


def test_forecasts_of_another_resolution_too_old_too_short_or_of_others_do_not_wait() -> None:
    (good,) = records(["a|n"])
    others = [
        msgspec.structs.replace(good, forecast_id="1", resolution_ms=60_000),
        msgspec.structs.replace(good, forecast_id="2", cutoff_ms=9 * HOUR_MS - 1),
        msgspec.structs.replace(good, forecast_id="3", quantiles=good.quantiles[:3]),
        msgspec.structs.replace(good, forecast_id="4", item_id="b|n"),
    ]
    oldest = msgspec.structs.replace(good, forecast_id="5", cutoff_ms=9 * HOUR_MS)
    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    taken = read_forecasts(
        [(0, encode(record)) for record in (*others, good, oldest)],
        {HOUR_MS: pending},
        oldest_cutoff_ms={HOUR_MS: 9 * HOUR_MS},
        owns=lambda item: item == "a|n",
    )
    assert taken == 2 and pending.cutoffs == [9 * HOUR_MS, 10 * HOUR_MS]


def test_scores_of_another_resolution_close_nothing() -> None:
    (made,) = records(["a|n"])
    other = msgspec.structs.replace(score(made, 1), resolution_ms=60_000)
    assert recovered([encode(made)], FakeTail([encode(other)])).due(10 * HOUR_MS) != []
    # Those of its own resolution that follow do.
    both = FakeTail([encode(other), encode(score(made, 1))])
    assert recovered([encode(made)], both).due(10 * HOUR_MS) == []


def test_of_several_cut_partitions_the_one_that_tells_least_counts() -> None:
    made = records(["a|n", "b|n"])
    # Partition 0 tells from the first bucket on, partition 1 from the second, 2 is whole.
    values = [(0, score(made[0], 1)), (1, score(made[1], 2)), (2, score(made[1], 4))]

    class Partitions(FakeTail):
        def __iter__(self) -> Iterator[tuple[int, bytes]]:
            return iter([(partition, encode(value)) for partition, value in values])

    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    pending.add(*issued_of(made, STEPS))
    tail = Partitions([], cut=(0, 1, 3))
    scores_of(tail, pending)
    assert pending.due(10 * HOUR_MS) == [] == pending.due(11 * HOUR_MS)
    assert [due.item_ids for due in pending.due(13 * HOUR_MS)] == [["a|n"]]


# The end of a topic -------------------------------------------------------------------------------


class Client:
    """A consumer of the topic `t`, and what it was made and told to read."""

    def __init__(self, settings: object, group: str, **over: Any) -> None:
        self.made, self.closed = (group, over), False
        self.assigned: list[tuple[str, int, int]] = []

    def assign(self, places: list[Any]) -> None:
        self.assigned = [(place.topic, place.partition, place.offset) for place in places]

    def close(self) -> None:
        self.closed = True


def message(partition: int, offset: int, value: bytes | None) -> Any:
    return SimpleNamespace(
        topic=lambda: "t",
        partition=lambda: partition,
        offset=lambda: offset,
        value=lambda: value,
    )


class Log:
    """The topic `t`: first and end offset of each partition, and what each `take` brings."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]], *takes: Taken
    ) -> None:
        self.takes, self.now_s = list(takes), 500.0
        self.client: Client | None = None
        monkeypatch.setattr(recovery, "consumer", self._consumer)
        monkeypatch.setattr(recovery, "partitions_of", lambda _, topics: {topics[0]: len(ranges)})
        monkeypatch.setattr(recovery, "log_range", lambda _, topic, number: ranges[number])
        monkeypatch.setattr(recovery, "take", self._take)
        monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def _consumer(self, *args: Any, **over: Any) -> Client:
        self.client = Client(*args, **over)
        return self.client

    def _take(self, client: object, max_records: int, max_wait_ms: int) -> Taken:
        assert client is self.client and max_records > 0 and max_wait_ms > 0
        self.now_s += 25.0
        return self.takes.pop(0)


def test_a_tail_begins_near_the_end_of_each_partition_and_tells_which_were_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fifty records are ten of each partition. The fourth has lost older ones, the last too.
    ranges = [(0, 10), (0, 11), (40, 100), (3, 9), (5, 5)]
    ends = {("t", partition): end for partition, (_, end) in enumerate(ranges)}
    log = Log(monkeypatch, ranges, Taken([], ends))
    tail = Tail(Settings(), "t", 50)
    assert list(tail) == []
    assert log.client is not None and log.client.closed
    assert log.client.assigned == [("t", 0, 0), ("t", 1, 1), ("t", 2, 90), ("t", 3, 3)]
    assert tail.cut == {1, 2, 3, 4}
    assert log.client.made == (
        "worker-tail",
        {"enable_partition_eof": True, "auto_offset_reset": "earliest"},
    )


def test_a_small_tail_reads_at_least_one_record_of_each_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch, [(0, 7)] * 3, Taken([], {("t", number): 7 for number in range(3)}))
    assert list(Tail(Settings(), "t", 2)) == []
    assert log.client is not None
    assert log.client.assigned == [("t", 0, 6), ("t", 1, 6), ("t", 2, 6)]


def test_a_tail_ends_when_each_partition_was_read_to_the_end_that_was_seen_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(
        monkeypatch,
        [(0, 2), (0, 3)],
        # The end of partition 0 is its last record; 1 is not there yet, whatever it says.
        Taken([message(0, 0, b"a"), message(1, 0, b"b"), message(0, 1, b"c")], {("t", 1): 2}),
        # What comes meanwhile is taken too; a tombstone is none; 1 ends with what nobody may read.
        Taken([message(0, 2, b"d"), message(1, 1, None)], {("t", 1): 3}),
    )
    found = list(Tail(Settings(), "t"))
    assert found == [(0, b"a"), (1, b"b"), (0, b"c"), (0, b"d")]
    assert log.takes == []


def test_a_tail_reads_on_until_the_last_record_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [Taken([message(0, offset, b"%d" % offset)], {}) for offset in range(3)]
    log = Log(monkeypatch, [(0, 3)], *takes)
    assert list(Tail(Settings(), "t")) == [(0, b"0"), (0, b"1"), (0, b"2")]
    assert log.takes == []
    log = Log(monkeypatch, [(0, 2)], *takes[:2])
    assert list(Tail(Settings(), "t")) == [(0, b"0"), (0, b"1")]


def test_a_tail_whose_last_record_is_a_tombstone_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Log(monkeypatch, [(0, 1)], Taken([message(0, 0, None)], {}))
    assert list(Tail(Settings(), "t")) == []


def test_a_tail_that_does_not_end_in_a_minute_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each take lasts 25 seconds here, so the fourth would begin after 75.
    log = Log(monkeypatch, [(0, 2), (0, 9)], *[Taken([], {("t", 0): 2})] * 9)
    with pytest.raises(BrokerError, match="1 partitions of t were not read to their end in 60"):
        list(Tail(Settings(), "t"))
    assert len(log.takes) == 9 - 3
    assert log.client is not None and log.client.closed
