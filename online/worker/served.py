"""One resolution of a worker's shards: windows, contexts, sums, and forecasts that wait for scores.

Where only flash sales are served, windows are held of items alone whose sale is near, runs, or has
forecasts that wait to be scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.calibrated import Calibrated
from freshet.online.adjust.decision import Adjusted, Decisions
from freshet.online.drift.pending import PendingForecasts
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.coldstart import ColdStart
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.effects import RoundEffects, has_owner
from freshet.online.forecast.sales import SaleSpan, begun_ms, sale_spans, skus_at
from freshet.online.forecast.sums import StepSums
from freshet.online.forecast.wholedays import FollowsDays, LeadsHours
from freshet.online.worker.group import Membership
from freshet.online.worker.marks import NONE_YET, Mark
from freshet.online.worker.pace import Pace
from freshet.online.worker.rounds import (
    Places,
    Round,
    Work,
    places_of,
    plan_round,
    previous_cutoff_ms,
    work_left,
)
from freshet.online.worker.scorer import Scorer
from freshet.stream.catalog.segments import segments_of
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.schemas import item_id_parts
from freshet.stream.units import DAY_MS, HOUR_MS

WARM_BUCKETS = 3  # of which the first is seen in part
SPARE_BUCKETS = 72  # beyond context and horizon, for forecasts that wait long to be scored
SALES_KNOWN_MS = 2 * DAY_MS  # how far back ended sales tell which cutoffs nobody forecast

OpenReader = Callable[[ServedResolution, int, Callable[[str], bool]], WindowReader]
"""Opens the windows of a resolution: how many buckets of which items."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the windows and side inputs of a worker's shards come from."""

    open_reader: OpenReader
    shop: ShopTables
    membership: Membership
    device: torch.device
    effects: EffectsTable | None = None
    """What all items do alike; None where nobody estimates it."""
    decisions: Decisions = field(default_factory=Decisions)
    """How segments in alarm are served."""
    regions: set[str] = field(default_factory=set)
    """That items of any resolution were seen in."""


