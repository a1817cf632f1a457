"""How large the batches of a source are."""

from __future__ import annotations

from freshet.stream.source.process import _slice_ms


def test_a_slice_is_a_tenth_of_a_second_within_limits() -> None:
    assert [_slice_ms(speed) for speed in (0.01, 1.0, 900.0, 3_600.0, 1e9)] == [
        1_000,
        1_000,
        90_000,
        360_000,
        900_000,
    ]
