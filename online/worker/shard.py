"""All that belongs to a worker's shards, and what of it outlives a restart."""

from __future__ import annotations

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
from freshet.stream.config import Settings
from freshet.stream.read.reader import WindowReader
from freshet.stream.telemetry import get_logger

SPARE_BUCKETS = 72  # beyond context and horizon, for forecasts that wait long to be scored

log = get_logger(__name__)


def num_buckets(settings: Settings) -> int:
    """How many buckets a worker's reader has to hold."""
    return settings.worker.context_length + settings.worker.prediction_length + SPARE_BUCKETS


class OwnedShards:
    """The shards that a worker owns: windows, contexts, sums, pending forecasts, drift detectors.

    Made anew when other shards are assigned.

    Args:
        settings: All of them.
        reader: Of `num_buckets` buckets, for the items of these shards.
        shop: Catalogue, promotions and inventory.
        membership: Whose `version` this stands for.
        device: Where contexts live.
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

    def recover(self, settings: Settings, membership: Membership, now_ms: int) -> None:
        """Learn from the topics what the worker before me did.

        Raises:
            BrokerError: Not all of it could be read; nothing here may be used then.
        """
        topics, pending = settings.kafka.topics, self.pending
        final_ms, kept = (
            self.reader.final_ms() or 0,
            max(pending.score_steps, default=0) + SPARE_BUCKETS,
        )
        oldest_ms = final_ms - kept * pending.resolution_ms
        forecasts = read_forecasts(
            Tail(settings, topics.forecasts),
            pending,
            oldest_cutoff_ms=oldest_ms,
            owns=membership.owns,
        )
        scores = read_scores(Tail(settings, topics.scores), pending, owns=membership.owns)
        for bucket_ms, found in scores.items():
            self.scorer.watch(bucket_ms, found, now_ms)
        for alert in read_alarms(Tail(settings, topics.drift)):
            self.monitor.adopt(alert)
        self.previous_ms = max(pending.cutoffs, default=None)
        log.info(
            "recovered",
            forecasts=forecasts,
            scored_buckets=len(scores),
            cutoffs=len(pending.cutoffs),
        )
