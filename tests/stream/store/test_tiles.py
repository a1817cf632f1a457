"""Tiles: identity, canonical bytes, and every kind of damage found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from freshet.stream.errors import StoreError
from freshet.stream.store.tiles import (
    CELLS,
    CHUNK_ITEMS,
    decode,
    decode_cells,
    decode_channels,
    encode,
    encode_cells,
)

LARGEST = st.sampled_from([1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])


@st.composite
def tiles(draw: st.DrawFn) -> np.ndarray:
    """Eight channels, each from empty to full and from bytes to eight bytes."""
    values_CN = np.zeros((8, CHUNK_ITEMS), np.int64)
    for row in values_CN:
        count = draw(st.sampled_from([0, 0, 1, 3, 300, CHUNK_ITEMS]))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        places = random.choice(CHUNK_ITEMS, count, replace=False)
        row[places] = random.integers(1, draw(LARGEST), count, endpoint=True)
    return values_CN


@settings(deadline=None, max_examples=60)
@given(tiles())
def test_decode_of_encode_is_identity_and_encode_of_decode_too(values_CN: np.ndarray) -> None:
    data = encode(values_CN)
    assert (decode(data) == values_CN).all()
    assert encode(decode(data)) == data
    cells, values = decode_cells(data)
    flat = np.zeros(CELLS, np.int64)
    flat[cells] = values
    assert (np.diff(cells.astype(int)) > 0).all()
    assert (flat.reshape(values_CN.shape) == values_CN).all()


@settings(deadline=None, max_examples=30)
@given(tiles(), st.lists(st.integers(0, 7), unique=True))
def test_some_channels_are_those_rows_in_the_order_asked_for(
    values_CN: np.ndarray, channels: list[int]
) -> None:
    wanted = tuple(channels)
    out = np.full((len(wanted), CHUNK_ITEMS), 7)
    assert (decode_channels(encode(values_CN), wanted) == values_CN[list(wanted)]).all()
    assert decode_channels(encode(values_CN), wanted, out) is out
    assert (out == values_CN[list(wanted)]).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(tiles(), min_size=1, max_size=5))
def test_many_at_once_are_the_bytes_of_each_alone(several: list[np.ndarray]) -> None:
    flat = np.concatenate([values_CN.ravel() for values_CN in several])
    keys = np.flatnonzero(flat)
    assert encode_cells(keys, flat[keys], len(several)) == [
        encode(values_CN) for values_CN in several
    ]


def test_a_short_chunk_is_the_same_tile_as_a_full_one() -> None:
    values_CN = np.arange(24).reshape(8, 3)
    full_CN = np.zeros((8, CHUNK_ITEMS), np.int64)
    full_CN[:, :3] = values_CN
    assert encode(values_CN) == encode(full_CN)


@pytest.mark.parametrize(
    ("value", "count", "num_bytes"),
    [
        (255, 1, 9 + 2 + 2 + 1),  # Sparse: a count, a position, a value.
        (256, 1, 9 + 2 + 2 + 2),
        (2**16, 1, 9 + 2 + 2 + 4),
        (2**32, 1, 9 + 2 + 2 + 8),
        (255, CHUNK_ITEMS, 9 + 2 + 1_024),  # Dense: a length, and values alone.
        (2**62, CHUNK_ITEMS, 9 + 2 + 8 * 1_024),
    ],
)
def test_each_channel_takes_the_smaller_form_in_the_narrowest_width(
    value: int, count: int, num_bytes: int
) -> None:
    values_CN = np.zeros((8, CHUNK_ITEMS), np.int64)
    values_CN[5, CHUNK_ITEMS - count :] = value
    assert len(encode(values_CN)) == num_bytes


def test_an_empty_tile_is_nine_bytes() -> None:
    assert encode(np.zeros((8, CHUNK_ITEMS), np.int64)) == bytes([1]) + bytes(8)
    assert (
        encode_cells(np.empty(0, np.int64), np.empty(0, np.int64), 2) == [bytes([1]) + bytes(8)] * 2
    )
    assert not decode(bytes([1]) + bytes(8)).any()
    assert len(decode_cells(bytes([1]) + bytes(8))[0]) == 0


def test_a_negative_value_is_an_impossible_state() -> None:
    with pytest.raises(AssertionError):
        encode(np.full((8, 1), -1))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "format version"),
        (b"\x02" + bytes(8), "format version"),
        (b"\x01" + bytes(7), "format version"),
        (b"\x01\x03" + bytes(7) + b"\x01\x00\x00\x00\x01", "descriptor 3"),
        (b"\x01\x41" + bytes(7) + b"\x01\x00\x00\x00\x01", "descriptor 65"),
        (b"\x01\x01" + bytes(7), "descriptor"),
        (b"\x01\x01" + bytes(7) + b"\x00\x00", "0 values"),
        (b"\x01\x02" + bytes(7) + b"\x01\x04" + bytes(1_025), "1025 values"),
        (b"\x01\x01" + bytes(7) + b"\x01\x00\x00\x00", "1 values"),
        (b"\x01\x01" + bytes(7) + b"\x02\x00\x05\x00\x05\x00\x01\x01", "do not rise"),
        (b"\x01\x01" + bytes(7) + b"\x01\x00\x00\x04\x01", "do not rise"),
        (b"\x01\x01" + bytes(7) + b"\x02\x00\x05\x00\x00\x04\x01\x01", "do not rise"),
        (b"\x01" + bytes(9), "goes on after byte 9"),
    ],
)
def test_bytes_that_are_no_tile_say_what_is_wrong(data: bytes, text: str) -> None:
    with pytest.raises(StoreError, match=text):
        decode(data)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.booleans())
def test_random_bytes_are_a_tile_or_an_error_and_nothing_else(data: bytes, versioned: bool) -> None:
    try:
        values_CN = decode(b"\x01" + data if versioned else data)
    except StoreError:
        return
    assert values_CN.shape == (8, CHUNK_ITEMS)


@settings(deadline=None, max_examples=20)
@given(st_numpy.arrays(np.int64, (8, 40), elements=st.integers(0, 2**40)))
def test_small_arrays_of_any_numbers_survive(values_CN: np.ndarray) -> None:
    assert (decode(encode(values_CN))[:, :40] == values_CN).all()
