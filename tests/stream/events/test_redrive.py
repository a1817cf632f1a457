"""The header of records that are sent again: which one counts, and what repeats it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from freshet.stream.events.redrive import Headers, redrive_name, repeats


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([], None),
        ([("freshet-redriven", b"o-0-1")], None),
        ([("freshet-redrive", b"")], None),
        ([("freshet-redrive", None)], None),
        ([("freshet-redrive", "o-0-1")], b"o-0-1"),
        ([("freshet-redrive", b"o-0-1"), ("trace", b"x")], b"o-0-1"),
        ([("freshet-redrive", b"o-0-1"), ("freshet-redrive", b"o-0-2")], b"o-0-2"),
        ([("freshet-redrive", b"o-0-1"), ("freshet-redrive", b"")], b"o-0-1"),
    ],
)
def test_the_last_redrive_header_that_says_anything_counts(
    headers: Headers, name: bytes | None
) -> None:
    assert redrive_name(headers) == name


def test_a_name_of_300_bytes_stays_and_a_longer_one_is_known_by_its_sha256() -> None:
    assert redrive_name([("freshet-redrive", b"n" * 300)]) == b"n" * 300
    digest = hashlib.sha256(b"n" * 301).hexdigest().encode()
    assert redrive_name([("freshet-redrive", b"n" * 301)]) == digest


def test_a_header_repeats_one_of_this_batch_or_of_an_earlier_one() -> None:
    names = [b"a", None, b"b", b"a", None, b"c", b"c"]
    repeat, fresh = repeats(names, np.zeros(7, np.bool_), {b"b", b"z"})
    assert repeat.tolist() == [False, False, True, True, False, False, True]
    assert fresh == [b"a", b"c"]


def test_a_header_of_a_record_from_the_future_may_come_again() -> None:
    repeat, fresh = repeats([b"a", b"a", b"a"], np.array([True, False, False]), frozenset())
    assert repeat.tolist() == [False, False, True]
    assert fresh == [b"a"]
    repeat, fresh = repeats([b"a"], np.array([True]), {b"a"})
    assert (repeat.tolist(), fresh) == ([False], [])
