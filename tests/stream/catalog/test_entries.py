"""Versions of a catalogue entry: which are dropped, and what the newest one says."""

from __future__ import annotations

import pytest

from freshet.stream.catalog import entries as module
from freshet.stream.catalog.entries import Entries
from freshet.stream.catalog.versions import Known
from freshet.stream.schemas import CatalogEntry


def told(*titles: str | None) -> Entries:
    """One sku whose versions come at 10, 20, 30 and so on; None deletes it."""
    entries = Entries()
    for order, title in enumerate(titles, 1):
        known = Known(10 * order, order)
        if title is None:
            entries.delete("a", known)
        else:
            entries.take(CatalogEntry(sku="a", title=title, unit_price=2.0), known)
    return entries


def titles_at(entries: Entries, *times_ms: int) -> list[str | None]:
    found = [entries.at("a", at_ms) for at_ms in times_ms]
    return [None if entry is None else entry.title for entry in found]


def test_what_was_deleted_before_a_time_is_dropped_whole_and_what_came_after_it_stays() -> None:
    gone = told("x", None)
    assert gone.forget_before(19) == 0, "at 19 it was known still"
    assert (gone.forget_before(20), gone.skus()) == (2, [])
    again = told("x", None, "y", "z")
    assert again.forget_before(25) == 2
    assert titles_at(again, 25, 30, 40) == [None, "y", "z"]
    assert again.price("a", 30) == 2.0


def test_versions_that_differ_from_the_one_before_are_kept_though_an_older_one_said_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PRICE_CHANGES", 4)
    flips = told("x", "y", "x", "y")
    entry = CatalogEntry(sku="a", title="x", unit_price=2.0)
    assert flips.take(entry, Known(50, 5)) == 2, "of five that differ the newest three stay"
    assert titles_at(flips, 20, 30, 40, 50) == [None, "x", "y", "x"]


def test_the_newest_entry_has_its_price_if_one_is_known() -> None:
    entries = told("x")
    priced = entries.whole("a")
    assert priced is not None and (priced.title, priced.unit_price) == ("x", 2.0)
    entries.take(CatalogEntry(sku="a", title="y"), Known(20, 2))
    plain = entries.whole("a")
    assert plain is not None and (plain.title, plain.unit_price) == ("y", None)
    entries.delete("a", Known(30, 3))
    assert entries.whole("a") is None
