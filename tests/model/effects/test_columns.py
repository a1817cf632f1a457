"""Columns of a table in their slots, those with gaps, odd values and odd names among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.effects.columns import (
    PRICE,
    buyable,
    find_places,
    find_scales,
    known_in_slots,
    past_in_slots,
    static_numbers,
)
from freshet.model.features import CLOSED, DISCOUNT, EVENT, FIRST_FREE, PROMOTION
from freshet.model.tables.panel import Window
from freshet.model.text import NUM_TEXT, static_features
from freshet.stream.arrays import Bools, Floats, Singles
from tests.model.tables.windows import window_of

SERIES, CONTEXT, STEPS = 3, 90, 104
NAN = np.nan
OPEN_NS = np.zeros((SERIES, STEPS), bool)


def shop(columns: dict[str, Floats], target: Floats | None = None) -> Window:
    """Three series with known columns of one value a day or one a series and day."""
    if target is None:
        target = np.random.default_rng(1).poisson(6.0, (SERIES, CONTEXT)).astype(float)
    shape = (SERIES, STEPS)
    known = [np.broadcast_to(values, shape) for values in columns.values()]
    known_NSK = np.stack(known, -1) if known else np.zeros((*shape, 0))
    window = window_of(target, horizon=STEPS - CONTEXT)
    return replace(window, known_NSK=known_NSK.astype(float), known_names=tuple(columns))


def slots(window: Window, closed_NS: Bools = OPEN_NS) -> dict[str, Singles]:
    """What the filled known slots hold."""
    known_NSK = known_in_slots(window, closed_NS, find_places(window, closed_NS))
    return {
        name: known_NSK[..., slot]
        for slot, name in enumerate(KNOWN_SLOTS)
        if np.isfinite(known_NSK[..., slot]).any()
    }


def random(seed: int) -> Floats:
    return np.random.default_rng(seed).random(STEPS)


@pytest.mark.parametrize(
    ("name", "values", "slot"),
    [
        ("Promo", random(0) * 3.0, FIRST_FREE),  # no flag
        ("holiday", random(0).round(1), FIRST_FREE),
        ("price", (random(0) > 0.5) * 2.0, FIRST_FREE),  # a price of nothing is none
        ("price", random(0) - 0.5, FIRST_FREE),
        ("discount", random(0) - 0.9, FIRST_FREE),
        ("MarkDown1", 100.0 + random(0), FIRST_FREE),
        ("promo", np.where(random(0) > 0.5, 1.0, np.where(random(1) > 0.5, 0.0, -1.0)), FIRST_FREE),
        ("price_pct_off", random(0), DISCOUNT),  # a depth before a price
        ("promo_price", random(0) + 1.0, PRICE),  # a price before a promotion
        ("holiday_sale", random(0) > 0.7, PROMOTION),
        ("BLACK_FRIDAY", random(0) > 0.7, EVENT),
    ],
)
def test_the_values_of_a_column_decide_with_its_name(name: str, values: Floats, slot: int) -> None:
    found = slots(shop({name: values * 1.0}))
    assert list(found) == [KNOWN_SLOTS[slot]]


def test_what_the_calendar_tells_is_left_out_and_what_comes_after_it_is_not() -> None:
    weekday, rain, closed_S = np.arange(STEPS) % 7, random(2), np.arange(STEPS) % 5 == 1
    assert list(slots(shop({"weekday": weekday, "rain": rain}))) == ["free_1"]
    closed_NS = np.tile(closed_S, (SERIES, 1))
    shut = shop({"shut": closed_S * 1.0, "rain": rain}, np.where(closed_NS[:, :CONTEXT], 0.0, 5.0))
    assert list(slots(shut, closed_NS)) == ["closed", "free_1"]


def test_flags_of_one_kind_are_up_when_one_is_also_where_another_is_unknown() -> None:
    mail = np.where(np.arange(STEPS) % 11 == 0, NAN, random(0) > 0.7)
    flyer = np.where(np.arange(STEPS) % 13 == 0, NAN, random(1) > 0.7)
    found = slots(shop({"promo_mail": mail, "flyer": flyer}))
    expected = [
        max((value for value in pair if value == value), default=NAN)
        for pair in zip(mail.tolist(), flyer.tolist(), strict=True)
    ]
    assert np.isnan(expected).any()
    np.testing.assert_equal(found["promotion"], np.tile(expected, (SERIES, 1)))


def test_a_depth_over_one_is_percent_for_the_whole_column() -> None:
    percent = np.where(np.arange(STEPS) % 5 == 0, 1.0, 30.0 * random(0).round(1))
    np.testing.assert_allclose(
        slots(shop({"discount": percent}))["discount"], np.tile(percent / 100, (SERIES, 1)), 1e-6
    )
    share = random(0) / random(0).max()
    np.testing.assert_allclose(
        slots(shop({"discount": share}))["discount"], np.tile(share, (SERIES, 1)), 1e-6
    )


def test_prices_are_relative_to_the_median_of_their_own_series_before_the_cutoff() -> None:
    price_NS = np.outer([1.0, 4.0, 9.0], 1.0 + random(0))
    price_NS[0, 5] = NAN
    price_NS[2, :CONTEXT] = NAN  # nothing is usual yet
    price_NS[:, CONTEXT:] *= 7.0
    found = slots(shop({"price": price_NS}))["price_ratio"]
    for row in range(2):
        seen = sorted(value for value in price_NS[row, :CONTEXT] if value == value)
        middle = len(seen) // 2
        usual = seen[middle] if len(seen) % 2 else (seen[middle - 1] + seen[middle]) / 2
        np.testing.assert_allclose(found[row], price_NS[row] / usual, rtol=1e-6)
    assert np.isnan(found[2]).all()


def test_a_flag_that_differs_from_closed_on_a_fiftieth_of_days_says_more() -> None:
    closed_NS = np.tile(np.arange(STEPS) % 5 == 1, (SERIES, 1))
    target = np.where(closed_NS[:, :CONTEXT], 0.0, 5.0)
    for name, up_S in (("open", ~closed_NS[0]), ("shut", closed_NS[0])):
        assert list(slots(shop({name: up_S * 1.0}, target), closed_NS)) == ["closed"]
        # Three of 104 days are more than a fiftieth, two are not.
        for others, more in ((2, False), (3, True)):
            other_S = up_S.copy()
            other_S[[0, 2, 3][:others]] ^= True
            found = slots(shop({name: other_S * 1.0}, target), closed_NS)
            assert (len(found) == 2) == more, (name, others)
    assert slots(shop({}), closed_NS)["closed"].tolist() == closed_NS.tolist()
    assert KNOWN_SLOTS.index("closed") == CLOSED


@pytest.mark.parametrize("rare", ["closed", "open"])
def test_of_few_closed_or_few_open_days_a_tenth_may_differ(rare: str) -> None:
    closed_S = np.arange(STEPS) % 26 == 1  # four days of 104, in each of three series
    if rare == "open":
        closed_S = ~closed_S
    closed_NS = np.tile(closed_S, (SERIES, 1))
    target = np.where(closed_NS[:, :CONTEXT], 0.0, 5.0)
    # A tenth of twelve days is more than one and less than two.
    for others, more in ((1, False), (2, True)):
        up_NS = ~closed_NS
        up_NS[0, 3 : 3 + others] ^= True
        found = slots(shop({"open": up_NS * 1.0}, target), closed_NS)
        assert (len(found) == 2) == more, others


def test_a_tenth_of_the_closed_days_says_more_than_closed() -> None:
    closed_NS = np.tile(np.arange(STEPS) % 11 == 1, (SERIES, 1))  # ten days of each
    target = np.where(closed_NS[:, :CONTEXT], 0.0, 5.0)
    for others, more in ((2, False), (3, True)):
        up_NS = closed_NS.copy()
        up_NS[0, 13 : 13 + others] ^= True
        found = slots(shop({"shut": up_NS * 1.0}, target), closed_NS)
        assert (len(found) == 2) == more, others


def test_a_column_is_not_strong_for_being_unknown_on_most_days() -> None:
    rng = np.random.default_rng(3)
    weather_NS = rng.normal(size=(SERIES, STEPS))
    noise_NS = np.where(np.arange(STEPS) % 3 == 0, rng.normal(size=(SERIES, STEPS)), NAN)
    target = np.rint(30.0 * np.exp(0.6 * weather_NS[:, :CONTEXT]))
    target[2] = NAN  # one series has sold nothing yet
    mixed_NS = weather_NS + rng.normal(size=weather_NS.shape)
    found = slots(shop({"noise": noise_NS, "mixed": mixed_NS}, target))
    np.testing.assert_allclose(found["free_1"], mixed_NS, rtol=1e-5)
    np.testing.assert_allclose(found["free_2"], noise_NS, rtol=1e-5)


def test_the_six_strongest_of_the_rest_are_kept_strongest_first_by_steps_where_both_are_known() -> (
    None
):
    rng = np.random.default_rng(2)
    weather_NS = rng.normal(size=(SERIES, STEPS))
    columns: dict[str, Floats] = {}
    for place in range(7):
        columns[f"mixed{place}"] = weather_NS + 0.5 * (7 - place) * rng.normal(size=(SERIES, STEPS))
    target = np.rint(30.0 * np.exp(0.6 * weather_NS[:, :CONTEXT]))
    target[0, ::4] = NAN
    columns["mixed6"][:, 1::4] = NAN
    columns["mixed5"][:, CONTEXT:] = 1e6
    strength = {}
    for name, values_NS in columns.items():
        sold, told = [], []
        for row in range(SERIES):
            pairs = [
                (np.log1p(target[row, step]), values_NS[row, step])
                for step in range(CONTEXT)
                if np.isfinite(target[row, step] + values_NS[row, step])
            ]
            means = np.mean(pairs, 0)
            sold += [pair[0] - means[0] for pair in pairs]
            told += [pair[1] - means[1] for pair in pairs]
        strength[name] = abs(np.corrcoef(sold, told)[0, 1])
    order = sorted(columns, key=lambda name: -strength[name])
    found = slots(shop(columns, target))
    assert list(found) == [f"free_{number}" for number in range(1, 7)]
    for name, values_NS in zip(order, found.values(), strict=False):
        np.testing.assert_allclose(values_NS, columns[name], rtol=1e-5)


def test_past_columns_take_the_slot_of_their_name_or_the_next_free_one() -> None:
    names = ("Visits", "sessions", "like_count", "added_to_basket", "on_hand", "checkout", "rain")
    past_NTP = np.random.default_rng(0).random((SERIES, CONTEXT, 7)) + 1.0
    past_NTP[1, 3, 4] = 0.0
    past_NTP[2, 5, 4] = np.inf
    window = replace(shop({}), past_NTP=past_NTP, past_names=names)
    found_NTP = past_in_slots(window)
    where = ["views", "free_1", "favourites", "carts", None, "checkouts", "free_2"]
    for column, slot in enumerate(where):
        if slot is not None:
            np.testing.assert_allclose(
                found_NTP[..., PAST_SLOTS.index(slot)], past_NTP[..., column], rtol=1e-6
            )
    stock_NT = found_NTP[..., PAST_SLOTS.index("in_stock")]
    assert stock_NT[1, 3] == 0.0 and np.isnan(stock_NT[2, 5])
    assert np.nansum(stock_NT) == SERIES * CONTEXT - 2
    assert np.isnan(found_NTP[..., PAST_SLOTS.index("free_3")]).all()


def test_only_a_step_without_stock_and_sales_counts_as_missing() -> None:
    target = np.array([[0.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, NAN]])
    plain = window_of(target, horizon=1)
    assert buyable(plain) is plain
    stock_NT = np.array([[0.0, 9.0, 0.0, 9.0], [9.0, 9.0, NAN, 0.0]])
    window = replace(plain, past_NTP=stock_NT[..., None], past_names=("on_hand",))
    expected_NT = [[NAN, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, NAN]]
    np.testing.assert_equal(buyable(window).target_NT, expected_NT)


def test_all_texts_of_a_series_are_told_and_numbers_by_rank() -> None:
    static = {
        "Brand": np.array(["acme", None, " zeta "], dtype=object),
        "list_price": np.array([2.0, NAN, 5.0]),
        "title": np.array(["red shoe", "blue hat", ""], dtype=object),
        "area": np.array([30.0, 10.0, 20.0]),
        "rooms": np.array([4.0, 4.0, NAN]),
    }
    told = replace(shop({}), static=static)
    found_NF = static_numbers(told, find_scales(told))
    texts = [" brand_acme red shoe", " blue hat", " brand_zeta"]
    prices, unknown = np.array([2.0, NAN, 5.0]), np.full(3, NAN)
    expected_NF = static_features(texts, prices, unknown)
    expected_NF[:, NUM_TEXT + 2] = [1.7, -1.7, 0.0]
    expected_NF[:, NUM_TEXT + 3] = [0.0, 0.0, NAN]
    np.testing.assert_allclose(found_NF, expected_NF, rtol=1e-6)
