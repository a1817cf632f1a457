"""All that belongs to a worker's shards, and what of it outlives a restart."""

from __future__ import annotations

import redis
import torch

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.pending import PendingForecasts
from freshet.online.worker.coldstart import ColdStart
from freshet.online.worker.context import Contexts
from freshet.online.worker.group import Membership
from freshet.online.worker.recovery import Tail, read_alarms, read_forecasts, read_scores
from freshet.online.worker.scorer import Scorer, segments_of
from freshet.online.worker.sums import StepSums
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import Settings
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.telemetry import get_logger

SPARE_BUCKETS = 72  # beyond context and horizon, for forecasts that wait long to be scored

log = get_logger(__name__)


class OwnedShards:
    """The shards that a worker owns: windows, contexts, sums, pending forecasts, drift detectors.

    Made anew when other shards are assigned.

    Args:
        settings: All of them.
        reader: Of the items of these shards, with buckets to spare beyond context and horizon.
        shop: Catalogue, promotions and inventory.
        membership: Whose `version` this stands for.
        device: Where contexts live.

    Attributes:
        previous_ms: Cutoff of the last round, None before the first.
    """

    def __init__(
        self,
        settings: Settings,
        reader: WindowReader,
        shop: ShopTables,
        membership: Membership,
        device: torch.device,
    ) -> None:
        worker, series_by = settings.worker, settings.events.series_by
        steps = tuple(step for step in worker.score_steps if 1 <= step <= worker.prediction_length)
        self.membership_version = membership.version
        self.reader = reader
        self.shop = shop
        self.contexts = Contexts(
            reader,
            shop,
            context_length=worker.context_length,
            prediction_length=worker.prediction_length,
            device=device,
        )
        self.sums = StepSums(worker.resolution_ms, worker.prediction_length)
        self.cold = ColdStart(series_by, membership.owns)
        self.pending = PendingForecasts(steps, worker.resolution_ms, worker.max_pending_cutoffs)
        self.monitor = DriftMonitor(settings.drift, worker.resolution_ms)
        self.scorer = Scorer(
            self.contexts,
            self.pending,
            self.monitor,
            segments=lambda item_ids: segments_of(item_ids, settings.drift, shop, series_by),
            season_length=worker.season_length,
        )
        self.previous_ms: int | None = None

    def unforecast(self, cutoff_ms: int) -> tuple[list[int], list[str]]:
        """Items without a forecast at this cutoff: rows, and ids of cold items without a row."""
        contexts = self.contexts
        done = self.pending.items_at(cutoff_ms)
        rows = [row for row, item_id in enumerate(contexts.item_ids) if item_id not in done]
        horizon_ms = contexts.prediction_length * self.reader.resolution_ms
        cold = self.cold.item_ids(self.shop, cutoff_ms, horizon_ms)
        return rows, [item_id for item_id in cold if item_id not in done]

    def recover(
        self,
        settings: Settings,
        membership: Membership,
        now_ms: int,
        latest_ms: int = MAX_TIME_MS,
    ) -> None:
        """Learn from the topics what the worker before me did.

        What they say of times after `latest_ms` is passed over.

        Raises:
            BrokerError: Not all of it could be read; nothing here may be used then.
        """
        topics, pending = settings.kafka.topics, self.pending
        forecasts = read_forecasts(
            Tail(settings, topics.forecasts),
            pending,
            oldest_cutoff_ms=self._oldest_cutoff_ms(),
            owns=membership.owns,
            latest_ms=latest_ms,
        )
        scores = read_scores(
            Tail(settings, topics.scores), pending, owns=membership.owns, latest_ms=latest_ms
        )
        for bucket_ms, found in scores.items():
            self.scorer.watch(bucket_ms, found, now_ms)
        for alert in read_alarms(Tail(settings, topics.drift), latest_ms):
            self.monitor.adopt(alert)
        # A foreign record may name a cutoff that the windows have not reached: it is no round.
        live_ms = self.reader.live_cutoff_ms()
        done = [at_ms for at_ms in pending.cutoffs if live_ms is None or at_ms <= live_ms]
        if done:
            # The last round of the worker before may be unfinished: look at its cutoff once more.
            self.previous_ms = max(done) - pending.resolution_ms
        log.info(
            "recovered",
            forecasts=forecasts,
            scored_buckets=len(scores),
            cutoffs=len(pending.cutoffs),
        )

    def _oldest_cutoff_ms(self) -> int:
        """Forecasts from before it have no step left whose bucket the reader still holds."""
        final_ms = self.reader.final_ms() or 0
        steps = max(self.pending.score_steps, default=0) + SPARE_BUCKETS
        return final_ms - steps * self.pending.resolution_ms


def take_over(
    settings: Settings,
    client: redis.Redis,
    shop: ShopTables,
    membership: Membership,
    *,
    device: torch.device,
    now_ms: int,
    latest_ms: int = MAX_TIME_MS,
) -> OwnedShards:
    """The shards that are this worker's now, as the worker before left them.

    Raises:
        BrokerError: What it left could not be read.
        StoreUnavailableError: Redis does not answer.
    """
    worker = settings.worker
    reader = WindowReader(
        client,
        settings.redis.generation,
        worker.resolution_ms,
        worker.context_length + worker.prediction_length + SPARE_BUCKETS,
        owns=membership.owns,
        rules=ReadRules.of(settings, worker.resolution_ms),
    )
    owned = OwnedShards(settings, reader, shop, membership, device)
    owned.cold.saw(owned.contexts.refresh().new_items)
    owned.recover(settings, membership, now_ms, latest_ms)
    return owned
