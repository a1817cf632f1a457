"""Columns of any table in the network's slots, chosen by their names and by what they hold.

Dimensions: N series, T context steps, H horizon steps, S = T + H, K known slots, P past slots, F
static features.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS
from freshet.model.effects.outages import outages
from freshet.model.features import CLOSED, DISCOUNT, EVENT, FIRST_FREE, PROMOTION
from freshet.model.phases import YEAR_MS
from freshet.model.tables.panel import Window
from freshet.model.text import NUM_NUMBERS, NUM_TEXT, static_features
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS, WEEK_MS

# Whether a column never changes is told by so many series.
SERIES_LOOKED_AT = 64
PRICE = KNOWN_SLOTS.index("price_ratio")
PERCENT = 100.0
NAMES = {
    "price": r"price|preis|cost",
    "discount": r"discount|depth|rabatt|markdown|pct_off|off_pct",
    "promotion": r"promo|sale\b|campaign|deal|feature|display|coupon|flyer|mailer",
    "event": r"event|(?<!school)(?<!school.)holiday|feast|festival|xmas|christmas|black_?friday",
    "views": r"view|visit|session|traffic|impression|customer",
    "carts": r"cart|basket",
    "favourites": r"fav|wish|like",
    "checkouts": r"checkout",
    "in_stock": r"stock|on_?hand|inventory|avail",
}
# Flags that say the opposite of "in stock".
SOLD_OUT = r"stock_?outs?|out_?of_?stock|no_?stock|oos\b|sold_?out|un_?avail"
# Columns that bear a slot's own name, as windows of the stream do; shares of a step count too.
OWN_SLOTS = ("promotion", "event", *(name for name in KNOWN_SLOTS if name.startswith("free_")))
# "StateHoliday=0" and "promo=none" say that there is none.
NOTHING = r"=(0|none|no|n|false|nan|normal|regular)?$"


# Known covariates ---------------------------------------------------------------------------------


class Place(NamedTuple):
    """The slot that a known column goes to; a discount in percent becomes a share."""

    column: int
    slot: int
    percent: bool = False


def find_places(window: Window, closed_NS: Bools) -> tuple[Place, ...]:
    """Which known column goes to which slot; the strongest of the others to free ones."""
    places: list[Place] = []
    free: list[int] = []
    for column, name in enumerate(window.known_names):
        values_NS = window.known_NSK[..., column]
        if _told_by_calendar(values_NS, window.shown_ms_NS, window.resolution_ms):
            continue
        if _tells_closed(values_NS, closed_NS):
            continue
        slot = _known_slot(name, values_NS)
        if slot == PRICE and any(place.slot == PRICE for place in places):
            slot = None  # The first price is the price; a second one may be a competitor's.
        if slot is None:
            free.append(column)
        else:
            percent = slot == DISCOUNT and float(np.nanmax(values_NS)) > 1.0
            places.append(Place(column, slot, percent))
    # There are fewer free slots than columns that may ask for one: the weakest stay out.
    taken = {place.slot for place in places}
    open_slots = [slot for slot in range(FIRST_FREE, len(KNOWN_SLOTS)) if slot not in taken]
    chosen = strongest(window, free)
    return (*places, *map(Place, chosen, open_slots))


def known_in_slots(window: Window, closed_NS: Bools, places: tuple[Place, ...]) -> Singles:
    """Known covariates in their slots, each series on its own: [N, S, K]."""
    known_NSK = np.full((*window.time_ms_NS.shape, len(KNOWN_SLOTS)), np.nan, np.float32)
    # A series that is never closed may say so: nothing depends on whether another one is.
    known_NSK[..., CLOSED] = np.where(closed_NS.any(1, keepdims=True), closed_NS, np.nan)
    for column, slot, percent in places:
        values_NS = window.known_NSK[..., column]
        if slot == PRICE:
            values_NS = _ratio(values_NS, window.context_length)
        elif percent:
            values_NS = values_NS / PERCENT
        # Several flags of one kind are up when one of them is.
        known_NSK[..., slot] = np.fmax(known_NSK[..., slot], values_NS)
    return known_NSK


def _known_slot(name: str, values_NS: Floats) -> int | None:
    """The slot that a column's name and values ask for; None for a free one."""
    column = name.lower()
    if name in OWN_SLOTS:
        return KNOWN_SLOTS.index(name)
    seen = values_NS[np.isfinite(values_NS)]
    if not len(seen) or seen.min() < 0:
        return None
    if re.search(NOTHING, column):
        return None
    if re.search(NAMES["discount"], column):
        # Beyond a hundred per cent it is no depth but an amount, which may mean anything.
        return DISCOUNT if seen.max() <= PERCENT else None
    if re.search(NAMES["price"], column) and seen.min() > 0:
        return PRICE
    flag = bool(np.isin(seen, (0.0, 1.0)).all())
    if flag and re.search(NAMES["promotion"], column):
        return PROMOTION
    if flag and re.search(NAMES["event"], column):
        return EVENT
    return None


