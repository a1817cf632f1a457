"""How far a shard has come, as text beside an offset: it comes back as it was, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.marks import LAST, Mark, decode_marks, encode_marks, place_of
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.kafka import shard_of
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

KAFKA_KEEPS = 4_096  # offset.metadata.max.bytes

COUNTS = st.integers(0, 2**31)
MARKS = st.builds(
    Mark, st.integers(0, MAX_TIME_MS), st.integers(-1, LAST), COUNTS, COUNTS, skipped=COUNTS
)


@given(st.dictionaries(st.integers(1, DAY_MS), MARKS, max_size=4))
def test_marks_come_back_as_they_were(marks: dict[int, Mark]) -> None:
    assert decode_marks(encode_marks(marks)) == marks


def test_the_largest_marks_of_many_widths_fit_beside_an_offset() -> None:
    largest = Mark(MAX_TIME_MS, LAST, 2**31, 2**31, 2**31)
    marks = {DAY_MS - width: largest for width in range(20)}
    assert len(encode_marks(marks).encode()) < KAFKA_KEEPS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "by hand",
        "null",
        "[]",
        '{"minutes":[1,2,3,4,5]}',
        '{"60000":[1,2,3,4]}',
        '{"60000":[1,2,3,4,5,6]}',
        '{"60000":[1,2.5,3,4,5]}',
        '{"60000":{"cutoff_ms":1}}',
        # A place that no item has.
        '{"60000":[1,18446744073709551616,3,4,5]}',
        '{"60000":[1,-2,3,4,5]}',
        # Half of what was written.
        '{"60000":[120000,184467440737095516',
    ],
)
def test_what_somebody_else_wrote_says_nothing(text: str) -> None:
    assert decode_marks(text) == {}


def test_the_last_place_is_that_of_the_largest_hash() -> None:
    (whole,) = decode_marks('{"60000":[1,18446744073709551615,3,4,5]}').values()
    assert whole.upto == LAST


def test_of_an_older_record_with_one_width_the_others_are_simply_not_known() -> None:
    only = {HOUR_MS: Mark(HOUR_MS, 7, 1, 3)}
    assert decode_marks('{"3600000":[3600000,7,1,3,0]}') == only
    assert MINUTE_MS not in decode_marks(encode_marks(only))


def test_a_round_is_complete_when_it_has_come_to_the_last_place_and_not_before() -> None:
    assert [Mark(0, upto, 1, 1).complete for upto in (-1, 0, LAST - 1, LAST)] == [
        False,
        False,
        False,
        True,
    ]


@given(st.text("ab|é", max_size=9), st.integers(1, 64))
def test_an_items_place_tells_its_shard(item_id: str, num_shards: int) -> None:
    assert 0 <= place_of(item_id) <= LAST
    assert place_of(item_id) % num_shards == shard_of(item_id, num_shards)
