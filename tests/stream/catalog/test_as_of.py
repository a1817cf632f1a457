"""What was known at a time follows from the records known by then, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.catalog.tables import ShopTables
from freshet.stream.catalog.timeline import BucketSpan

ITEMS = ["a|n", "a|s", "b|n", "c|n"]
SPANS = [BucketSpan(0, 8, 5), BucketSpan.between([2, 9, 10, 21, 33]), BucketSpan(15, 3, 7)]


class Told(NamedTuple):
    """One record of the log."""

    table: Any
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp_ms: int
    known_ms: int


TIMES = st.integers(0, 30)
SKUS = st.sampled_from(["a", "b"])
REGIONS = st.sampled_from(["n", "s", None])
INTERVAL = {"starts_at": st.integers(0, 25), "length": st.integers(1, 20)}
FIELDS = {
    "catalog": st.fixed_dictionaries(
        {"sku": SKUS, "title": st.sampled_from(["", "T"]), "category": st.sampled_from(["x", "y"])},
        optional={"unit_price": st.sampled_from([1.0, 2.0, 5.0]), "launched_at": TIMES},
    ),
    "promotions": st.fixed_dictionaries(
        {"promotion_id": st.sampled_from(["p", "q"]), "discount": st.sampled_from([0.1, 0.5])}
        | INTERVAL
    ).flatmap(
        lambda fields: st.sampled_from([{"sku": "a"}, {"sku": "b"}, {"category": "x"}]).map(
            lambda covers: fields | covers
        )
    ),
    "inventory": st.fixed_dictionaries(
        {"sku": SKUS, "region": REGIONS, "on_hand": st.sampled_from([0, 4]), "as_of": TIMES}
    ),
    "covariates": st.fixed_dictionaries(
        {
            "covariate_id": st.sampled_from(["c", "d", "e"]),
            "name": st.sampled_from(["closed", "event", "free_1"]),
            "value": st.sampled_from([0.1, 0.3, 1.0]),
            "scope": st.sampled_from([{}, {"sku": "a"}, {"category": "y"}, {"region": "n"}]),
        }
        | INTERVAL
    ),
}
IDENTITY = {
    "catalog": ("sku",),
    "promotions": ("promotion_id",),
    "inventory": ("sku", "region"),
    "covariates": ("covariate_id",),
}


@st.composite
def logs(draw: st.DrawFn) -> list[Told]:
    """A log of two partitions a topic; the records of one key share a partition."""
    log = []
    for offset in range(draw(st.integers(0, 12))):
        table = draw(st.sampled_from(list(FIELDS)))
        fields = draw(FIELDS[table])
        starts_at, length = fields.get("starts_at"), fields.pop("length", None)
        if length is not None:
            fields["ends_at"] = starts_at + length
        # Now and then one thing is named by two keys.
        key = "/".join(str(fields[name]) for name in IDENTITY[table]) + draw(
            st.sampled_from(["", "", "", "'"])
        )
        timestamp_ms = draw(TIMES)
        announced_ms = draw(st.none() | TIMES)
        deleted = draw(st.integers(0, 3)) == 0
        if announced_ms is not None:
            fields["announced_at"] = announced_ms
        known_ms = timestamp_ms if deleted or announced_ms is None else announced_ms
        value = None if deleted else json.dumps(fields).encode()
        partition = sum(key.encode()) % 2
        log.append(Told(table, partition, offset, key.encode(), value, timestamp_ms, known_ms))
    return log


def fed(log: Iterable[Told], series_by: Sequence[str] = ("sku", "region")) -> ShopTables:
    shop = ShopTables(series_by)
    for one in log:
        place = {"offset": one.offset, "partition": one.partition}
        shop.take(one.table, one.key, one.value, one.timestamp_ms, **place)
    return shop


def answers(shop: ShopTables, cutoff_ms: int, spans: Sequence[BucketSpan] = SPANS) -> list[Any]:
    """Every question as of a time, as bytes."""
    found: list[Any] = [
        shop.texts(ITEMS, as_of_ms=cutoff_ms),
        shop.categories(ITEMS, as_of_ms=cutoff_ms),
        sorted(shop.skus(as_of_ms=cutoff_ms)),
        shop.launched_ms(ITEMS, as_of_ms=cutoff_ms).tobytes(),
        shop.unit_prices(ITEMS, as_of_ms=cutoff_ms).tobytes(),
    ]
    for span in spans:
        found.append(shop.known(ITEMS, span, as_of_ms=cutoff_ms).tobytes())
        found.append(shop.in_stock(ITEMS, span, as_of_ms=cutoff_ms).tobytes())
    return found


@settings(deadline=None, max_examples=100)
@given(logs(), st.integers(0, 31), st.sampled_from([("sku", "region"), ("sku",)]))
def test_the_whole_log_answers_bit_for_bit_as_what_was_known_by_then(
    log: list[Told], cutoff_ms: int, series_by: Sequence[str]
) -> None:
    by_then = [one for one in log if one.known_ms <= cutoff_ms]
    assert answers(fed(log, series_by), cutoff_ms) == answers(fed(by_then, series_by), cutoff_ms)


@settings(deadline=None, max_examples=100)
@given(
    logs().flatmap(lambda log: st.tuples(st.just(log), st.permutations(log))), st.integers(0, 31)
)
def test_the_order_in_which_records_are_taken_in_changes_no_bit(
    both: tuple[list[Told], list[Told]], cutoff_ms: int
) -> None:
    log, shuffled = both
    expected = answers(fed(log), cutoff_ms)
    assert answers(fed(shuffled), cutoff_ms) == expected
    by_partition = sorted(log, key=lambda one: (one.table, one.partition))
    assert answers(fed([*by_partition, *log[:3]]), cutoff_ms) == expected, "and some came again"


@settings(deadline=None, max_examples=100)
@given(logs(), st.integers(0, 31), st.integers(0, 20), st.integers(0, 20))
def test_what_is_dropped_before_a_time_changes_no_answer_about_later_ones(
    log: list[Told], before_ms: int, start_ms: int, wait_ms: int
) -> None:
    spans = [BucketSpan(before_ms + start_ms, 4, 6)]
    shop = fed(log)
    expected = answers(shop, before_ms + wait_ms, spans)
    shop.forget_before(before_ms)
    assert answers(shop, before_ms + wait_ms, spans) == expected
    # What comes afterwards finds its place all the same.
    later = [one._replace(offset=99, timestamp_ms=60, known_ms=60) for one in log if not one.value]
    for one in later:
        place = {"offset": one.offset, "partition": one.partition}
        shop.take(one.table, one.key, one.value, one.timestamp_ms, **place)
    assert answers(shop, 61, spans) == answers(fed([*log, *later]), 61, spans)


def test_a_record_without_announced_at_is_known_from_its_timestamp_on() -> None:
    shop = ShopTables()
    shop.take("catalog", b"a", b'{"sku": "a", "unit_price": 4}', 20)
    shop.take("catalog", b"a", b'{"sku": "a", "unit_price": 2, "announced_at": 10}', 30)
    prices = [shop.unit_prices(["a|n"], as_of_ms=at_ms)[0] for at_ms in (9, 10, 19, 20, 99)]
    np.testing.assert_equal(prices, np.array([np.nan, 2, 2, 4, 4], np.float32))