def _told_by_calendar(values_NS: Floats, time_ms_NS: Ints, resolution_ms: int) -> bool:
    """Whether a column never changes, or repeats the weekday, the hour or the month.

    The network sees those anyway.
    """
    some_NS = values_NS[:SERIES_LOOKED_AT]
    some_ms_NS = time_ms_NS[:SERIES_LOOKED_AT]
    seen_NS = np.isfinite(some_NS)
    values = some_NS[seen_NS]
    times_ms = some_ms_NS[seen_NS]
    if not len(values) or np.ptp(values) == 0.0:
        return True
    months = times_ms.astype("datetime64[ms]").astype("datetime64[M]")
    groups = {
        WEEK_MS: times_ms // DAY_MS % 7,
        DAY_MS: times_ms % DAY_MS // min(resolution_ms, DAY_MS),
        YEAR_MS: months.astype(np.int64) % 12,
    }
    span_ms = np.ptp(times_ms)
    for cycle_ms, group in groups.items():
        # Within a single cycle everything repeats itself: an only December says nothing of
        # Decembers.
        if span_ms >= 2 * cycle_ms and _constant_within(values, group):
            return True
    return False


def _constant_within(values: Floats, group: Ints) -> bool:
    """Whether all values of each group are the same."""
    _, groups = np.unique(group, return_inverse=True)
    num_groups = groups.max() + 1
    low_G = np.full(num_groups, np.inf)
    high_G = np.full(num_groups, -np.inf)
    np.minimum.at(low_G, groups, values)
    np.maximum.at(high_G, groups, values)
    spread_G = high_G - low_G
    return bool((spread_G <= 1e-9).all())


def _tells_closed(values_NS: Floats, closed_NS: Bools) -> bool:
    """Whether a flag says nothing but open or closed."""
    seen = values_NS[np.isfinite(values_NS)]
    if not np.isin(seen, (0.0, 1.0)).all():
        return False
    up_NS = values_NS > 0
    different = float(np.mean(up_NS != closed_NS))
    # A flag for "open" says as much as one for "closed".
    different = min(different, 1.0 - different)
    # Few closed days look like any rare flag, so what differs is held against how many they are.
    closed = float(closed_NS.mean())
    rarer = min(closed, 1.0 - closed)
    return different < min(0.02, 0.1 * rarer)


def _ratio(values_NS: Floats, context: int) -> Floats:
    """Prices relative to each series' usual one, the median before the cutoff."""
    past_NT = np.sort(values_NS[:, :context], axis=1)  # missing ones last
    count_N = np.isfinite(past_NT).sum(1)
    row_N = np.arange(len(past_NT))
    below_N, above_N = (count_N - 1).clip(0) // 2, count_N // 2
    usual_N = (past_NT[row_N, below_N] + past_NT[row_N, above_N.clip(0, context - 1)]) / 2
    with np.errstate(all="ignore"):
        ratio_NS = values_NS / usual_N[:, None]
    return np.asarray(ratio_NS)


def strongest(window: Window, columns: list[int]) -> list[int]:
    """Columns by how strongly they go with the logarithm of sales, strongest first."""
    T = window.context_length
    seen_NT = np.isfinite(window.target_NT)
    target_NT = np.where(seen_NT, window.target_NT, np.nan)
    log_NT = np.log1p(target_NT)
    strength: dict[int, float] = {}
    for column in columns:
        values_NT = window.known_NSK[:, :T, column]
        strength[column] = _strength(log_NT, values_NT)
    return sorted(columns, key=lambda column: -strength[column])


def _strength(log_NT: Floats, values_NT: Floats) -> float:
    """The size of the correlation within series, of all of them together."""
    both_NT = np.isfinite(log_NT) & np.isfinite(values_NT)
    # Within series: it matters when a series sells more, not which one does.
    sold_NT = _centred(log_NT, both_NT)
    told_NT = _centred(values_NT, both_NT)
    squares = (sold_NT**2).sum() * (told_NT**2).sum()
    spread = float(np.sqrt(squares))
    if not spread > 0:
        return 0.0
    product = float((sold_NT * told_NT).sum())
    return abs(product) / spread


def _centred(values_NT: Floats, where_NT: Bools) -> Floats:
    """Values less the mean of their series over chosen steps, 0 on the others."""
    count_N1 = where_NT.sum(1, keepdims=True)
    filled_NT = np.where(where_NT, values_NT, 0.0)
    mean_N1 = filled_NT.sum(1, keepdims=True) / np.maximum(count_N1, 1)
    return np.where(where_NT, filled_NT - mean_N1, 0.0)


# Past covariates and static columns ---------------------------------------------------------------


def past_in_slots(window: Window) -> Singles:
    """Past covariates in the slots that their names ask for, else in free ones: [N, T, P]."""
    past_NTP = np.full((*window.target_NT.shape, len(PAST_SLOTS)), np.nan, np.float32)
    taken: set[str] = set()
    for column, name in enumerate(window.past_names):
        open_slots = [slot for slot in _past_slots(name) if slot not in taken]
        if not open_slots:
            continue
        slot = open_slots[0]
        taken.add(slot)
        values_NT = window.past_NTP[..., column]
        in_slot_NT = past_NTP[..., PAST_SLOTS.index(slot)]
        in_slot_NT[:] = _stocked(values_NT, name) if slot == "in_stock" else values_NT
    return past_NTP


