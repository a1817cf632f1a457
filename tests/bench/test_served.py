"""What the foreign client announces and how it scores, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.foreign.cases import Case
from bench.foreign.client import LEVELS, at_levels, orders, tables
from bench.served import by_model, scores

DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000  # 2026-01-01


def shop(columns: dict[str, list[float]], ids: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    """A table of so many series, their values one after the other."""
    length = len(next(iter(columns.values()))) // len(ids)
    days = pd.date_range("2026-01-01", periods=length)
    frame = {"id": np.repeat(ids, length), "timestamp": np.tile(days, len(ids))}
    return pd.DataFrame({**frame, "kind": "x", **columns})


def case(**changes: Any) -> Case:
    """A case of two days ahead with one cutoff."""
    return replace(
        Case(
            lambda folder: pd.DataFrame(),
            horizon=2,
            cutoffs=1,
            season=1,
            static=("kind",),
            category="kind",
        ),
        **changes,
    )


def told(one: Case, frame: pd.DataFrame, topic: str) -> list[dict[str, Any]]:
    """What a topic gets, without when it was announced."""
    records = [record for name, _, record in tables(one, frame) if name == topic]
    return [{**record, "announced_at": 0} for record in records]


def days(begin: int, end: int) -> dict[str, int]:
    """The span from the start of one day to that of another."""
    return {"starts_at": FIRST_MS + begin * DAY_MS, "ends_at": FIRST_MS + end * DAY_MS}


def test_a_flag_is_told_of_the_days_on_which_it_is_up_of_each_series_that_differs() -> None:
    frame = shop({"shut": [0, 1, 1, 0, 1, 0, np.nan, 1]})
    found = told(case(flags={"shut": "closed"}), frame, "covariates")
    whom = [(record["scope"], record["starts_at"], record["ends_at"]) for record in found]
    a, b = ({"sku": name, "region": "-"} for name in "ab")
    spans = [(a, days(1, 3)), (b, days(0, 1)), (b, days(3, 4))]
    assert whom == [(scope, *span.values()) for scope, span in spans]
    assert {(record["name"], record["value"]) for record in found} == {("closed", 1.0)}


def test_where_rows_are_missing_between_others_a_shop_may_say_that_it_was_shut() -> None:
    gap = [np.nan, 0, np.nan, np.nan, 0, 1, 0, 0, 0, np.nan]
    found = told(
        case(flags={"shut": "closed"}, shut_where_missing=True), shop({"shut": gap}), "covariates"
    )
    whom = [(record["scope"]["sku"], record["starts_at"], record["ends_at"]) for record in found]
    assert whom == [("a", *days(2, 4).values()), ("b", *days(0, 1).values())]


def test_what_is_alike_in_all_series_is_told_once() -> None:
    frame = shop({"shut": [0, 1, 1, 0, np.nan, 1, 1, 0]})
    (found,) = told(case(flags={"shut": "closed"}), frame, "covariates")
    assert found["scope"] == {}
    assert (found["starts_at"], found["ends_at"]) == tuple(days(1, 3).values())


def test_a_promotion_of_all_is_told_by_category_and_a_number_also_where_it_is_0() -> None:
    frame = shop({"promo": [0, 1, 0, 1], "rain": [0.0, 3.5, 0.0, 0.0]}, ids=("a|n", "b|n"))
    one = case(promotion="promo", numbers={"rain": "rain"})
    (promotion,) = told(one, frame, "promotions")
    assert promotion["category"] == "x" and "sku" not in promotion
    assert (promotion["starts_at"], promotion["ends_at"]) == tuple(days(1, 2).values())
    found = [(record["scope"]["sku"], record["value"]) for record in told(one, frame, "covariates")]
    assert found == [("a", 0.0), ("a", 3.5), ("b", 0.0)]


def test_an_article_is_listed_from_its_first_row_on() -> None:
    frame = shop({"target": [1, 2, 3, 4]})[1:]
    found = {key: record for topic, key, record in tables(case(), frame) if topic == "catalog"}
    assert {key: record["announced_at"] for key, record in found.items()} == {
        "a": FIRST_MS + DAY_MS,
        "b": FIRST_MS,
    }
    assert found["a"]["category"] == "x" and found["a"]["attributes"] == {"kind": "x"}


def test_an_order_lies_within_its_day_and_days_without_sales_have_none() -> None:
    found = orders(case(), shop({"target": [0, 4, np.nan, 2]}))
    assert found.id.tolist() == ["a", "b"]
    assert found["at"].tolist() == [FIRST_MS + DAY_MS * 3 // 2] * 2
    assert found.units.tolist() == [4.0, 2.0]


def test_losses_are_those_worked_out_by_hand() -> None:
    # Before the cutoff a moves by 2 a day and b never: b counts in WQL, not in SQL.
    frame = shop({"target": [1, 3, 5, 10, 4, 4, 4, 4, 4, 8]})
    wide = frame.pivot(index="timestamp", columns="id", values="target")
    cut = pd.Timestamp("2026-01-04")
    flat = {(cut, "a"): np.full((2, 9), 8.0), (cut, "b"): np.full((2, 9), 4.0)}
    flat[cut, "a"][1, 0] = 6.0
    # a, first day 2 too low: twice .5 * 2. Second day: at .1 .5 .9 3.6 + 4 + .8 for 2, 4, 4 too
    # high, and at .1 to .9 3.6 + 8 * (.8 + ... + .1) = 32.4. b: 0, then twice .5 * 4.
    found = scores(case(), wide, flat, [cut])
    assert found == {
        "wql": round((2 + 8.4 / 3 + 4) / 26, 4),
        "sql": round((2 + 32.4 / 9) / 2 / 2, 4),
    }


def test_levels_that_are_not_there_lie_between_those_that_are_as_of_a_normal() -> None:
    normal = NormalDist(10, 3)
    served = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    given = np.array([[normal.inv_cdf(level) for level in served]])
    wanted = [normal.inv_cdf(level) for level in LEVELS]
    assert at_levels(given, served)[0] == pytest.approx(wanted)


def test_a_backtests_cutoff_is_named_by_the_end_of_its_last_step() -> None:
    rows = {"model": "m", "item_id": "a", "cutoff": pd.Timestamp("2026-01-03")}
    times = pd.date_range("2026-01-04", periods=2)
    made = pd.DataFrame({"timestamp": times, **{str(level): [1.0, 2.0] for level in LEVELS}})
    found = by_model(case(), made.assign(**rows)[::-1])
    assert list(found["m"]) == [(pd.Timestamp("2026-01-04"), "a")]
    assert found["m"][pd.Timestamp("2026-01-04"), "a"][:, 0].tolist() == [1.0, 2.0]
