"""From a window of any table to the network's slots, and batches of it as of any earlier cutoff.

Dimensions: N series, T context steps, H horizon steps, S = T + H, K known slots, P past slots, F
static features, B rows of a batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.effects.closed import closed_steps
from freshet.model.effects.shared import shared_effects
from freshet.model.features import CLOSED, DISCOUNT, EFFECT, EVENT, FIRST_FREE, PROMOTION
from freshet.model.phases import YEAR_MS
from freshet.model.tables.panel import Window
from freshet.model.text import NUM_NUMBERS, NUM_TEXT, static_features
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS, WEEK_MS

# Amounts that are no counts are brought to this mean, far above the unit of a count; a series is
# one of amounts where more than this share of its values is broken.
CONTINUOUS_MEAN = 100.0
CONTINUOUS_SHARE = 0.01
# Whether a column never changes is told by so many series.
SERIES_LOOKED_AT = 64
PRICE = KNOWN_SLOTS.index("price_ratio")
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
# "StateHoliday=0" and "promo=none" say that there is none.
NOTHING = r"=(0|none|no|n|false|nan|normal|regular)?$"


@dataclass(frozen=True, slots=True)
class Dressed:
    """A window in the network's terms.

    Attributes:
        target_NT: float32 units, multiplied by `factor_N`; NaN where missing.
        past_NTP: float32 in the order of PAST_SLOTS.
        known_NSK: float32 in the order of KNOWN_SLOTS; slot `effect` as a forecast may use it.
        taught_NS: float32 slot `effect` as training may use it: no step knows its own outcome.
        static_NF: float32 static features.
        time_ms_NS: int64 start of each step.
        resolution_ms: nominal length of a step.
        factor_N: what amounts were multiplied by; forecasts are divided by it.
    """

    target_NT: Singles
    past_NTP: Singles
    known_NSK: Singles
    taught_NS: Singles
    static_NF: Singles
    time_ms_NS: Ints
    resolution_ms: int
    factor_N: Floats

    def batch(
        self, rows: Ints, ends: Ints, *, context: int, horizon: int, train: bool = False
    ) -> tuple[Batch, Tensor]:
        """Contexts of some rows that end before step `ends`, and the actuals after it: [B, H].

        Actuals are NaN where they are not known.

        Args:
            rows: series of each batch row.
            ends: first step after each row's cutoff, at most T.
            context: steps before it; what lies before the window's first step is NaN.
            horizon: steps from it on; what lies beyond the window's last step is NaN.
            train: give the slot `effect` as training may use it. Without, it holds what the whole
                window taught, which only a cutoff at its end may know.
        """
        first_B = ends - context
        steps = context + horizon
        target_BS = _cut(self.target_NT, rows, first_B, steps)
        known_BSK = _cut(self.known_NSK, rows, first_B, steps)
        if train:
            known_BSK[..., EFFECT] = _cut(self.taught_NS, rows, first_B, steps)
        # Counted back from the last step: months before it differ in length, and padding has none.
        last_ms_B = self.time_ms_NS[rows, np.clip(ends - 1, 0, None)]
        batch = Batch(
            target_BT=torch.from_numpy(target_BS[:, :context]),
            past_BTP=torch.from_numpy(_cut(self.past_NTP, rows, first_B, context)),
            known_BSK=torch.from_numpy(known_BSK),
            static_BF=torch.from_numpy(self.static_NF[rows]),
            start_ms_B=torch.from_numpy(last_ms_B - (context - 1) * self.resolution_ms),
            resolution_ms=self.resolution_ms,
        )
        return batch, torch.from_numpy(target_BS[:, context:])


def dress(window: Window) -> Dressed:
    """A window in the network's slots; only data before the cutoff decide what goes where."""
    factor_N = _factors(window.target_NT)
    # Everything that takes logarithms of sales needs them in their final size.
    window = replace(window, target_NT=window.target_NT * factor_N[:, None])
    closed_NS = closed_steps(window)
    effect_NS, taught_NS = shared_effects(window, closed_NS)
    known_NSK = _known(window, closed_NS)
    known_NSK[..., EFFECT] = _some(effect_NS)
    return Dressed(
        target_NT=window.target_NT.astype(np.float32),
        past_NTP=_past(window),
        known_NSK=known_NSK,
        taught_NS=_some(taught_NS),
        static_NF=_statics(window),
        time_ms_NS=window.time_ms_NS,
        resolution_ms=window.resolution_ms,
        factor_N=factor_N,
    )


def _cut(values: Singles, rows: Ints, first: Ints, steps: int) -> Singles:
    """Steps [first, first + steps) of some rows, NaN where the array has none."""
    index = first[:, None] + np.arange(steps)
    outside = (index < 0) | (index >= values.shape[1])
    cut: Singles = values[rows[:, None], np.where(outside, 0, index)]
    cut[outside] = np.nan
    return cut