def buyable(window: Window) -> Window:
    """The window with missing for zero where nobody could buy: no stock, or an outage.

    A sale out of stock is one all the same.
    """
    in_stock_NT = past_in_slots(window)[..., PAST_SLOTS.index("in_stock")]
    empty_NT = (in_stock_NT == 0.0) & (window.target_NT == 0.0)
    for column, name in enumerate(window.known_names):
        if re.search(NAMES["in_stock"], name.lower()) or re.search(SOLD_OUT, name.lower()):
            values_NT = window.known_NSK[:, : window.context_length, column]
            empty_NT |= (_stocked(values_NT, name) == 0.0) & (window.target_NT == 0.0)
    empty_NT |= outages(window.target_NT, window.resolution_ms)
    if not empty_NT.any():
        return window
    return replace(window, target_NT=np.where(empty_NT, np.nan, window.target_NT))


def _stocked(values_NT: Floats, name: str) -> Floats:
    """The share of each step in stock: as it is where it is one, else whether there was any."""
    if re.search(SOLD_OUT, name.lower()):
        return np.where(np.isfinite(values_NT), values_NT == 0.0, np.nan)
    share_N1 = np.nanmax(values_NT, axis=1, keepdims=True, initial=0.0) <= 1.0
    any_NT = np.where(np.isfinite(values_NT), values_NT > 0, np.nan)
    return np.where(share_N1, values_NT, any_NT)


def _past_slots(name: str) -> list[str]:
    """The slots that a column may go to, first choice first."""
    column = name.lower()
    named = [slot for slot in PAST_SLOTS if slot in NAMES]
    wanted = [slot for slot in named if re.search(NAMES[slot], column)]
    if re.search(SOLD_OUT, column):
        wanted = ["in_stock"]
    free = [slot for slot in PAST_SLOTS if slot not in NAMES]
    return wanted + free


def static_numbers(window: Window, scales: dict[str, Floats]) -> Singles:
    """Texts and categories as one hashed text, a price if there is one, other numbers by rank.

    Args:
        window: static columns of each series.
        scales: as `find_scales` found them, perhaps in other series.
    """
    N = len(window)
    texts = [""] * N
    prices = np.full(N, np.nan)
    ages_ms = np.full(N, np.nan)
    numbers: list[Floats] = []
    for name, values in window.static.items():
        if values.dtype == object:
            texts = [text + _told(name, value) for text, value in zip(texts, values, strict=True)]
        elif re.search(NAMES["price"], name.lower()):
            prices = np.asarray(values, np.float64)
        else:
            ranks_N = _ranks(np.asarray(values, np.float64), scales[name])
            numbers.append(ranks_N)
    static_NF = static_features(texts, prices, ages_ms)
    # Two of the numbers are price and age; the rest is free.
    first_free = NUM_TEXT + 2
    for place, ranks_N in enumerate(numbers[: NUM_NUMBERS - 2]):
        static_NF[:, first_free + place] = ranks_N
    return static_NF


def find_scales(window: Window) -> dict[str, Floats]:
    """The different values of each static number, rising: what its ranks are told by."""
    scales: dict[str, Floats] = {}
    for name, values in window.static.items():
        if values.dtype != object and not re.search(NAMES["price"], name.lower()):
            numbers_N = np.asarray(values, np.float64)
            scales[name] = np.unique(numbers_N[np.isfinite(numbers_N)])
    return scales


def _told(name: str, value: object) -> str:
    """One value as words: free text as it is, a category with its column's name.

    >>> _told("StoreType", "a"), _told("title", "red shoe"), _told("brand", None)
    (' storetype_a', ' red shoe', '')
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return ""
    # A single word says little without its column: "a" may be a kind of shop or a brand.
    if " " not in text:
        text = f"{name.lower()}_{text}"
    return f" {text}"


def _ranks(values_N: Floats, scale: Floats) -> Floats:
    """Places among known values, spread evenly over [-1.7, 1.7]; NaN stays.

    That is a spread of one. A value between two known ones is between their ranks. All are 0 where
    no two values differ.

    >>> _ranks(np.array([5.0, 9.0, np.nan, 6.0]), np.array([5.0, 9.0])).tolist()
    [-1.7, 1.7, nan, -0.85]
    >>> _ranks(np.array([2.0, 3.0]), np.array([2.0])).tolist()
    [0.0, 0.0]
    """
    seen_N = np.isfinite(values_N)
    highest = len(scale) - 1
    ranks_N = np.full(len(values_N), np.nan)
    if seen_N.any() and len(scale):
        place = np.interp(values_N[seen_N], scale, np.arange(len(scale)))
        ranks_N[seen_N] = 1.7 * (2 * place - highest) / max(highest, 1)
    return ranks_N