class Served:
    """Forecasts of a worker's shards by steps of one width.

    Args:
        settings: All of them.
        served: Which width, and how many steps.
        source: Windows and side inputs.
        watched: Whether this is the resolution that is watched for drift.
    """

    def __init__(
        self,
        settings: Settings,
        served: ServedResolution,
        source: Source,
        *,
        watched: bool = False,
    ) -> None:
        self.served = served
        self.resolution_ms = served.resolution_ms
        self._settings, self._source = settings, source
        steps = tuple(step for step in served.score_steps if 1 <= step <= served.prediction_length)
        self.pending = PendingForecasts(
            steps,
            served.resolution_ms,
            settings.worker.max_pending_cutoffs,
            time_zone=settings.calendar.time_zone,
        )
        # Forecasts without adjustments, of items that are served differently.
        self.shadow = PendingForecasts(
            steps,
            served.resolution_ms,
            settings.worker.max_pending_cutoffs,
            time_zone=settings.calendar.time_zone,
        )
        adjusts = watched and settings.worker.adjust
        self.adjusted = (
            Adjusted(source.decisions, served.resolution_ms, self.segments_of) if adjusts else None
        )
        calibrates = watched and settings.worker.calibrate
        self.calibrated = (
            Calibrated(source.decisions, served.resolution_ms, self.segments_of)
            if calibrates
            else None
        )
        self.effects = RoundEffects(
            source.effects if has_owner(served) else None, served.resolution_ms
        )
        self.sums = StepSums(served.resolution_ms, served.prediction_length)
        self.cold = ColdStart(
            settings.events.series_by, source.membership.owns, regions=source.regions
        )
        self.whole_days: FollowsDays | LeadsHours | None = None
        """What the round in hand has to agree with."""
        self.looked_s = 0.0
        """When the windows were read last, on the monotonic clock."""
        self.has_news = False
        """Whether buckets may have become final since all that were had been scored."""
        self.rolled_back = False
        """Whether Redis holds less than it did."""
        self._rests_until_s = 0.0
        self._series_by = settings.events.series_by
        # Of flash sales: what the shop's tables said, at which version and hour, and whose windows
        # are held.
        self._spans: list[SaleSpan] = []
        self._spans_of = (-1, -1)
        self._held_skus: frozenset[str] = frozenset()
        self._open()

    def _open(self) -> None:
        """Windows anew, of the items that are held now; forecasts that wait go on waiting."""
        served, source = self.served, self._source
        num_buckets = served.context_length + served.prediction_length + SPARE_BUCKETS
        owns = self._holds if served.flash_sales_only else source.membership.owns
        self.reader = source.open_reader(served, num_buckets, owns)
        self.pace = Pace(self.reader.rules)
        self.contexts = Contexts(
            self.reader,
            source.shop,
            context_length=served.context_length,
            prediction_length=served.prediction_length,
            device=source.device,
            taught=self.effects.of,
            country=self._settings.calendar.country,
        )
        self.scorer = Scorer(
            self.contexts,
            self.pending,
            segments=self.segments_of,
            season_length=served.season_length,
            holds=self._holds if served.flash_sales_only else lambda _: True,
            unadjusted=self.shadow,
            decisions=source.decisions,
        )
        self._place_I: Places = places_of([])

    def segments_of(self, item_ids: Sequence[str]) -> list[str]:
        drift, shop = self._settings.drift, self._source.shop
        return segments_of(item_ids, drift, shop, self._series_by)

    def beginnings(self, item_ids: Sequence[str]) -> list[Beginning | None]:
        """From where contexts of items begin whose segment drifts."""
        return [None] * len(item_ids) if self.adjusted is None else self.adjusted.of(item_ids)

    def besides(self, rows: Sequence[int]) -> list[int]:
        """Those of some rows that are forecast without adjustments besides."""
        if self.adjusted is None:
            return []
        row_of = {self.reader.item_ids[row]: row for row in rows}
        return [row_of[item_id] for item_id in self.adjusted.besides(list(row_of))]

    # Windows --------------------------------------------------------------------------------------

    def refresh(self, now_ms: int) -> Delta | None:
        """Take in what changed in Redis; None where there is nothing to hold.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        self.looked_s = time.monotonic()
        if self.served.flash_sales_only and not self._follow_sales(now_ms):
            # Otherwise the loop would ask again at once, and turn as fast as it can.
            self.pace.read({}, started_s=self.looked_s, ended_s=self.looked_s)
            return None
        delta = self.contexts.refresh()
        self.pace.read(self.reader.inputs, started_s=self.looked_s, ended_s=time.monotonic())
        self.has_news = True
        self.rolled_back = bool(delta.rolled_back)
        self.cold.saw(delta.new_items)
        self._place_I = np.concatenate([self._place_I, places_of(delta.new_items)])
        return delta

    def _follow_sales(self, now_ms: int) -> bool:
        """Hold the windows of all items that are on sale now, or wait for scores; whether any."""
        rules = self.reader.rules
        linger_ms = (self.served.prediction_length + SPARE_BUCKETS) * self.resolution_ms
        linger_ms += rules.out_of_order_ms + rules.allowed_lateness_ms
        self._look_up_sales(now_ms, linger_ms)
        wanted = skus_at(self._spans, now_ms, linger_ms)
        if not wanted <= self._held_skus:
            self._held_skus = wanted | self._waiting_skus()
            self._open()
        return bool(wanted or self.pending.cutoffs)

    def _look_up_sales(self, now_ms: int, linger_ms: int) -> None:
        shop, hour = self._source.shop, now_ms // HOUR_MS
        if (shop.version, hour) != self._spans_of:
            from_ms = now_ms - linger_ms - SALES_KNOWN_MS
            self._spans = sale_spans(shop, from_ms, now_ms + HOUR_MS)
            self._spans_of = (shop.version, hour)

    def _waiting_skus(self) -> frozenset[str]:
        waiting = self.pending
        return frozenset(
            self._sku(item_id)
            for cutoff_ms in waiting.cutoffs
            for item_id in waiting.items_at(cutoff_ms)
        )

    def _holds(self, item_id: str) -> bool:
        return self._sku(item_id) in self._held_skus and self._source.membership.owns(item_id)

    def _sku(self, item_id: str) -> str:
        fields = dict(zip(self._series_by, item_id_parts(item_id), strict=False))
        return fields.get("sku", "")

    def warming_up(self, cutoff_ms: int) -> bool:
        """Whether too few buckets were seen of the shop to say anything of what will sell."""
        first_ms = [state.first_event_ms for state in self.reader.inputs.values()]
        begun = [at_ms for at_ms in first_ms if at_ms is not None]
        grid = self.reader.rules.grid
        return not begun or grid.bucket(cutoff_ms) - grid.bucket(min(begun)) < WARM_BUCKETS

    def edges_ms(self, cutoff_ms: int) -> tuple[int, ...] | None:
        """Starts of the steps and the end of the last; None where all are equally long."""
        grid = self.reader.rules.grid
        if grid.even:
            return None
        edges_ms = grid.span_edges(grid.bucket(cutoff_ms), self.served.prediction_length)
        return tuple(edges_ms.tolist())

    # Rounds ---------------------------------------------------------------------------------------

    def rests_after(self, took_s: float) -> None:
        """A round is over: others have as much time before the next one interrupts them."""
        self._rests_until_s = time.monotonic() + took_s

    def rested(self) -> bool:
        """Whether a round may interrupt one of coarser steps."""
        return time.monotonic() >= self._rests_until_s

    def due(self, marks: Iterable[Mark | None]) -> Round | None:
        """The round that is due by what is held, if any; `marks` are those of the owned shards.

        None, too, while it waits for shared effects.
        """
        found = self._planned(marks)
        if found is None or self.warming_up(found.cutoff_ms):
            return found
        return found if self.effects.ready(found.cutoff_ms) else None

    def waits(self, marks: Iterable[Mark | None]) -> bool:
        """Whether a round waits for shared effects."""
        marks = list(marks)
        return self.due(marks) is None and self._planned(marks) is not None

    def _planned(self, marks: Iterable[Mark | None]) -> Round | None:
        newest_ms = self.reader.live_cutoff_ms()
        previous_ms = previous_cutoff_ms(marks)
        if newest_ms is None or not self.served.flash_sales_only:
            return plan_round(previous_ms, newest_ms, self.reader.rules.grid)
        begin_ms = begun_ms(self._spans, newest_ms)
        if begin_ms is None:
            return None
        # Nobody waits for forecasts from before a sale is known; the first is at that moment.
        known_ms = previous_ms if previous_ms is None else max(previous_ms, begin_ms - 1)
        return plan_round(known_ms, newest_ms, self.reader.rules.grid)

    def _since_ms(self, cutoff_ms: int) -> int:
        """After when, without a break, forecasts are expected at every cutoff."""
        if not self.served.flash_sales_only:
            return 0
        begin_ms = begun_ms(self._spans, cutoff_ms)
        return cutoff_ms if begin_ms is None else begin_ms - 1

    def work(self, cutoff_ms: int, marks: Mapping[int, Mark]) -> Work:
        """The items left to forecast at a cutoff, of the shards that are marked at it.

        Those whose forecast was read back are done too: a worker that knew no marks made it.
        """
        horizon_ms = self.served.prediction_length * self.resolution_ms
        cold = self.cold.item_ids(self._source.shop, cutoff_ms, horizon_ms)
        wanted = self._wanted(cutoff_ms)
        rows = np.array(
            [row for row, item_id in enumerate(self.reader.item_ids) if wanted(item_id)], np.int64
        )
        cold = [item_id for item_id in cold if wanted(item_id)]
        num_shards = self._source.membership.num_shards
        return work_left(rows, self._place_I[rows], cold, marks, num_shards)

    def _wanted(self, cutoff_ms: int) -> Callable[[str], bool]:
        done = self.pending.items_at(cutoff_ms)
        if not self.served.flash_sales_only:
            return lambda item_id: item_id not in done
        on_sale = skus_at(self._spans, cutoff_ms)
        return lambda item_id: item_id not in done and self._sku(item_id) in on_sale

    def begin(
        self, cutoff_ms: int, known: Mapping[int, Mark | None]
    ) -> tuple[Work, dict[int, Mark]]:
        """The work of a round, and the marks of the shards that it is about; begun ones go on."""
        begun = {}
        for shard, mark in known.items():
            if mark is None or mark.cutoff_ms < cutoff_ms:
                begun[shard] = Mark(cutoff_ms, NONE_YET, 0, 0, self._skipped(mark, cutoff_ms))
            elif mark.cutoff_ms == cutoff_ms and not mark.complete:
                begun[shard] = mark
        work = self.work(cutoff_ms, begun)
        counts = work.counts()
        for shard, mark in begun.items():
            expected = mark.published + counts.get(shard, 0)
            begun[shard] = replace(mark, expected=max(mark.expected, expected))
        return work, begun

    def _skipped(self, before: Mark | None, cutoff_ms: int) -> int:
        """Cutoffs between a shard's last round and this one."""
        if before is None:
            return 0
        grid = self.reader.rules.grid
        last_ms = max(before.cutoff_ms, self._since_ms(cutoff_ms))
        return max(grid.bucket(cutoff_ms) - grid.bucket(last_ms) - 1, 0)
