"""The newest effects as of a cutoff, whatever else lies on the topic."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from freshet.model.effects.shared import SharedEffects
from freshet.online.effects.record import current_key, encoded, record_of
from freshet.online.effects.table import EffectsTable
from freshet.stream.schemas import EffectsRecord
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS

A, B = ((100 + day) * DAY_MS for day in (0, 1))


def record(as_of_ms: int, resolution_ms: int = DAY_MS, country: str | None = None) -> EffectsRecord:
    return record_of(
        SharedEffects(NAMED_SLOTS),
        resolution_ms=resolution_ms,
        as_of_ms=as_of_ms,
        num_items=1,
        offsets={},
        country=country,
    )


def put(table: EffectsTable, *records: EffectsRecord) -> list[str]:
    """As the owner does: each under its sha256, and as the pointer."""
    keys = []
    for one in records:
        key, value = encoded(one)
        table.take(key.encode(), value)
        table.take(current_key(one.resolution_ms).encode(), value)
        keys.append(key)
    return keys


def test_a_cutoff_sees_the_newest_that_looked_at_nothing_after_it() -> None:
    table = EffectsTable()
    old, new, hours = put(table, record(A), record(B), record(A, HOUR_MS))
    assert table.at(DAY_MS, A - 1) is None
    assert [table.at(DAY_MS, at).sha256 for at in (A, B - 1, B)] == [old, old, new]  # type: ignore[union-attr]
    assert table.at(HOUR_MS, B).sha256 == hours  # type: ignore[union-attr]
    assert table.at_or_after(DAY_MS, A - 1).as_of_ms == A  # type: ignore[union-attr]
    assert table.at_or_after(DAY_MS, A) == table.at(DAY_MS, A)
    assert table.at_or_after(60_000, A) is None


def test_the_pointer_alone_is_enough_and_a_tombstone_forgets() -> None:
    table = EffectsTable()
    (key,) = put(table, record(A))
    table.take(key.encode(), None)
    assert table.at(DAY_MS, A).sha256 == key  # type: ignore[union-attr]
    table.take(current_key(DAY_MS).encode(), None)
    table.take(b"never seen", None)
    assert table.at(DAY_MS, A) is None


def test_of_two_of_one_time_the_order_of_reading_does_not_decide() -> None:
    two = [record(A), msgspec.structs.replace(record(A), num_items=2)]
    tables = [EffectsTable(), EffectsTable()]
    put(tables[0], *two)
    put(tables[1], *two[::-1])
    found = [table.at(DAY_MS, A) for table in tables]
    assert found[0].sha256 == found[1].sha256  # type: ignore[union-attr]


@pytest.mark.parametrize("key", [b"0" * 64, b"current@3600000", b"current@", b"\xff", b"", None])
def test_a_record_under_a_key_that_is_not_its_own_is_refused(key: bytes | None) -> None:
    refused: list[int] = []
    table = EffectsTable(refused=lambda: refused.append(1))
    table.take(key, encoded(record(A))[1], partition=3, offset=5)
    assert table.at(DAY_MS, A) is None and len(refused) == 1


def test_bad_records_are_counted_and_change_nothing() -> None:
    refused: list[int] = []
    table = EffectsTable(latest_ms=lambda: B - 1, refused=lambda: refused.append(1))
    (key,) = put(table, record(A))
    values = [b"", b"{", b"\xff", b"null", encoded(record(B))[1]]
    for value in values:
        table.take(hashlib.sha256(value).hexdigest().encode(), value)
        table.take(current_key(DAY_MS).encode(), value)
    assert table.at(DAY_MS, B).sha256 == key and len(refused) == 2 * len(values)  # type: ignore[union-attr]


def test_effects_of_other_columns_or_another_country_are_kept_and_given_to_nobody() -> None:
    table = EffectsTable()
    other = record_of(
        SharedEffects(("price_ratio",)),
        resolution_ms=DAY_MS,
        as_of_ms=B,
        num_items=1,
        offsets={},
        country=None,
    )
    ours, *_ = put(table, record(A), other, record(B, country="DE"))
    assert table.at(DAY_MS, B).sha256 == ours  # type: ignore[union-attr]
    assert len(table.keys()) == 4
    assert EffectsTable("DE").at(DAY_MS, B) is None


def test_a_newest_record_that_fits_no_window_is_refused_once_and_the_one_before_it_used() -> None:
    refused: list[int] = []
    table = EffectsTable(refused=lambda: refused.append(1))
    (ours,) = put(table, record(A))
    broken = msgspec.structs.replace(record(B), places=[(0, 77, False)])
    put(table, broken)
    found = [table.at(DAY_MS, B) for _ in range(3)]
    assert [one and one.sha256 for one in found] == [ours] * 3 and len(refused) == 1
    assert table.named(encoded(broken)[0]) is None and len(refused) == 1
    named = table.named(ours)
    assert named is not None and named.as_of_ms == A and table.named("0" * 64) is None


def test_no_more_than_so_many_are_kept_and_the_pointer_still_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("freshet.online.effects.table.MAX_KEPT", 3)
    refused: list[int] = []
    table = EffectsTable(refused=lambda: refused.append(1))
    put(table, record(A), record(B))
    assert not refused
    (newest,) = put(table, record(B + DAY_MS))
    found = table.at(DAY_MS, B + DAY_MS)
    assert len(refused) == 1 and found is not None and found.sha256 == newest
