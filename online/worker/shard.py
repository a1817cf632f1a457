"""All that belongs to a worker's shards, and what of it outlives a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain

import msgspec
import redis
import torch

from freshet.online.adjust.decision import Decisions
from freshet.online.effects.table import EffectsTable
from freshet.online.forecast.wholedays import (
    DaySums,
    FollowsDays,
    Hours,
    LeadsHours,
    whole_day_ends,
)
from freshet.online.worker.earlier import Earlier, waiting_cutoffs_ms
from freshet.online.worker.group import Membership
from freshet.online.worker.marks import Mark, Marks
from freshet.online.worker.recovery import (
    PublishedForecast,
    Tail,
    read_forecasts,
    read_scores,
)
from freshet.online.worker.served import SPARE_BUCKETS, OpenReader, Served, Source
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import Cumulative, Forecast
from freshet.stream.telemetry import get_logger
from freshet.stream.units import DAY_MS

log = get_logger(__name__)


class OwnedShards:
    """The shards that a worker owns: how far their forecasts are, and all that makes more of them.

    Made anew when other shards are assigned.

    Args:
        settings: All of them.
        source: Windows and side inputs.

    Attributes:
        marks: How far each shard's forecasts have come.
        served: By resolution, finest steps first.
        days: Those by the day, if any.
        day_sums: What the newest forecasts by the day say.
        scored_until_ms: How far the main resolution is scored, as was said last; -1: nothing was.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self.membership_version = source.membership.version
        self.shop = source.shop
        self.marks: dict[int, Marks] = {shard: {} for shard in source.membership.shards}
        main_ms = settings.main.resolution_ms
        self.served = tuple(
            Served(settings, one, source, watched=one.resolution_ms == main_ms)
            for one in settings.served
        )
        self.main = next(one for one in self.served if one.resolution_ms == main_ms)
        self.days = next((one for one in self.served if one.resolution_ms == DAY_MS), None)
        self.day_sums = DaySums()
        self.scored_until_ms = -1

    def marks_of(self, served: Served) -> dict[int, Mark | None]:
        """How far each shard has come with one resolution."""
        return {shard: marks.get(served.resolution_ms) for shard, marks in self.marks.items()}

    def marks_with(self, served: Served, moved: Mapping[int, Mark]) -> dict[int, Marks]:
        """The marks of some shards as they will be once these have moved."""
        return {
            shard: {**self.marks[shard], served.resolution_ms: mark}
            for shard, mark in moved.items()
        }

    def whole_days(self, served: Served, cutoff_ms: int) -> list[int]:
        """After how many of its steps whole days end, where it shares a cutoff with days."""
        days = self.days
        if days is None or days is served or served.served.flash_sales_only:
            return []
        most = days.served.prediction_length
        return whole_day_ends(cutoff_ms, days.reader.rules.grid, served.served, most)

    def days_before(self, served: Served) -> Served | None:
        """The days that begin at the cutoff which is due by other steps."""
        due = served.due(self.marks_of(served).values())
        return self.days if due is not None and self.whole_days(served, due.cutoff_ms) else None

    def tie(self, served: Served, cutoff_ms: int) -> None:
        """Before a round: what it has to agree with."""
        if served is self.days:
            hours = self._hours(cutoff_ms)
            served.whole_days = LeadsHours(cutoff_ms, hours)
            return
        ends = self.whole_days(served, cutoff_ms)
        served.whole_days = FollowsDays(self.day_sums, cutoff_ms, ends) if ends else None

    def published(self, served: Served, forecasts: Iterable[Forecast]) -> None:
        """Keep what days say, and hold hours against it."""
        if served is self.days:
            for record in forecasts:
                if record.quantiles:
                    self.day_sums.take(record, record.quantiles[0], record.cumulative)
        elif isinstance(served.whole_days, FollowsDays):
            served.whole_days.count(forecasts)

    def _hours(self, cutoff_ms: int) -> Hours | None:
        """The coarsest steps that share a cutoff with days, if they have come so far."""
        for one in reversed(self.served):
            ends = self.whole_days(one, cutoff_ms)
            if ends and (one.reader.live_cutoff_ms() or 0) >= cutoff_ms:
                return Hours(one.contexts, one.sums, ends)
        return None

    def _said_of_days(self, found: PublishedForecast) -> None:
        if found.resolution_ms == DAY_MS and found.quantiles:
            try:
                first = msgspec.json.decode(found.quantiles[0], type=list[float])
                sums = msgspec.json.decode(found.cumulative, type=Cumulative | None)
            except msgspec.DecodeError as error:
                log.warning("record_not_read", error=str(error))
                return
            self.day_sums.take(found, first, sums)

    def recover(
        self,
        settings: Settings,
        membership: Membership,
        latest_ms: int = MAX_TIME_MS,
    ) -> None:
        """Learn from the group's offsets and the topics what the worker before me did.

        What topics say of times after `latest_ms` is passed over.

        Raises:
            BrokerError: Not all of it could be read; nothing here may be used then.
        """
        # First, because it waits until what the last owner began is over.
        self.marks |= membership.marks()
        topics = settings.kafka.topics
        pending = {one.resolution_ms: one.pending for one in self.served}
        tail = Tail(settings, topics.forecasts)
        earlier = Earlier(settings, topics.forecasts, self._waiting_cutoffs_ms(), tail)
        forecasts = read_forecasts(
            chain(tail, earlier),
            pending,
            oldest_cutoff_ms={one.resolution_ms: _oldest_cutoff_ms(one) for one in self.served},
            owns=membership.owns,
            latest_ms=latest_ms,
            also=self._said_of_days,
        )
        shadows = {one.resolution_ms: one.shadow for one in self.served}
        read_forecasts(
            Tail(settings, topics.shadow),
            shadows,
            oldest_cutoff_ms={one.resolution_ms: _oldest_cutoff_ms(one) for one in self.served},
            owns=membership.owns,
            latest_ms=latest_ms,
        )
        scored_buckets = read_scores(
            Tail(settings, topics.scores),
            pending,
            owns=membership.owns,
            latest_ms=latest_ms,
            shadows=shadows,
        )
        log.info(
            "recovered",
            forecasts=forecasts,
            scored_buckets=scored_buckets,
            cutoffs=sum(len(one.pending.cutoffs) for one in self.served),
        )

    def _waiting_cutoffs_ms(self) -> list[int]:
        return [
            cutoff_ms
            for one in self.served
            for cutoff_ms in waiting_cutoffs_ms(one.pending, one.reader.final_ms())
        ]