def _some(effect_NS: Floats) -> Singles:
    """Effects as float32; all missing where nothing was found, so that the slot counts as empty."""
    return np.where(np.any(effect_NS != 0.0), effect_NS, np.nan).astype(np.float32)


def _factors(target_NT: Floats) -> Floats:
    """What brings amounts that are no counts to a common size: [N].

    1 for counts and for large amounts.
    """
    seen = np.isfinite(target_NT)
    broken = (np.abs(target_NT - np.rint(target_NT)) > 1e-6) & seen
    if broken.sum() <= CONTINUOUS_SHARE * max(seen.sum(), 1):
        return np.ones(len(target_NT))
    mean_N = np.where(seen, target_NT, 0.0).sum(1) / np.maximum(seen.sum(1), 1)
    factor_N = np.maximum(CONTINUOUS_MEAN / np.maximum(mean_N, 1e-12), 1.0)
    return np.where(mean_N > 0, factor_N, 1.0)


# Known covariates ---------------------------------------------------------------------------------


def _known(window: Window, closed_NS: Bools) -> Singles:
    """Known covariates in their slots: [N, S, K]; the strongest of the others in free ones."""
    known_NSK = np.full((*window.time_ms_NS.shape, len(KNOWN_SLOTS)), np.nan, np.float32)
    if closed_NS.any():
        known_NSK[..., CLOSED] = closed_NS
    free = []
    for column, name in enumerate(window.known_names):
        values_NS = window.known_NSK[..., column]
        if _told_by_calendar(values_NS, window.time_ms_NS, window.resolution_ms):
            continue
        if _tells_closed(values_NS, closed_NS):
            continue
        slot = _known_slot(name, values_NS)
        if slot == PRICE and np.isfinite(known_NSK[..., PRICE]).any():
            slot = None  # The first price is the price; a second one may be a competitor's.
        if slot is None:
            free.append(column)
        elif slot == PRICE:
            known_NSK[..., slot] = _ratio(values_NS, window.context_length)
        else:
            percent = slot == DISCOUNT and np.nanmax(values_NS) > 1.0
            share_NS = values_NS / 100.0 if percent else values_NS
            # Several flags of one kind are up when one of them is.
            known_NSK[..., slot] = np.fmax(known_NSK[..., slot], share_NS)
    free_slots = range(FIRST_FREE, len(KNOWN_SLOTS))
    for slot, column in zip(free_slots, _strongest(window, free), strict=False):
        known_NSK[..., slot] = window.known_NSK[..., column]
    return known_NSK


def _known_slot(name: str, values_NS: Floats) -> int | None:
    """The slot that a column's name and values ask for; None for a free one."""
    column = name.lower()
    seen = values_NS[np.isfinite(values_NS)]
    if not len(seen) or seen.min() < 0 or re.search(NOTHING, column):
        return None
    if re.search(NAMES["discount"], column):
        return DISCOUNT
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
    keep = np.isfinite(some_NS)
    values = some_NS[keep]
    times = time_ms_NS[:SERIES_LOOKED_AT][keep]
    if not len(values) or np.ptp(values) == 0.0:
        return True
    months = times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) % 12
    groups = {
        WEEK_MS: times // DAY_MS % 7,
        DAY_MS: times % DAY_MS // min(resolution_ms, DAY_MS),
        YEAR_MS: months,
    }
    # Within a single cycle everything repeats itself: an only December says nothing of Decembers.
    usable = [group for cycle_ms, group in groups.items() if np.ptp(times) >= 2 * cycle_ms]
    return any(_constant_within(values, group) for group in usable)


def _constant_within(values: Floats, group: Ints) -> bool:
    """Whether all values of each group are the same."""
    groups = np.unique(group, return_inverse=True)[1]
    low = np.full(groups.max() + 1, np.inf)
    high = np.full(groups.max() + 1, -np.inf)
    np.minimum.at(low, groups, values)
    np.maximum.at(high, groups, values)
    return bool((high - low <= 1e-9).all())


def _tells_closed(values_NS: Floats, closed_NS: Bools) -> bool:
    """Whether a flag says nothing but open or closed."""
    if not np.isin(values_NS[np.isfinite(values_NS)], (0.0, 1.0)).all():
        return False
    different = float(np.mean((values_NS > 0) != closed_NS))
    # Few closed days look like any rare flag, so what differs is held against how many they are.
    rarer = min(float(closed_NS.mean()), 1.0 - float(closed_NS.mean()))
    return min(different, 1.0 - different) < min(0.02, 0.1 * rarer)


