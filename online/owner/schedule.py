"""As of when shared effects are due: each local midnight of event time, at first sooner. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from freshet.online.forecast.effects import has_owner
from freshet.stream.config import ServedResolution
from freshet.stream.read.progress import Input, InputState, ReadRules, live_cutoff_ms, loading
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS


def owned(served: Iterable[ServedResolution]) -> list[ServedResolution]:
    """The resolutions whose effects are estimated, longest steps first."""
    return sorted(filter(has_owner, served), key=lambda one: -one.resolution_ms)


def due_ms(
    inputs: Mapping[Input, InputState], rules: ReadRules, newest_ms: int | None
) -> int | None:
    """As of when effects are due now, or None.

    That is the newest midnight that all orders have reached; in a shop's first days also the newest
    cutoff, where the shop is twice as old as the newest effects have seen it.

    Args:
        inputs: How far each partition is.
        rules: Of the resolution.
        newest_ms: As of when the newest effects of this resolution are; None: there are none.

    >>> from freshet.stream.units import HOUR_MS
    >>> state = InputState(9, 0, 50 * HOUR_MS, None, first_event_ms=20 * HOUR_MS)
    >>> inputs, rules = {("freshet.orders.v1", 0): state}, ReadRules(HOUR_MS, 100)
    >>> [due_ms(inputs, rules, newest) for newest in (None, 24 * HOUR_MS, 48 * HOUR_MS)]
    [172800000, 172800000, None]
    """
    grid = rules.grid
    if loading(inputs, rules.topics) is not None:
        return None
    cutoff_ms = live_cutoff_ms(inputs, rules.orders_topic, grid)
    if cutoff_ms is None:
        return None
    days = Grid(DAY_MS, rules.time_zone)
    midnight_ms = days.start_ms(days.bucket(cutoff_ms))
    # Where clocks differ from UTC by half an hour, no hour ends at midnight.
    as_of_ms = grid.start_ms(grid.bucket(midnight_ms))
    begun_ms = [state.first_event_ms for state in inputs.values()]
    first_ms = min(at_ms for at_ms in begun_ms if at_ms is not None)
    if as_of_ms > first_ms and (newest_ms is None or as_of_ms > newest_ms):
        return as_of_ms
    # On a shop's first day each hour tells much of what its items sell: what was known of half of
    # its life is old.
    known_ms = 0 if newest_ms is None else newest_ms - first_ms
    return cutoff_ms if cutoff_ms - first_ms >= max(2 * known_ms, 1) else None


def stale_ms(resolution_ms: int, retained_buckets: int, as_of_ms: int, spare: int = 64) -> int:
    """Effects from before it are of no use to any context or look back.

    >>> stale_ms(10, 100, 5_000)
    3360
    """
    return as_of_ms - (retained_buckets + spare) * resolution_ms
