"""No promotion that hurts a served resolution: windows of the others, forecast by both versions.

Learnt is at one resolution, and the same weights serve them all. Judged are the newest final
buckets of each of the others, one horizon of them; nothing was trained on their windows. Each is
read when it is needed, of some items alone, and let go before the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from redis import Redis

from freshet.model.network import FreshetNetwork
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.sales import sale_spans
from freshet.online.judge.standing import Guarded, guarded
from freshet.online.trials.evaluation import compare
from freshet.online.trials.history import WindowHistory, open_part
from freshet.online.trials.pools import History
from freshet.online.trials.windows import first_whole
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.schemas import item_id_parts

# Half of the gate's: what is asked is whether something broke, not by how much it got better.
MAX_GUARD_WINDOWS = 256
# The newest buckets are not final yet: minutes wait for a quarter of an hour.
SPARE_BUCKETS = 72


@dataclass(frozen=True, slots=True)
class Guard:
    """The past of a resolution at which a challenger must not be worse.

    Attributes:
        history: Of some items; not refreshed yet.
        season_length: With less of a context than this a forecast says little of the weights.
    """

    history: History
    season_length: int


def open_guards(
    settings: Settings,
    client: Redis,
    shop: ShopTables,
    effects: EffectsTable,
    main: WindowHistory,
) -> Iterator[Guard]:
    """One for every served resolution but the main one.

    Args:
        settings: Which are served, and what is retained of them.
        client: Of the window store.
        shop: The shop's tables.
        effects: What all items do alike.
        main: Whose items are chosen from.
    """
    for served in settings.served:
        if served.resolution_ms == settings.main.resolution_ms:
            continue
        num_buckets = _buckets_of(settings, served)
        item_ids = main.item_ids
        if served.flash_sales_only:
            since_ms = (main.final_ms() or 0) - num_buckets * served.resolution_ms
            # Where nothing was on sale, the minutes of all items say what can be said.
            item_ids = on_sale(settings, shop, item_ids, since_ms) or item_ids
        chosen = frozenset(sample(item_ids, settings.learn.seed))
        history = open_part(
            settings,
            client,
            shop,
            effects,
            served,
            num_buckets=num_buckets,
            owns=chosen.__contains__,
            stopped=main.stopped,
        )
        yield Guard(history, served.season_length)


def _buckets_of(settings: Settings, served: ServedResolution) -> int:
    """As many as contexts and labels need, where they are retained."""
    retained = {width.resolution_ms: width.buckets for width in settings.windows.resolutions}
    needed = served.context_length + served.prediction_length + SPARE_BUCKETS
    return min(needed, retained[served.resolution_ms])


def on_sale(
    settings: Settings, shop: ShopTables, item_ids: Sequence[str], since_ms: int
) -> list[str]:
    """Items whose flash sale is announced, runs, or was not over at a time."""
    spans = [span for span in sale_spans(shop, since_ms) if span.until_ms > since_ms]
    skus = {sku for span in spans for sku in span.skus}
    series_by = settings.events.series_by
    if "sku" not in series_by:
        return []
    place = series_by.index("sku")
    return [item_id for item_id in item_ids if item_id_parts(item_id)[place] in skus]


def sample(item_ids: Sequence[str], seed: int) -> list[str]:
    """So many of the items that each has a window; the same ones for the same seed."""
    if len(item_ids) <= MAX_GUARD_WINDOWS:
        return list(item_ids)
    rows = np.random.default_rng(seed).choice(len(item_ids), MAX_GUARD_WINDOWS, replace=False)
    return [item_ids[row] for row in rows]


def try_guards(
    guards: Iterable[Guard], champion: FreshetNetwork, challenger: FreshetNetwork, *, seed: int
) -> tuple[Guarded, ...]:
    """Both versions at every other resolution; blocks for seconds.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    return tuple(try_guard(guard, champion, challenger, seed=seed) for guard in guards)


def try_guard(
    guard: Guard, champion: FreshetNetwork, challenger: FreshetNetwork, *, seed: int
) -> Guarded:
    """Both versions on the newest final buckets; on nothing where the past is too short."""
    started = time.perf_counter()
    history = guard.history
    resolution_ms = history.grid.resolution_ms
    history.refresh()
    span = guarded_span(guard)
    if span is None or not history.segments():
        nothing_IT = np.zeros((0, 0))
        return guarded(nothing_IT, nothing_IT, resolution_ms=resolution_ms, finite=True)
    start_ms, end_ms = span
    both = compare(
        history,
        champion,
        challenger,
        start_ms=start_ms,
        end_ms=end_ms,
        seed=seed,
        maximum=MAX_GUARD_WINDOWS,
    )
    return guarded(
        both.first_IT,
        both.second_IT,
        resolution_ms=resolution_ms,
        finite=both.finite,
        seconds=time.perf_counter() - started,
    )


def guarded_span(guard: Guard) -> tuple[int, int] | None:
    """[start, end) of the labels: the newest horizon that is final, after a season at least."""
    history = guard.history
    final_ms, first_ms = history.final_ms(), history.first_ms()
    if final_ms is None or first_ms is None:
        return None
    grid = history.grid
    end = grid.bucket(final_ms)
    start = max(end - history.steps, first_whole(grid, first_ms) + guard.season_length)
    return (grid.start_ms(start), grid.start_ms(end)) if start < end else None
