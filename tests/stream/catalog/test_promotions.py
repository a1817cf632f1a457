"""Promotions: which run, whom they cover, and what could be known of them when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.stream.catalog import promotions
from freshet.stream.catalog.promotions import Promotions
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.errors import EventError
from freshet.stream.schemas import Promotion


def promotion(name: str, starts: int, ends: int, discount: float = 0.1, **more: Any) -> Promotion:
    covers = {} if "category" in more else {"sku": "a"}
    values: dict[str, Any] = {"starts_at": starts, "ends_at": ends, "discount": discount}
    return Promotion(promotion_id=name, **values, **covers | more)


def names(found: Any) -> list[str]:
    return sorted(known.promotion.promotion_id for known in found)


def test_a_promotion_is_known_from_its_first_record_on_whichever_came_first() -> None:
    known = Promotions()
    assert known.take(promotion("p", 50, 60), 7) == "p"
    known.take(promotion("p", 52, 62), 9)
    assert (known["p"].announced_ms, known["p"].starts_ms, known["p"].ends_ms) == (7, 52, 62)
    known.take(promotion("p", 54, 64), 5)
    assert (known["p"].announced_ms, known["p"].starts_ms) == (5, 54)


def test_once_deleted_it_is_announced_anew() -> None:
    known = Promotions()
    known.take(promotion("p", 50, 60), 7)
    known.drop("p")
    known.drop("never known")
    known.take(promotion("p", 50, 60), 9)
    assert known["p"].announced_ms == 9


def test_a_sku_is_covered_by_its_own_and_its_categorys_promotions() -> None:
    known = Promotions()
    known.take(promotion("own", 0, 9), 0)
    known.take(promotion("other", 0, 9, sku="b"), 0)
    known.take(promotion("class", 0, 9, category="x"), 0)
    known.take(promotion("both", 0, 9, sku="a", category="x"), 0)
    assert names(known.covering("a", "x")) == ["both", "class", "own"]
    assert names(known.covering("a", "")) == ["both", "own"]
    # One that names a sku is for that sku alone, whatever its category.
    assert names(known.covering("c", "x")) == ["class"]
    assert known["both"].covered == ("sku", "a") and known["class"].covered == ("category", "x")
    known.take(promotion("class", 0, 9, sku="c"), 1)
    assert names(known.covering("a", "x")) == ["both", "own"]
    assert names(known.covering("c", "")) == ["class"]


def test_of_promotions_that_meet_the_widest_and_the_most_worth_count() -> None:
    known = Promotions()
    known.take(promotion("long and small", 10, 20, 0.1), 0)
    known.take(promotion("short and deep", 14, 19, 0.8), 0)
    known.take(promotion("shorter and deeper", 10, 12, 1.0), 0)
    known.take(promotion("ends at the start", 0, 10, 0.9), 0)
    known.take(promotion("starts at the end", 30, 40, 0.9), 0)
    span = BucketSpan(start_ms=10, steps=2, resolution_ms=10)
    promoted_RS, discount_RS = known.cover(["a", "b"], ["", ""], span, as_of_ms=99)
    assert promoted_RS.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(discount_RS, [[0.4, 0.0], [0.0, 0.0]])


def test_each_row_gets_its_own_promotions_and_only_those_that_were_announced() -> None:
    known = Promotions()
    known.take(promotion("a", 0, 5, 0.2), 7)
    known.take(promotion("b", 10, 20, 0.4, sku="b"), 8)
    span = BucketSpan(start_ms=0, steps=2, resolution_ms=10)

    def depths(as_of_ms: int) -> list[list[float]]:
        found: list[list[float]] = known.cover(["b", "a"], ["", ""], span, as_of_ms)[1].tolist()
        return found

    assert depths(6) == [[0.0, 0.0], [0.0, 0.0]]
    assert depths(7) == [[0.0, 0.0], [0.1, 0.0]]
    assert depths(8) == [[0.0, 0.4], [0.1, 0.0]]


def test_running_promotions_are_in_order_of_start_and_name() -> None:
    known = Promotions()
    for name, starts in (("b", 5), ("a", 5), ("c", 4)):
        known.take(promotion(name, starts, 9), 0)
    assert [found.promotion_id for found in known.running(5)] == ["c", "a", "b"]
    assert [found.promotion_id for found in known.running(4)] == ["c"]
    assert known.running(9) == []


def test_beyond_the_maximum_the_one_that_ends_first_goes_wholly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(promotions, "MAX_PROMOTIONS", 2)
    known = Promotions()
    for name, ends in (("late", 30), ("early", 10), ("middle", 20)):
        known.take(promotion(name, 0, ends), 0)
    assert names(known) == names(known.covering("a", "")) == ["late", "middle"]


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_no_discount_and_everything_for_nothing_are_shares(discount: float) -> None:
    known = Promotions()
    known.take(promotion("p", 0, 1, discount), 0)
    assert known["p"].promotion.discount == discount


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (promotion("p", 5, 5), "ends at 5, not after its start 5"),
        (promotion("p", 6, 5), "ends at 5, not after its start 6"),
        (promotion("p", 5, 6, -0.1), "a share, 0 to 1"),
        (promotion("p", 5, 6, 1.1), "a share, 0 to 1"),
        (promotion("p", 5, 6, float("nan")), "a share, 0 to 1"),
        (promotion("p", 5, 6, sku=None), "neither a sku nor a category"),
    ],
)
def test_what_is_wrong_leaves_what_was_known(wrong: Promotion, message: str) -> None:
    known = Promotions()
    known.take(promotion("p", 0, 9), 3)
    with pytest.raises(EventError, match=message):
        known.take(wrong, 4)
    assert (known["p"].starts_ms, known["p"].ends_ms) == (0, 9)
