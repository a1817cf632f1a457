"""Promotions: which run, whom they cover, and what was known of them when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.stream.catalog import promotions
from freshet.stream.catalog.promotions import Promotions
from freshet.stream.catalog.scopes import Items
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.catalog.versions import Known
from freshet.stream.schemas import Promotion

LATER = 10**15


def promotion(name: str, starts: int, ends: int, discount: float = 0.1, **more: Any) -> Promotion:
    covers = {} if "category" in more else {"sku": "a"}
    values: dict[str, Any] = {"starts_at": starts, "ends_at": ends, "discount": discount}
    return Promotion(promotion_id=name, **values, **covers | more)


class Told(Promotions):
    """Promotions whose records come in the order of their offsets."""

    count = 0

    def tell(self, announced: Promotion, at_ms: int) -> None:
        self.count += 1
        self.take(announced, Known(at_ms, self.count))

    def withdraw(self, promotion_id: str, at_ms: int) -> None:
        self.count += 1
        self.delete(promotion_id, Known(at_ms, self.count))


def names(found: Any) -> list[str]:
    return sorted(known.promotion.promotion_id for known in found)


def covered(
    known: Promotions, span: BucketSpan, as_of_ms: int = LATER, sku: str = "a", category: str = ""
) -> tuple[list[float], list[float]]:
    """The share and the discount of each bucket of one item."""
    promoted, discount = known.cover(Items([sku], [category], [None]), span, as_of_ms)
    group = int(promoted.group_R[0])
    return promoted.values_US[group].tolist(), discount.values_US[group].tolist()


def test_a_changed_promotion_holds_from_its_own_announcement_on() -> None:
    known = Told()
    known.tell(promotion("p", 50, 60), 7)
    known.tell(promotion("p", 70, 80), 9)
    span = BucketSpan(50, 3, 10)
    assert [covered(known, span, as_of_ms)[0] for as_of_ms in (6, 7, 8, 9, LATER)] == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
        [0, 0, 1],
        [0, 0, 1],
    ]
    assert known["p"].announced_ms == 9 and known["p"].starts_ms == 70


def test_a_tombstone_withdraws_from_its_time_on_and_not_before() -> None:
    known = Told()
    known.tell(promotion("p", 50, 80), 7)
    known.withdraw("p", 65)
    known.withdraw("never known", 65)
    span = BucketSpan(50, 3, 10)
    assert covered(known, span, 64)[0] == [1, 1, 1]
    # It ran until then, so that is what its history says ever after.
    assert covered(known, span, 65)[0] == covered(known, span)[0] == [1, 0.5, 0]
    assert names(known) == [] == known.running(60)
    with pytest.raises(KeyError):
        known["p"]
    known.tell(promotion("p", 70, 80, 0.3), 66)
    assert covered(known, span, 65)[0] == [1, 0.5, 0]
    assert covered(known, span, 66) == ([0, 0, 1], [0, 0, pytest.approx(0.3)])
    assert known["p"].announced_ms == 66


def test_one_that_is_withdrawn_before_it_starts_never_ran() -> None:
    known = Told()
    known.tell(promotion("p", 50, 60), 7)
    known.withdraw("p", 8)
    assert covered(known, BucketSpan(0, 9, 10), 8)[0] == [0] * 9


def test_a_record_that_comes_again_changes_nothing() -> None:
    known = Promotions()
    for announced in (promotion("p", 10, 20), promotion("p", 10, 20)):
        known.take(announced, Known(1, 1))
    known.delete("p", Known(5, 2))
    known.delete("p", Known(5, 2))
    known.take(promotion("p", 20, 30), Known(6, 3))
    known.take(promotion("p", 10, 20), Known(1, 1))
    assert covered(known, BucketSpan(10, 2, 10), 1)[0] == [1, 0]
    assert covered(known, BucketSpan(10, 2, 10), 6)[0] == [0, 1]


def test_a_sku_is_covered_by_its_own_and_its_categorys_promotions() -> None:
    known = Told()
    known.tell(promotion("own", 0, 9), 0)
    known.tell(promotion("other", 0, 9, sku="b"), 0)
    known.tell(promotion("class", 0, 9, category="x"), 0)
    known.tell(promotion("both", 0, 9, sku="a", category="x"), 0)
    assert names(known.covering("a", "x", 0, 9)) == ["both", "class", "own"]
    assert names(known.covering("a", "", 0, 9)) == ["both", "own"]
    # One that names a sku is for that sku alone, whatever its category.
    assert names(known.covering("c", "x", 0, 9)) == ["class"]
    known.tell(promotion("class", 0, 9, sku="c"), 1)
    assert names(known.covering("a", "x", 0, 9)) == ["both", "own"]
    assert names(known.covering("c", "", 0, 9)) == ["class"]
    assert names(known.covering("c", "", 9, 10)) == []


def test_of_promotions_that_meet_the_widest_and_the_most_worth_count() -> None:
    known = Told()
    known.tell(promotion("long and small", 10, 20, 0.1), 0)
    known.tell(promotion("short and deep", 14, 19, 0.8), 0)
    known.tell(promotion("shorter and deeper", 10, 12, 1.0), 0)
    known.tell(promotion("ends at the start", 0, 10, 0.9), 0)
    known.tell(promotion("starts at the end", 30, 40, 0.9), 0)
    span = BucketSpan(start_ms=10, steps=2, resolution_ms=10)
    promoted, discount = covered(known, span)
    assert promoted == [1.0, 0.0]
    np.testing.assert_allclose(discount, [0.4, 0.0])
    assert covered(known, span, sku="b") == ([0, 0], [0, 0])


def test_each_item_gets_its_own_promotions() -> None:
    known = Told()
    known.tell(promotion("a", 0, 5, 0.2), 7)
    known.tell(promotion("b", 10, 20, 0.4, sku="b"), 8)
    known.tell(promotion("x", 0, 10, 0.1, category="x"), 8)
    span = BucketSpan(start_ms=0, steps=2, resolution_ms=10)
    items = Items(["b", "a", "c", "b"], ["", "x", "", "x"], [None] * 4)
    _, discount = known.cover(items, span, LATER)
    np.testing.assert_allclose(
        discount.values_US[discount.group_R], [[0, 0.4], [0.1, 0], [0, 0], [0.1, 0.4]]
    )


def test_running_promotions_are_in_order_of_start_and_name() -> None:
    known = Told()
    for name, starts in (("b", 5), ("a", 5), ("c", 4)):
        known.tell(promotion(name, starts, 9), 0)
    assert [found.promotion_id for found in known.running(5)] == ["c", "a", "b"]
    assert [found.promotion_id for found in known.running(4)] == ["c"]
    assert known.running(9) == []


def test_beyond_the_maximum_those_that_end_first_go_wholly_and_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(promotions, "MAX_PROMOTIONS", 3)
    known = Promotions()
    dropped = [
        known.take(promotion(name, 0, ends), Known(n, n))
        for n, (name, ends) in enumerate((("late", 30), ("early", 20), ("early", 10), ("mid", 20)))
    ]
    assert dropped == [0, 0, 0, 2]
    assert names(known) == names(known.covering("a", "", 0, 99)) == ["late", "mid"]
    assert covered(known, BucketSpan(0, 3, 10), 1)[0] == [1, 1, 1], "late alone"


def test_one_that_ended_stays_while_the_version_before_it_may_be_asked_for() -> None:
    known = Told()
    known.tell(promotion("p", 0, 90), 5)
    known.tell(promotion("p", 0, 20), 40)
    assert known.forget_before(30) == 0
    known.withdraw("p", 60)
    span = BucketSpan(30, 1, 10)
    assert [covered(known, span, as_of_ms)[0] for as_of_ms in (39, 40, 60)] == [[1], [0], [0]]


def test_what_no_later_question_needs_is_dropped_and_the_rest_stays() -> None:
    known = Told()
    known.tell(promotion("ended", 10, 20), 5)
    known.tell(promotion("runs", 10, 90), 5)
    known.tell(promotion("changed", 10, 90, 0.2), 5)
    known.tell(promotion("changed", 10, 80, 0.3), 25)
    known.tell(promotion("changes", 10, 90, 0.2), 5)
    known.tell(promotion("changes", 10, 80, 0.3), 35)
    known.tell(promotion("gone", 10, 90), 5)
    known.withdraw("gone", 30)
    span = BucketSpan(30, 6, 10)
    before = [covered(known, span, as_of_ms) for as_of_ms in (30, 35, LATER)]
    assert known.forget_before(30) == 3
    assert known.forget_before(30) == 0
    assert [covered(known, span, as_of_ms) for as_of_ms in (30, 35, LATER)] == before
    assert names(known) == ["changed", "changes", "runs"]
    known.tell(promotion("gone", 10, 90), 40)
    assert names(known) == ["changed", "changes", "gone", "runs"]
    assert known.forget_before(99) == 5 and names(known) == []
    known.tell(promotion("new", 100, 120), 99)
    assert covered(known, BucketSpan(100, 1, 10))[0] == [1]


def test_every_version_is_told_with_the_time_in_which_it_was_the_newest_word() -> None:
    known = Told()
    known.tell(promotion("p", 50, 80), 7)
    known.tell(promotion("p", 50, 60), 55)
    known.tell(promotion("q", 70, 90), 9)
    known.withdraw("q", 75)
    known.tell(promotion("later", 95, 99), 9)
    forever = 2**62

    def told(from_ms: int, to_ms: int) -> list[tuple[str, int, int, int, int]]:
        return sorted(
            (one.promotion.promotion_id, *one[1:]) for one in known.versions(from_ms, to_ms)
        )

    assert told(60, 95) == [("p", 50, 80, 7, 55), ("q", 70, 90, 9, 75)]
    assert told(59, 60) == [("p", 50, 60, 55, forever), ("p", 50, 80, 7, 55)]
    assert told(95, 96) == [("later", 95, 99, 9, forever)]
