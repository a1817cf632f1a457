"""When a bucket is whole, and what is remembered of those that are not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from freshet.online.owner.buckets import PATIENCE_BUCKETS, PATIENCE_S, ScoredBuckets
from freshet.stream.codec import encode
from freshet.stream.schemas import Score
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.owner.drifting import mark_of, scores_of


class Rig:
    """Buckets of hours, and a clock that stands until it is set."""

    def __init__(self, decided: int = -1) -> None:
        self.at_s = 0.0
        decided_ms = decided * HOUR_MS if decided >= 0 else -1
        self.buckets = ScoredBuckets(Grid(HOUR_MS), decided_ms, lambda: self.at_s)

    def mark(self, *hours: int, num_shards: int = 0) -> int:
        """Shards are scored up to these hours; up to which hour buckets are whole then."""
        for shard, hour in enumerate(hours):
            self.buckets.mark(mark_of(shard, hour, num_shards or len(hours)))
        return self.until()

    def until(self) -> int:
        return self.buckets.until_ms() // HOUR_MS

    def add(self, hour: int, partition: int = 0, offset: int = 0, number: int = 0) -> Score:
        score = scores_of(hour)[number]
        self.buckets.add(score, encode(score), partition, offset)
        return score

    def taken(self, hour: int) -> list[tuple[int, list[str]]]:
        return [
            (bucket_ms // HOUR_MS, [score.item_id for score in scores])
            for bucket_ms, scores in self.buckets.take(hour * HOUR_MS)
        ]


def test_a_bucket_is_whole_once_every_shard_has_passed_it_and_shards_never_go_back() -> None:
    rig = Rig()
    assert rig.until() == -1
    assert rig.mark(9, 7, num_shards=3) == -1, "of the third nothing is known"
    assert rig.mark(9, 7, 8) == 7
    assert rig.mark(9, 9, 4) == 8
    assert rig.mark(9, 9, 9) == 9


def test_words_of_another_resolution_count_for_nothing() -> None:
    rig = Rig()
    rig.buckets.mark(replace(mark_of(0, 48, 1), resolution_ms=DAY_MS))
    assert rig.until() == -1 and rig.buckets.begun_ms is None


def test_how_many_shards_there_are_says_the_newest_word() -> None:
    rig = Rig()
    assert rig.mark(5, 5) == 5
    # Four partitions now: until all four have spoken nothing more is whole.
    rig.buckets.mark(mark_of(0, 6, 4))
    assert rig.until() == -1
    assert rig.mark(6, 6, 6, 6) == 6
    # Two again: what the others said last does not hold it up.
    assert rig.mark(7, 7) == 7
    rig.buckets.mark(mark_of(1, 8, 10**15))
    assert rig.until() == -1, "nobody counts to that"


def test_a_shard_that_is_a_day_behind_and_says_nothing_for_ten_minutes_is_left_out() -> None:
    rig = Rig()
    ahead = 100 + PATIENCE_BUCKETS
    assert rig.mark(ahead + 1, 100) == 100
    rig.at_s = PATIENCE_S - 1
    assert rig.until() == 100
    rig.at_s = PATIENCE_S
    assert rig.until() == 101
    # It is waited for again once it moves.
    assert rig.mark(ahead + 9, 102) == 102
    rig.at_s += PATIENCE_S - 1
    assert rig.until() == 102
    rig.at_s += 1
    assert rig.until() == 109


def test_a_shard_that_is_less_behind_is_waited_for_however_long() -> None:
    rig = Rig()
    assert rig.mark(100 + PATIENCE_BUCKETS, 100) == 100
    rig.at_s = 1e9
    assert rig.until() == 100


def test_whole_buckets_are_handed_over_once_oldest_first_with_the_first_of_each_item() -> None:
    rig = Rig()
    rig.add(6, number=1)
    rig.add(5, number=1)
    first = rig.add(6)
    again = replace(first, actual=99.0)
    rig.buckets.add(again, encode(again), 0, 9)
    rig.add(7)
    (five, six) = list(rig.buckets.take(7 * HOUR_MS))
    assert five[0] == 5 * HOUR_MS and six[0] == 6 * HOUR_MS
    assert [score.actual for score in six[1]] == [5.0, 5.0]
    assert rig.taken(7) == [] and rig.taken(8) == [(7, ["a0|n"])]
    # What follows all the same is too late, also where a bucket had no scores.
    rig.add(6)
    assert rig.taken(10) == []
    rig.add(9)
    assert rig.taken(99) == []


@pytest.mark.parametrize(
    "over",
    [{"resolution_ms": DAY_MS}, {"bucket_start_ms": 5 * HOUR_MS + 1}, {"bucket_start_ms": 0}],
)
def test_scores_of_other_buckets_do_not_wait(over: dict[str, int]) -> None:
    rig = Rig(decided=3)
    score = replace(scores_of(5)[0], **over)
    rig.buckets.add(score, encode(score), 0, 0)
    assert rig.taken(99) == []


def test_the_next_owner_begins_at_the_first_score_that_waits() -> None:
    rig = Rig(decided=4)
    read = {0: 30, 1: 20, 2: 5}
    assert rig.buckets.offsets(read) == read
    rig.add(5, 0, 11)
    rig.add(6, 0, 12)
    rig.add(6, 1, 13)
    rig.add(5, 0, 14, number=1)
    assert rig.buckets.offsets(read) == {0: 11, 1: 13, 2: 5}
    rig.taken(6)
    assert rig.buckets.offsets(read) == {0: 12, 1: 13, 2: 5}


def test_the_shop_began_with_the_earliest_event_that_anybody_knows() -> None:
    rig = Rig()
    for shard, begun_ms in enumerate((None, 9, 5)):
        rig.buckets.mark(replace(mark_of(shard, 3), begun_ms=begun_ms))
    assert rig.buckets.begun_ms == 5
