"""Effects go to a record and come back to the last bit; what fits no window is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.model.effects.kinds import Column
from freshet.model.effects.pools import MAX_POOLS, Pool, Pools
from freshet.model.effects.shared import SharedEffects, find_shared
from freshet.model.effects.slots import dress
from freshet.model.tables.panel import Window
from freshet.online.effects.record import effects_of, encoded, record_of
from freshet.stream.codec import decode
from freshet.stream.errors import EventError
from freshet.stream.schemas import EffectsRecord
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.units import DAY_MS, HOUR_MS

DAYS = 300
AHEAD = 21


def window_of(resolution_ms: int = DAY_MS, days: int = DAYS, country: str | None = "DE") -> Window:
    """Six items of a shop that is closed on Sundays, and sells more where prices are cut."""
    rng = np.random.default_rng(7)
    steps_a_day = DAY_MS // resolution_ms
    steps = (days + AHEAD) * steps_a_day
    time_S = 18_993 * DAY_MS + np.arange(steps) * resolution_ms
    known_NSK = np.full((8, steps, len(NAMED_SLOTS)), np.nan)
    cut_NS = rng.random((8, steps)) < 0.1
    known_NSK[..., NAMED_SLOTS.index("promotion")] = cut_NS
    known_NSK[..., NAMED_SLOTS.index("discount")] = 0.3 * cut_NS
    known_NSK[..., NAMED_SLOTS.index("free_1")] = rng.normal(size=(8, steps))
    open_S = (time_S // DAY_MS % 7 != 3) & (time_S % DAY_MS < 20 * HOUR_MS)
    mean_NS = open_S * np.exp(1 + 0.4 * cut_NS + 0.2 * known_NSK[..., -6])
    mean_NS[1::2] *= 3.0
    T = days * steps_a_day
    return Window(
        item_ids=tuple(f"i{row}|n" for row in range(8)),
        frequency="",
        resolution_ms=resolution_ms,
        season_length=7,
        time_ms_NS=np.broadcast_to(time_S, (8, steps)).copy(),
        target_NT=rng.poisson(mean_NS[:, :T]).astype(np.float64),
        known_NSK=known_NSK,
        past_NTP=np.zeros((8, T, 0)),
        known_names=NAMED_SLOTS,
        past_names=(),
        static={"category": np.array(["a", "b"] * 4, object)},
        country=country,
    )


def made(shared: SharedEffects, window: Window, **over: Any) -> EffectsRecord:
    said: dict[str, Any] = {
        "resolution_ms": window.resolution_ms,
        "as_of_ms": int(window.time_ms_NS[0, window.context_length]),
        "num_items": len(window),
        "offsets": {"orders:1": 9, "orders:0": 4},
        "country": window.country,
    }
    return record_of(shared, **{**said, **over})


def bits(value: Any) -> Any:
    """Arrays as bytes with their shapes, so that nothing but the same bits is equal."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return {name: bits(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return tuple(bits(one) for one in value)
    return value


@pytest.mark.parametrize(("resolution_ms", "days"), [(DAY_MS, DAYS), (HOUR_MS, 30), (DAY_MS, 10)])
def test_effects_come_back_from_their_bytes_to_the_last_bit(resolution_ms: int, days: int) -> None:
    window = window_of(resolution_ms, days)
    shared = find_shared(window)
    _, value = encoded(made(shared, window))
    back = effects_of(decode(EffectsRecord, value))
    assert bits(back) == bits(shared)
    assert bits(dress(window, back)) == bits(dress(window, shared))
    if days == DAYS:
        # There was something of each kind to lose.
        assert shared.closing.slots and shared.places and shared.slopes.columns
        assert len(shared.events.weights_K) and len(shared.events.half_years_B) > 1
        assert shared.pools.columns and len(shared.pools.pools) > 1


def test_the_same_input_has_the_same_key_which_is_the_values_sha256() -> None:
    window = window_of(days=30)
    key, value = encoded(made(find_shared(window), window))
    again = encoded(made(find_shared(window), window, offsets={"orders:0": 4, "orders:1": 9}))
    assert (key, value) == again
    assert key == hashlib.sha256(value).hexdigest()


BROKEN = {
    "a weight is missing": ("events", "weights", lambda old: old[:-1]),
    "a slope of no column": ("slopes", "columns", lambda old: [*old[:-1], 99]),
    "a half-year too many": ("events", "half_years", lambda old: [*old, 1]),
    "rows of two lengths": ("events", "weights_by_half_year", lambda old: [[], *old[1:]]),
    "another flag": ("events", "flags", lambda old: [*old, 3]),
    "a state of no column": ("closing", "states", lambda old: [[40, 0.0]]),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_what_can_be_applied_to_no_window_is_refused(change: Any) -> None:
    part, field, altered = change
    window = window_of(days=120)
    record = msgspec.to_builtins(made(find_shared(window), window))
    assert effects_of(msgspec.convert(record, EffectsRecord))
    record[part][field] = altered(record[part][field])
    with pytest.raises(EventError, match="applied to no window"):
        effects_of(msgspec.convert(record, EffectsRecord))


def test_an_unknown_slot_or_country_and_a_range_without_width_are_refused() -> None:
    window = window_of(days=120)
    record = msgspec.to_builtins(made(find_shared(window), window))
    for name, value in (("places", [(0, 77, False)]), ("country", "XX")):
        with pytest.raises(EventError, match="applied to no window"):
            effects_of(msgspec.convert(record | {name: value}, EffectsRecord))
    record["slopes"]["low"] = record["slopes"]["high"]
    with pytest.raises(EventError, match="applied to no window"):
        effects_of(msgspec.convert(record, EffectsRecord))


def test_a_record_of_as_many_pools_as_there_may_be_is_small() -> None:
    window = window_of(HOUR_MS, 30)
    levels_K = np.full(8, 123.45)
    path = ("category 12", "north", "2")
    pool = Pool(path, np.full(168, 1.2345), levels_K, levels_K, 1.25)
    full = Pools((Column("category"),), (replace(pool, path=()), *[pool] * (MAX_POOLS - 1)))
    _, value = encoded(made(replace(find_shared(window), pools=full), window))
    assert len(value) < 200_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": [1.0] * 7},
        {"levels": [1.0] * 7},
        {"levels": [0.0] * 8},
        {"size": 0.0},
        {"shapes": [-1.0] * 8},
        {"path": ["a"]},
        {"profile": [-1.0] * 168},
    ],
)
def test_pools_that_no_series_can_be_told_by_are_refused(wrong: dict[str, Any]) -> None:
    window = window_of(HOUR_MS, 30)
    record = made(find_shared(window), window)
    first = msgspec.structs.replace(record.pools.pools[0], **wrong)
    pools = msgspec.structs.replace(record.pools, pools=[first])
    with pytest.raises(EventError, match="no window"):
        effects_of(msgspec.structs.replace(record, pools=pools))
