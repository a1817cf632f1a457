"""Which column goes to which slot, and that a batch as of an earlier cutoff knows nothing later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.effects.closed import closed_steps
from freshet.model.effects.columns import PRICE
from freshet.model.effects.shared import shared_effects
from freshet.model.effects.slots import dress
from freshet.model.features import CLOSED, DISCOUNT, EFFECT, EVENT, FIRST_FREE, PROMOTION
from freshet.model.tables.panel import Window
from freshet.model.text import NUM_TEXT
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import earlier, window_of

ITEMS, STEPS, HORIZON = 3, 90, 14
DAYS = np.arange(STEPS + HORIZON)


def shop(
    columns: dict[str, np.ndarray] | None = None, *, target: np.ndarray | None = None
) -> Window:
    """Three series of 90 days with known columns of one value per day."""
    columns = columns or {}
    if target is None:
        target = np.random.default_rng(1).poisson(6.0, (ITEMS, STEPS)).astype(float)
    known = np.zeros((len(target), len(DAYS), len(columns)))
    for index, values in enumerate(columns.values()):
        known[..., index] = values
    return replace(window_of(target, horizon=HORIZON), known_NSK=known, known_names=tuple(columns))


def rare(seed: int, share: float = 0.2) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(DAYS)) < share).astype(float)


def filled(window: Window) -> set[str]:
    """Names of the known slots that hold anything."""
    known_NSK = dress(window).known_NSK
    return {
        name for slot, name in enumerate(KNOWN_SLOTS) if np.isfinite(known_NSK[..., slot]).any()
    } - {"effect"}


def test_a_flag_under_which_nothing_sells_goes_to_closed_alone() -> None:
    opened = 1.0 - rare(3)
    target = np.where(opened[:STEPS] > 0, 7.0, 0.0) * np.ones((ITEMS, 1))
    dressed = dress(shop({"open": opened}, target=target))
    assert np.array_equal(dressed.known_NSK[0, :, CLOSED], 1.0 - opened)
    assert filled(shop({"open": opened}, target=target)) == {"closed"}


def test_few_closed_days_take_no_other_flag_with_them() -> None:
    day = np.arange(STEPS * 3 + HORIZON)
    opened, promo, price = (day % 90 != 20) * 1.0, (day % 137 == 10) * 1.0, 5.0 + (day % 30 > 25)
    target = np.where(opened[: STEPS * 3] > 0, 7.0, 0.0) * np.ones((5, 1))
    window = window_of(target, horizon=HORIZON)
    known = np.tile(np.stack([opened, promo, price], -1), (5, 1, 1))
    names = filled(replace(window, known_NSK=known, known_names=("open", "promo", "price")))
    assert names == {"closed", "promotion", "price_ratio"}


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        ("Promo", PROMOTION),
        ("on_sale", PROMOTION),
        ("promo=yes", PROMOTION),
        ("StateHoliday=a", EVENT),
        ("is_holiday", EVENT),
        ("discount", DISCOUNT),
        ("promo_depth", DISCOUNT),
        ("SchoolHoliday", FIRST_FREE),
        ("school_holiday", FIRST_FREE),
        ("StateHoliday=0", FIRST_FREE),
        ("promo=none", FIRST_FREE),
        ("discount=no", FIRST_FREE),
        ("rain", FIRST_FREE),
    ],
)
def test_a_flag_goes_to_the_slot_that_its_name_asks_for(name: str, slot: int) -> None:
    values = rare(4)
    dressed = dress(shop({name: values}))
    assert filled(shop({name: values})) == {KNOWN_SLOTS[slot]}
    assert np.array_equal(dressed.known_NSK[1, :, slot], values)


def test_two_promotions_share_a_slot_and_their_absence_does_not_hide_them() -> None:
    mail, flyer = rare(5), rare(6)
    known_NSK = dress(
        shop({"promo=mail": mail, "promo=none": 1.0 - np.maximum(mail, flyer), "flyer": flyer})
    ).known_NSK
    assert np.array_equal(known_NSK[0, :, PROMOTION], np.maximum(mail, flyer))


def test_prices_are_relative_to_the_usual_one_before_the_cutoff() -> None:
    price = np.where(DAYS < STEPS, 4.0, 2.0)
    assert np.allclose(dress(shop({"price": price})).known_NSK[..., PRICE], price / 4.0)


def test_a_second_price_does_not_overwrite_the_first() -> None:
    price, cost = 4.0 + rare(7), 9.0 + rare(8)
    known_NSK = dress(shop({"price": price, "unit_cost": cost})).known_NSK
    assert np.allclose(known_NSK[0, :, PRICE], price / 4.0)
    assert np.allclose(known_NSK[0, :, FIRST_FREE], cost)


def test_discounts_in_percent_become_shares() -> None:
    assert np.allclose(
        dress(shop({"discount": 30.0 * rare(9)})).known_NSK[0, :, DISCOUNT], 0.3 * rare(9)
    )


@pytest.mark.parametrize(
    "values", [DAYS % 7, DAYS % 7 == 2, np.ones(len(DAYS)), np.full(len(DAYS), np.nan)]
)
def test_columns_that_the_calendar_tells_or_that_tell_nothing_are_dropped(
    values: np.ndarray,
) -> None:
    assert filled(shop({"DayOfWeek": values * 1.0})) == set()


def test_a_table_too_short_to_repeat_its_calendar_keeps_its_flags() -> None:
    window = shop({"promo": rare(4, 0.5)})
    short = replace(
        window.rows(slice(1)),
        time_ms_NS=window.time_ms_NS[:1, :7],
        target_NT=window.target_NT[:1, :5],
        known_NSK=window.known_NSK[:1, :7],
        past_NTP=window.past_NTP[:1, :5],
    )
    assert filled(short) == {"promotion"}


def test_more_than_six_free_columns_keep_the_strongest() -> None:
    rng = np.random.default_rng(2)
    columns = {f"noise{index}": rng.normal(size=len(DAYS)) for index in range(7)}
    columns["weather"] = rng.normal(size=len(DAYS))
    target = np.rint(20.0 * np.exp(0.5 * columns["weather"][:STEPS])) * np.ones((ITEMS, 1))
    dressed = dress(shop(columns, target=target))
    assert np.allclose(dressed.known_NSK[0, :, FIRST_FREE], columns["weather"].astype(np.float32))
    assert (
        np.isfinite(dressed.known_NSK).all((0, 1)).sum()
        - np.isfinite(dressed.known_NSK[..., EFFECT]).all()
        == 6
    )


def test_amounts_are_scaled_up_and_counts_and_large_amounts_are_not() -> None:
    amounts = np.full((2, STEPS), 0.125) + 0.01 * rare(1)[:STEPS]
    dressed = dress(shop(target=amounts * np.array([[1.0], [1e6]])))
    assert dressed.target_NT[0].mean() == pytest.approx(100.0, rel=1e-4)
    assert dressed.factor_N[1] == 1.0
    assert (dress(shop()).factor_N == 1.0).all()


def test_what_all_series_share_does_not_depend_on_the_unit_of_amounts() -> None:
    day = np.arange(760)
    sales = (
        0.02
        * np.exp(0.7 * (day % 365 > 345))
        * (1.0 + 0.1 * np.sin(day * 1.7))
        * np.ones((ITEMS, 1))
    )
    small = dress(window_of(sales, horizon=HORIZON)).known_NSK[..., EFFECT]
    smaller = dress(window_of(sales / 8.0, horizon=HORIZON)).known_NSK[..., EFFECT]
    assert np.nanmax(np.abs(small)) > 0.1
    assert np.allclose(small, smaller, atol=1e-4)


def test_past_columns_go_by_name_and_the_rest_to_free_slots_until_they_are_full() -> None:
    names = ("visits", "basket_adds", "stock_level", "wind", "rain", "sun", "snow")
    past = np.arange(ITEMS * STEPS * len(names), dtype=float).reshape(ITEMS, STEPS, len(names))
    past[0, 0] = np.nan
    dressed = dress(replace(shop(), past_NTP=past, past_names=names))
    for slot, column in (("views", 0), ("carts", 1), ("free_1", 3), ("free_2", 4), ("free_3", 5)):
        assert np.array_equal(
            dressed.past_NTP[..., PAST_SLOTS.index(slot)], past[..., column], equal_nan=True
        )
    stock_NT = dressed.past_NTP[..., PAST_SLOTS.index("in_stock")]
    assert np.isnan(stock_NT[0, 0]) and (stock_NT[1:] == 1.0).all()


def test_static_columns_become_text_price_and_ranks() -> None:
    static = {
        "brand": np.array(["acme", None, "zeta"], dtype=object),
        "price": np.array([np.e, np.nan, 1.0]),
        "area": np.array([10.0, 30.0, np.nan]),
    }
    static_NF = dress(replace(shop(), static=static)).static_NF
    assert (np.abs(static_NF[:, :NUM_TEXT]).sum(1) > 0).tolist() == [True, False, True]
    assert np.allclose(static_NF[:, NUM_TEXT], [1.0, np.nan, 0.0], equal_nan=True)
    assert np.allclose(static_NF[:, NUM_TEXT + 2], [-1.7, 1.7, np.nan], equal_nan=True)


def test_a_batch_as_of_an_earlier_cutoff_is_the_earlier_window_and_knows_nothing_later() -> None:
    window = replace(
        shop({"promo": rare(4)}), past_NTP=np.ones((ITEMS, STEPS, 1)), past_names=("visits",)
    )
    before, then = earlier(window, 20)
    poisoned = dress(window)
    poisoned.target_NT[:, STEPS - 20 :] = -1e9
    poisoned.past_NTP[:, STEPS - 20 :] = -1e9
    rows, ends = np.arange(ITEMS), np.full(ITEMS, STEPS - 20)
    found, _ = poisoned.batch(rows, ends, context=96, horizon=HORIZON)
    expected, _ = dress(before).batch(rows, ends, context=96, horizon=HORIZON)
    assert found.target_BT[:, : 96 - (STEPS - 20)].isnan().all()
    # Effects that series share are the whole window's by intent; they are tested apart.
    found.known_BSK[..., EFFECT] = expected.known_BSK[..., EFFECT] = 0.0
    for name in ("target_BT", "past_BTP", "known_BSK", "static_BF", "start_ms_B"):
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name
    _, actual_BH = dress(window).batch(rows, ends, context=96, horizon=HORIZON)
    assert np.array_equal(actual_BH, then)


def test_beyond_the_window_nothing_is_known() -> None:
    dressed = dress(shop({"promo": rare(4)}))
    batch, actual_BH = dressed.batch(
        np.array([2]), np.array([STEPS]), context=16, horizon=HORIZON + 2
    )
    assert (
        batch.known_BSK[0, :-2, PROMOTION].isfinite().all()
        and batch.known_BSK[0, -2:].isnan().all()
    )
    assert actual_BH.isnan().all()
    assert batch.start_ms_B.tolist() == [(STEPS - 16) * DAY_MS]


def test_a_history_of_one_step_is_padded_as_any_other() -> None:
    dressed = dress(window_of(np.array([[5.0]]), horizon=2))
    batch, _ = dressed.batch(np.array([0]), np.array([1]), context=3, horizon=2)
    np.testing.assert_equal(batch.target_BT.numpy(), [[np.nan, np.nan, 5.0]])


def test_training_gets_the_effects_that_no_step_had_a_part_in() -> None:
    dressed = replace(dress(shop()), taught_NS=np.full((ITEMS, len(DAYS)), 0.25, np.float32))
    rows, ends = np.arange(ITEMS), np.full(ITEMS, 50)
    taught, _ = dressed.batch(rows, ends, context=16, horizon=16, train=True)
    used, _ = dressed.batch(rows, ends, context=16, horizon=16)
    assert (taught.known_BSK[..., EFFECT] == 0.25).all()
    assert not (used.known_BSK[..., EFFECT] == 0.25).any()


def test_what_is_usual_and_what_is_strong_is_told_by_the_past_alone() -> None:
    # Five times as many days ahead as behind: a median over all of them would be theirs.
    steps, horizon = 30, 150
    rng = np.random.default_rng(3)
    price_S = np.where(np.arange(steps + horizon) < steps, 4.0, 2.0)
    price_S[3] = 5.0
    weather_S, noise_S = rng.normal(size=(2, steps + horizon))
    target_T = np.rint(50.0 * np.exp(-0.8 * weather_S[:steps]))
    window = replace(
        window_of(np.tile(target_T, (2, 1)), horizon=horizon),
        known_NSK=np.tile(np.stack([price_S, noise_S, weather_S], -1), (2, 1, 1)),
        known_names=("price", "noise", "weather"),
    )
    known_NSK = dress(window).known_NSK
    np.testing.assert_allclose(known_NSK[0, :, PRICE], price_S / 4.0)
    # What goes against sales is as strong as what goes with them.
    np.testing.assert_allclose(known_NSK[0, :, FIRST_FREE], weather_S, rtol=1e-6)
    np.testing.assert_allclose(known_NSK[0, :, FIRST_FREE + 1], noise_S, rtol=1e-6)


def test_a_column_that_only_tells_the_series_apart_is_not_strong() -> None:
    rng = np.random.default_rng(4)
    size_N1 = np.array([[1.0], [2.0], [3.0]])
    size_NS = size_N1 * np.ones((1, len(DAYS))) + 0.01 * rng.normal(size=(ITEMS, len(DAYS)))
    weather_NS = rng.normal(size=(ITEMS, len(DAYS)))
    target = np.rint(np.exp(2.0 * size_N1 + 0.3 * weather_NS[:, :STEPS]))
    window = replace(
        window_of(target, horizon=HORIZON),
        known_NSK=np.stack([size_NS, weather_NS], -1),
        known_names=("size", "weather"),
    )
    np.testing.assert_allclose(dress(window).known_NSK[..., FIRST_FREE], weather_NS, rtol=1e-5)


@pytest.mark.parametrize("kind", ["weekday", "month", "hour"])
def test_what_repeats_the_calendar_is_dropped_only_after_two_cycles(kind: str) -> None:
    cycle_days = {"weekday": 7, "month": 366, "hour": 1}[kind]
    resolution_ms = DAY_MS if kind == "month" else DAY_MS // 4
    a_day = DAY_MS // resolution_ms
    for steps, dropped in ((2 * cycle_days * a_day + 1, True), (2 * cycle_days * a_day - 2, False)):
        time_S = np.arange(steps + 1) * resolution_ms
        months = time_S.astype("datetime64[ms]").astype("datetime64[M]").astype(int) % 12
        told_S = {"weekday": time_S // DAY_MS % 7 == 2, "month": months < 2,
                  "hour": time_S % DAY_MS == 0}[kind]  # fmt: skip
        window = replace(
            window_of(np.full((1, steps), 3.0), horizon=1),
            resolution_ms=resolution_ms,
            time_ms_NS=time_S[None],
            known_NSK=told_S[None, :, None] * 1.0,
            known_names=("rain",),
        )
        assert filled(window) == (set() if dropped else {"free_1"}), steps


def test_padding_and_cut_steps_of_a_batch_are_those_asked_for() -> None:
    target = np.arange(float(ITEMS * STEPS)).reshape(ITEMS, STEPS)
    dressed = dress(shop({"promo": rare(4)}, target=target))
    rows, ends = np.array([2, 0]), np.array([5, STEPS - 1])
    batch, actual_BH = dressed.batch(rows, ends, context=7, horizon=3)
    gap = np.nan
    np.testing.assert_equal(
        batch.target_BT.numpy(), [[gap, gap, 180, 181, 182, 183, 184], [82, 83, 84, 85, 86, 87, 88]]
    )
    np.testing.assert_equal(actual_BH.numpy(), [[185, 186, 187], [89, gap, gap]])
    assert batch.start_ms_B.tolist() == [-2 * DAY_MS, 82 * DAY_MS]
    promo_BS = batch.known_BSK[..., PROMOTION].numpy()
    np.testing.assert_equal(promo_BS[1], rare(4)[82:92])
    np.testing.assert_equal(promo_BS[0], [gap, gap, *rare(4)[:8]])


def test_the_clock_of_a_batch_is_the_windows_and_goes_on_evenly_beyond_it() -> None:
    hour_ms = DAY_MS // 24
    # Clocks go on by an hour on day 50, and each series has a minute of its own.
    clock_NS = np.array(
        [[day * DAY_MS + (day >= 50) * hour_ms + row for day in DAYS] for row in range(ITEMS)]
    )
    dressed = replace(dress(shop()), local_ms_NS=clock_NS)
    rows, ends = np.array([2, 0]), np.array([2, STEPS + HORIZON - 1])
    batch, _ = dressed.batch(rows, ends, context=4, horizon=3)
    assert batch.local_ms_BS is not None
    assert batch.local_ms_BS.tolist() == [
        [day * DAY_MS + 2 for day in range(-2, 5)],
        [day * DAY_MS + hour_ms for day in range(99, 106)],
    ]
    assert dress(shop()).batch(rows, ends, context=4, horizon=3)[0].local_ms_BS is None


def test_a_forecast_and_training_get_their_own_effects() -> None:
    days = np.arange(430)
    target = np.rint(40.0 * np.exp(0.5 * (days % 365 > 345) + 0.2 * np.sin(days)))
    window = window_of(np.tile(target[:416], (ITEMS, 1)), horizon=HORIZON)
    known_NS, taught_NS = shared_effects(window, closed_steps(window))
    assert np.abs(known_NS - taught_NS).max() > 0.1
    dressed = dress(window)
    np.testing.assert_allclose(dressed.known_NSK[..., EFFECT], known_NS, atol=1e-6)
    np.testing.assert_allclose(dressed.taught_NS, taught_NS, atol=1e-6)
    no_effect = dress(window_of(np.full((ITEMS, 20), 5.0), horizon=HORIZON))
    assert np.isnan(no_effect.known_NSK[..., EFFECT]).all(), "the slot counts as empty"


def test_a_batch_row_has_the_static_features_of_its_series() -> None:
    static = {"area": np.array([1.0, 3.0, 2.0])}
    dressed = dress(replace(shop(), static=static))
    batch, _ = dressed.batch(np.array([1, 2]), np.array([9, 9]), context=4, horizon=2)
    assert batch.static_BF[:, NUM_TEXT + 2].tolist() == pytest.approx([1.7, 0.0])


def test_the_size_of_amounts_is_told_by_what_was_seen_of_them() -> None:
    target = np.full((4, 100), 0.5)
    target[0, :90] = np.nan  # ten days of a half
    target[1] = 0.0
    target[2] = np.nan
    target[3] = 250.25
    dressed = dress(window_of(target, horizon=HORIZON))
    assert dressed.factor_N.tolist() == [200.0, 1.0, 1.0, 1.0]
    np.testing.assert_equal(dressed.target_NT[0], [np.nan] * 90 + [100.0] * 10)
    # A tenth of a series' own sales may be broken, whatever its neighbours are.
    for broken, amounts in ((10, False), (11, True)):
        counts = np.full((3, 100), 2.0)
        counts[1, :broken] = 2.5
        counts[2, 50:] = 0.05
        found_N = dress(window_of(counts, horizon=HORIZON)).factor_N > 1
        assert found_N.tolist() == [False, amounts, True]