def _ratio(values_NS: Floats, context: int) -> Floats:
    """Prices relative to each series' usual one, the median before the cutoff."""
    usual_N = np.full(len(values_NS), np.nan)
    for row, values_T in enumerate(values_NS[:, :context]):
        seen = values_T[np.isfinite(values_T)]
        if len(seen):
            usual_N[row] = np.median(seen)
    with np.errstate(all="ignore"):
        return np.asarray(values_NS / usual_N[:, None])


def _strongest(window: Window, columns: list[int]) -> list[int]:
    """Columns by how strongly they go with the logarithm of sales, strongest first."""
    T = window.context_length
    log_NT = np.log1p(np.where(np.isfinite(window.target_NT), window.target_NT, np.nan))
    strength = {column: _strength(log_NT, window.known_NSK[:, :T, column]) for column in columns}
    return sorted(columns, key=lambda column: -strength[column])


def _strength(log_NT: Floats, values_NT: Floats) -> float:
    """The size of the correlation within series, of all of them together."""
    both = np.isfinite(log_NT) & np.isfinite(values_NT)
    count_N1 = np.maximum(both.sum(1, keepdims=True), 1)
    sides = []
    for side_NT in (log_NT, values_NT):
        filled_NT = np.where(both, side_NT, 0.0)
        mean_N1 = filled_NT.sum(1, keepdims=True) / count_N1
        sides.append(np.where(both, filled_NT - mean_N1, 0.0))
    sold_NT, told_NT = sides
    spread = float(np.sqrt((sold_NT**2).sum() * (told_NT**2).sum()))
    return abs(float((sold_NT * told_NT).sum())) / spread if spread > 0 else 0.0


# Past covariates and static columns ---------------------------------------------------------------


def _past(window: Window) -> Singles:
    """Past covariates in the slots that their names ask for, else in free ones: [N, T, P]."""
    past_NTP = np.full((*window.target_NT.shape, len(PAST_SLOTS)), np.nan, np.float32)
    taken: set[str] = set()
    for column, name in enumerate(window.past_names):
        slot = next((slot for slot in _past_slots(name) if slot not in taken), None)
        if slot is None:
            continue
        taken.add(slot)
        values_NT = window.past_NTP[..., column]
        in_slot_NT = past_NTP[..., PAST_SLOTS.index(slot)]
        in_slot_NT[:] = (values_NT > 0) if slot == "in_stock" else values_NT
        in_slot_NT[~np.isfinite(values_NT)] = np.nan
    return past_NTP


def _past_slots(name: str) -> list[str]:
    """The slots that a column may go to, first choice first."""
    named = [slot for slot in PAST_SLOTS if slot in NAMES]
    wanted = [slot for slot in named if re.search(NAMES[slot], name.lower())]
    return [*wanted, *(slot for slot in PAST_SLOTS if slot not in NAMES)]


def _statics(window: Window) -> Singles:
    """Texts and categories as one hashed text, a price if there is one, other numbers by rank."""
    texts = [""] * len(window)
    prices = np.full(len(window), np.nan)
    numbers: list[Floats] = []
    for name, values in window.static.items():
        if values.dtype == object:
            texts = [text + _told(name, value) for text, value in zip(texts, values, strict=True)]
        elif re.search(NAMES["price"], name.lower()):
            prices = np.asarray(values, np.float64)
        else:
            numbers.append(_ranks(np.asarray(values, np.float64)))
    static_NF = static_features(texts, prices, np.full(len(window), np.nan))
    for place, ranks_N in enumerate(numbers[: NUM_NUMBERS - 2]):
        static_NF[:, NUM_TEXT + 2 + place] = ranks_N
    return static_NF


def _told(name: str, value: object) -> str:
    """One value as words: free text as it is, a category with its column's name.

    >>> _told("StoreType", "a"), _told("title", "red shoe"), _told("brand", None)
    (' storetype_a', ' red shoe', '')
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return ""
    return f" {text}" if " " in text else f" {name.lower()}_{text}"


def _ranks(values_N: Floats) -> Floats:
    """Ranks spread evenly over [-1.7, 1.7], which is a spread of one; NaN stays.

    All are 0 where all values are the same.

    >>> _ranks(np.array([5.0, 9.0, np.nan])).tolist(), _ranks(np.array([2.0, 2.0])).tolist()
    ([-1.7, 1.7, nan], [0.0, 0.0])
    """
    seen = np.isfinite(values_N)
    found, place = np.unique(values_N[seen], return_inverse=True)
    ranks_N = np.full(len(values_N), np.nan)
    ranks_N[seen] = 1.7 * (2 * place - (len(found) - 1)) / max(len(found) - 1, 1)
    return ranks_N