def _oldest_cutoff_ms(served: Served) -> int:
    """Forecasts from before it have no step left whose bucket the reader still holds."""
    final_ms = served.reader.final_ms() or 0
    steps = max(served.pending.score_steps, default=0) + SPARE_BUCKETS
    return final_ms - steps * served.resolution_ms


def take_over(
    settings: Settings,
    client: redis.Redis,
    shop: ShopTables,
    membership: Membership,
    *,
    device: torch.device,
    now_ms: int,
    latest_ms: int = MAX_TIME_MS,
    effects: EffectsTable | None = None,
    decisions: Decisions,
) -> OwnedShards:
    """The shards that are this worker's now, as the worker before left them.

    Raises:
        BrokerError: What it left could not be read.
        StoreUnavailableError: Redis does not answer.
    """
    source = Source(opener(settings, client), shop, membership, device, effects, decisions)
    owned = OwnedShards(settings, source)
    for one in owned.served:
        one.refresh(now_ms)
    owned.recover(settings, membership, latest_ms)
    return owned


def opener(settings: Settings, client: redis.Redis) -> OpenReader:
    """Opens the windows that Redis holds."""

    def open_reader(
        served: ServedResolution, num_buckets: int, owns: Callable[[str], bool]
    ) -> WindowReader:
        return WindowReader(
            client,
            settings.redis.generation,
            served.resolution_ms,
            num_buckets,
            owns=owns,
            rules=ReadRules.of(settings, served.resolution_ms),
        )

    return open_reader
