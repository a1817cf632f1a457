"""Shared effects as the record that carries them, and back: the same numbers to the last bit.

Scales of static numbers are not part of it, since windows of the stream have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from freshet.model.effects.closed import Closing
from freshet.model.effects.columns import Place
from freshet.model.effects.events import Events
from freshet.model.effects.kinds import Column
from freshet.model.effects.pools import Pool, Pools
from freshet.model.effects.shared import SharedEffects
from freshet.model.effects.slopes import Slopes
from freshet.model.effects.slots import dress
from freshet.model.tables.panel import Window
from freshet.stream.codec import encode
from freshet.stream.errors import EventError, InvalidInputError
from freshet.stream.schemas import (
    EffectsClosing,
    EffectsEvents,
    EffectsKind,
    EffectsPool,
    EffectsPools,
    EffectsRecord,
    EffectsSlopes,
)

CURRENT = b"current@"
SECONDS_HEADER = "freshet-seconds"
"""The header that says how long the estimate took."""
TRIED_STEPS = 14  # of the made-up window on which effects from outside are tried


def record_of(
    shared: SharedEffects,
    *,
    resolution_ms: int,
    as_of_ms: int,
    num_items: int,
    offsets: Mapping[str, int],
    country: str | None,
) -> EffectsRecord:
    """What was found, and in what: `num_items` series, of nothing after `as_of_ms`."""
    slopes, events = shared.slopes, shared.events
    return EffectsRecord(
        resolution_ms=resolution_ms,
        as_of_ms=as_of_ms,
        num_items=num_items,
        offsets=dict(sorted(offsets.items())),
        known_names=list(shared.known_names),
        continuous=shared.continuous,
        closing=EffectsClosing(
            states=list(shared.closing.states),
            slots=list(shared.closing.slots),
            by_calendar=shared.closing.by_calendar,
        ),
        places=[(one.column, one.slot, one.percent) for one in shared.places],
        slopes=EffectsSlopes(
            columns=list(slopes.columns),
            low=slopes.low_C.tolist(),
            high=slopes.high_C.tolist(),
            mean=slopes.mean_C.tolist(),
            weights=slopes.weights_2C.tolist(),
            least=slopes.least,
            most=slopes.most,
        ),
        events=EffectsEvents(
            flags=list(events.flags),
            flag_in_cells=list(events.flag_in_cells),
            weights=events.weights_K.tolist(),
            weights_by_half_year=events.weights_BK.tolist(),
            half_years=events.half_years_B.tolist(),
            end_day=events.end_day,
        ),
        country=country,
        pools=_pools_record(shared.pools),
    )


def _pools_record(pools: Pools) -> EffectsPools:
    return EffectsPools(
        kinds=[EffectsKind(name=one.name, edges=list(one.edges)) for one in pools.columns],
        pools=[
            EffectsPool(
                path=list(pool.path),
                profile=pool.profile_W.tolist(),
                levels=pool.level_K.tolist(),
                shapes=pool.shape_K.tolist(),
                size=pool.size,
            )
            for pool in pools.pools
        ],
        unit=pools.unit,
    )


def effects_of(record: EffectsRecord) -> SharedEffects:
    """The effects that a record carries.

    Raises:
        EventError: They can be applied to no window.
    """
    try:
        shared = _effects(record)
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            dress(_made_up(record), shared)
    except (ValueError, IndexError, ArithmeticError, InvalidInputError) as error:
        raise EventError(f"effects that can be applied to no window: {error}") from None
    return shared


def _effects(record: EffectsRecord) -> SharedEffects:
    closing, slopes, events = record.closing, record.slopes, record.events
    weights_K = np.array(events.weights, np.float64)
    weights_BK = np.array(events.weights_by_half_year, np.float64)
    return SharedEffects(
        known_names=tuple(record.known_names),
        continuous=record.continuous,
        closing=Closing(tuple(closing.states), tuple(closing.slots), closing.by_calendar),
        places=tuple(Place(*place) for place in record.places),
        slopes=Slopes(
            columns=tuple(slopes.columns),
            low_C=np.array(slopes.low, np.float64),
            high_C=np.array(slopes.high, np.float64),
            mean_C=np.array(slopes.mean, np.float64),
            weights_2C=np.array(slopes.weights, np.float64).reshape(2, len(slopes.columns)),
            least=slopes.least,
            most=slopes.most,
        ),
        events=Events(
            flags=tuple(events.flags),
            flag_in_cells=tuple(events.flag_in_cells),
            weights_K=weights_K,
            weights_BK=weights_BK.reshape(len(events.half_years), len(weights_K)),
            half_years_B=np.array(events.half_years, np.int64),
            end_day=events.end_day,
        ),
        pools=_pools(record.pools, record.resolution_ms),
    )


def _pools(record: EffectsPools, resolution_ms: int) -> Pools:
    columns = tuple(Column(kind.name, tuple(kind.edges)) for kind in record.kinds)
    pools = tuple(
        Pool(
            path=tuple(pool.path),
            profile_W=np.array(pool.profile, np.float64),
            level_K=np.array(pool.levels, np.float64),
            shape_K=np.array(pool.shapes, np.float64),
            size=pool.size,
        )
        for pool in record.pools
    )
    return Pools(columns, pools, record.unit).validate(resolution_ms)


def _made_up(record: EffectsRecord) -> Window:
    """A series without sales around the time of a record: what does not fit it fits no other."""
    step_S = np.arange(-TRIED_STEPS, TRIED_STEPS)
    return Window(
        item_ids=("",),
        frequency="",
        resolution_ms=record.resolution_ms,
        season_length=1,
        time_ms_NS=record.as_of_ms + step_S[None] * record.resolution_ms,
        target_NT=np.zeros((1, TRIED_STEPS)),
        known_NSK=np.zeros((1, len(step_S), len(record.known_names))),
        past_NTP=np.zeros((1, TRIED_STEPS, 0)),
        known_names=tuple(record.known_names),
        past_names=(),
        static={},
        country=record.country,
    )


def encoded(record: EffectsRecord) -> tuple[str, bytes]:
    """A record's key, the sha256 of its value, and the value."""
    value = encode(record)
    return hashlib.sha256(value).hexdigest(), value


def current_key(resolution_ms: int) -> str:
    """Under which the newest record of a resolution lies once more."""
    return f"{CURRENT.decode()}{resolution_ms}"
