"""What a look at a partition is understood as."""

from __future__ import annotations

import pytest

from freshet.stream.errors import StoreError
from freshet.stream.read.follow import Look
from freshet.stream.store.layout import Header


def test_a_look_at_a_partition_that_was_only_claimed_sees_nothing() -> None:
    assert Look.of({}, []).header is None
    assert Look.of({b"epoch": b"3", b"fingerprint": b"{}"}, []) == Look(None, frozenset())
    look = Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [b"5:0", b"6:12"])
    assert look.header == Header(first_offset=0, next_offset=7)
    assert (look.offset, look.changed) == (7, {(5, 0), (6, 12)})


@pytest.mark.parametrize("member", [b"5", b"5:0:1", b"x:0"])
def test_an_index_that_names_no_tile_is_refused(member: bytes) -> None:
    with pytest.raises(StoreError, match="index of changed tiles"):
        Look.of({b"first_offset": b"0", b"next_offset": b"7"}, [member])
