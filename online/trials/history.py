"""The window store's past as learning needs it: contexts, labels, and which of them are final."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from redis import Redis

from freshet.model.batch import Batch
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.context import Contexts
from freshet.stream.arrays import Floats, Ints
from freshet.stream.catalog.segments import segments_of
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.store.grid import Grid

# A week of hours: every hour of the day and every weekday says something of an item's mean sales.
MEAN_BUCKETS = 168


class WindowHistory:
    """The window store's past as the learner needs it; rows are those of the reader.

    Args:
        contexts: Over a reader that holds all retained buckets.
        segments: The segment of each of some items, as the drift detectors name them.
        stopped: Called before whatever takes long; raises when the process is to end.
    """

    def __init__(
        self,
        contexts: Contexts,
        segments: Callable[[Sequence[str]], list[str]],
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self._contexts = contexts
        self._segments = segments
        self.stopped = stopped
        self.steps = contexts.prediction_length

    @property
    def grid(self) -> Grid:
        """Its buckets."""
        return self._contexts.reader.rules.grid

    @property
    def item_ids(self) -> list[str]:
        """The item of each row."""
        return self._contexts.item_ids

    def refresh(self) -> None:
        """Take in what is new in Redis."""
        self.stopped()
        self._contexts.refresh()

    def batch(self, rows: Ints, cutoff_ms: int) -> Batch:
        """Contexts that end at the cutoff, and what was known then of the steps after it."""
        self.stopped()
        return self._contexts.batch(rows, cutoff_ms)

    def target(self, rows: Ints, end_ms: int, steps: int) -> Floats:
        """Units of the steps that end at `end_ms`; NaN where not observed or out of stock."""
        self.stopped()
        units: Floats = self._contexts.target(rows, end_ms, steps)
        return units

    def final_ms(self) -> int | None:
        """Buckets that end at or before it are final."""
        return self._contexts.reader.final_ms()

    def first_ms(self) -> int | None:
        """Start of the oldest bucket that was observed and is held."""
        reader = self._contexts.reader
        begun = [state for state in reader.inputs.values() if state.first_event_ms is not None]
        first = [state.first_event_ms for state in begun if state.first_event_ms is not None]
        if all(state.frontier_ms is None for state in begun):
            return None
        # What is older than the reader's ring is gone, observed or not.
        oldest = max(self.grid.bucket(min(first)), reader.span.buckets.start)
        return self.grid.start_ms(oldest)

    def segments(self) -> list[str]:
        """The segment of each row."""
        return self._segments(self.item_ids)

    def mean_units(self) -> Floats:
        """Mean units of each row over the newest final buckets; 0 where nothing was observed."""
        final_ms = self.final_ms()
        rows = np.arange(len(self.item_ids))
        if final_ms is None or not len(rows):
            return np.zeros(len(rows))
        end_ms = self.grid.start_ms(self.grid.bucket(final_ms))
        units_IT = self._contexts.target(rows, end_ms, MEAN_BUCKETS)
        seen_I = np.isfinite(units_IT).sum(1)
        mean_units_I: Floats = np.nansum(units_IT, axis=1) / np.maximum(seen_I, 1)
        return mean_units_I

    def offsets(self) -> dict[str, int]:
        """What of the log has been folded."""
        return self._contexts.reader.offsets()


def open_history(
    settings: Settings,
    client: Redis,
    shop: ShopTables,
    effects: EffectsTable,
    stopped: Callable[[], None] = lambda: None,
) -> WindowHistory:
    """The history of every window that Redis retains at the resolution that is learnt from."""
    retained = {width.resolution_ms: width.buckets for width in settings.windows.resolutions}
    num_buckets = retained[settings.main.resolution_ms]
    return open_part(
        settings,
        client,
        shop,
        effects,
        settings.main,
        num_buckets=num_buckets,
        stopped=stopped,
    )


def open_part(
    settings: Settings,
    client: Redis,
    shop: ShopTables,
    effects: EffectsTable,
    served: ServedResolution,
    *,
    num_buckets: int,
    owns: Callable[[str], bool] | None = None,
    stopped: Callable[[], None] = lambda: None,
) -> WindowHistory:
    """The newest buckets of one resolution, of the items that `owns` says or of all.

    Nothing is read before the first refresh. A context has the effects that were known at its
    cutoff, as it was served; one from before all effects has the first, as far as others taught
    them.
    """
    reader = WindowReader(
        client,
        settings.redis.generation,
        served.resolution_ms,
        num_buckets,
        owns=owns,
        rules=ReadRules.of(settings, served.resolution_ms),
    )
    contexts = Contexts(
        reader,
        shop,
        context_length=served.context_length,
        prediction_length=served.prediction_length,
        taught=partial(effects.at_or_after, served.resolution_ms),
        country=settings.calendar.country,
    )

    def segments(item_ids: Sequence[str]) -> list[str]:
        return segments_of(item_ids, settings.drift, shop, settings.events.series_by)

    return WindowHistory(contexts, segments, stopped)
