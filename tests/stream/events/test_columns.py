"""Batches of decoded events put together, and records left out of them."""

from __future__ import annotations

from dataclasses import replace

from freshet.stream.config import EventSettings
from freshet.stream.events.columns import Decoded, concatenate, without
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.events.limits import LineRefusal, Refusal, Skipped

ORDER = b'{"event_id":"e","event_time":1,"sku":"a","region":"n","quantity":1,"unit_price":1}'


def part(line: int, reason: str) -> Decoded:
    """Two good records, the second of which lacks a line, and one that was skipped."""
    found = EventDecoder("orders", EventSettings()).decode([ORDER, ORDER], [None, None])
    lines = [LineRefusal(1, line, "OutOfRange", "too much")]
    return replace(found, num_records=3, skipped=[Skipped(2, reason)], line_refusals=lines)


def test_what_was_skipped_and_lines_that_are_lacking_move_along() -> None:
    found = concatenate([part(4, "keep_when"), part(5, "tombstone")])
    assert found.skipped == [Skipped(2, "keep_when"), Skipped(5, "tombstone")]
    assert [(bad.index, bad.line) for bad in found.line_refusals] == [(1, 4), (4, 5)]


def test_a_refused_record_takes_its_lacking_lines_along() -> None:
    found = without(part(4, "keep_when"), [Refusal(1, "MissingField", "")])
    assert (found.index.tolist(), found.line_refusals) == ([0], [])
    assert without(part(4, "keep_when"), [Refusal(0, "MissingField", "")]).line_refusals
