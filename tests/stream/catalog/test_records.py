"""Which records of the shop's tables can be used, and from when on each is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.stream.catalog.records import announced_ms, usable
from freshet.stream.errors import EventError
from freshet.stream.schemas import Covariate, CovariateScope, Record
from freshet.stream.slots import covariate_slots

COVARIATE = {"covariate_id": "c", "name": "closed", "starts_at": 5, "ends_at": 9}
SALE = {"promotion_id": "p", "starts_at": 5, "ends_at": 9, "discount": 0.1, "sku": "a"}


def read(table: Any, fields: dict[str, Any], **given: Any) -> Record:
    return usable(table, json.dumps(fields).encode(), **given)


def test_a_record_is_known_from_what_it_says_on_else_from_its_timestamp() -> None:
    for table, fields in (
        ("catalog", {"sku": "a"}),
        ("promotions", SALE),
        ("inventory", {"sku": "a", "on_hand": 1, "as_of": 3}),
        ("covariates", COVARIATE),
    ):
        assert announced_ms(read(table, fields), 70) == 70
        assert announced_ms(read(table, fields | {"announced_at": 4}), 70) == 4
        text = {"announced_at": "1970-01-01T00:00:00.006Z"}
        assert announced_ms(read(table, fields | text, latest_ms=6), 70) == 6
        with pytest.raises(EventError, match="the clock has not reached"):
            read(table, fields | text, latest_ms=5)


def test_a_covariate_says_whom_it_is_about_and_is_worth_one_unless_it_says_more() -> None:
    covariate = read("covariates", COVARIATE)
    assert isinstance(covariate, Covariate)
    assert covariate.value == 1.0 and covariate.scope == CovariateScope()
    scoped = read("covariates", COVARIATE | {"scope": {"region": "n"}, "value": 0.25})
    assert isinstance(scoped, Covariate)
    assert (scoped.scope.sku, scoped.scope.region, scoped.value) == (None, "n", 0.25)


@pytest.mark.parametrize("name", ["event", "holiday", "closed", "free_1", "free_6", "rain"])
def test_a_covariate_is_called_by_a_slot_or_by_a_name_that_the_settings_map(name: str) -> None:
    slots = covariate_slots({}, {"rain": "free_1"})
    assert read("covariates", COVARIATE | {"name": name}, slots=slots)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "effect"}, "no covariate may tell"),
        ({"name": "price_ratio"}, "no covariate may tell"),
        ({"name": "promotion"}, "no covariate may tell"),
        ({"name": "discount"}, "no covariate may tell"),
        ({"name": "rain"}, "expected one of closed, event, free_1"),
        ({"name": ""}, "expected one of"),
        ({"ends_at": 5}, "not after its start 5"),
        ({"starts_at": "soon"}, "not an RFC 3339 time"),
        ({"value": 1.5}, "a share, 0 to 1"),
        ({"value": -0.5}, "a share, 0 to 1"),
        ({"name": "free_1", "value": 1e16}, "<= 1000000000000000.0"),
        ({"value": None}, "Expected `float`"),
        ({"scope": {"store": "x"}}, "unknown field"),
        ({"scope": {"category": ""}}, "length >= 1"),
        ({"scope": None}, "Expected `object`"),
        ({"announced_at": "today"}, "not an RFC 3339 time"),
    ],
)
def test_a_covariate_that_cannot_be_used_is_refused(changed: Any, message: str) -> None:
    with pytest.raises(EventError, match=message):
        read("covariates", COVARIATE | changed)


@pytest.mark.parametrize("discount", [-0.01, 0, 1, 1.01])
def test_a_discount_is_a_share_and_may_be_nothing_or_all(discount: float) -> None:
    if 0 <= discount <= 1:
        assert read("promotions", SALE | {"discount": discount})
    else:
        with pytest.raises(EventError, match="a share, 0 to 1"):
            read("promotions", SALE | {"discount": discount})


def test_a_number_may_be_any() -> None:
    assert read("covariates", COVARIATE | {"name": "free_1", "value": -273.15})
