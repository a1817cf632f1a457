"""Item ids, and records that survive their topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.codec import decode, encode
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    CHANNELS,
    UNIT_SCALES,
    Alert,
    AlertData,
    WindowsAdvanced,
    item_id_of,
    item_id_parts,
)

PARTS = st.lists(st.text(alphabet=st.sampled_from("ab|\\é")), min_size=1, max_size=4)


@given(PARTS)
def test_an_item_id_gives_its_parts_back(parts: list[str]) -> None:
    assert item_id_parts(item_id_of(parts)) == parts


@given(PARTS, PARTS)
def test_different_parts_are_different_items(left: list[str], right: list[str]) -> None:
    assert (item_id_of(left) == item_id_of(right)) == (left == right)


def test_a_record_survives_its_topic_and_ignores_what_others_add() -> None:
    notice = WindowsAdvanced(topic="t", partition=1, epoch=2, offset=3, frontier_ms=4)
    assert decode(WindowsAdvanced, encode(notice)) == notice
    assert decode(WindowsAdvanced, encode(notice)[:-1] + b',"more":[1]}') == notice


def test_an_alert_has_the_names_of_cloud_events() -> None:
    data = AlertData(
        state="firing", severity="info", title="", description="", starts_at_ms=0, updated_at_ms=0
    )
    alert = Alert(id="1", source="s", type="t", subject="f", time="2024-01-01T00:00:00Z", data=data)
    assert b'"datacontenttype":"application/json"' in encode(alert)
    assert decode(Alert, encode(alert)) == alert


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"topic":1}', b"\xff", b'{"topic":"\xff"}', b"[" * 5_000]
)
def test_bytes_that_are_no_record_are_an_event_error_that_names_the_kind(data: bytes) -> None:
    with pytest.raises(EventError, match="not a WindowsAdvanced"):
        decode(WindowsAdvanced, data)


def test_every_channel_with_a_scale_is_a_channel() -> None:
    assert set(UNIT_SCALES) <= set(CHANNELS)
    assert len(CHANNELS) == 8
