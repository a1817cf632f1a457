"""What ingest counts and times, for Prometheus; labelled by topic and partition, never by item."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from freshet.stream.fold.batches import Counts
from freshet.stream.ingest.assignment import Owned
from freshet.stream.kafka import Key
from freshet.stream.store.layout import OUTCOMES

PLACE = ("topic", "partition")
STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH_BUCKETS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000)


class IngestMetrics:
    """All of ingest's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)

        # Where partitions stand.
        self.lag_records = gauge(
            "freshet_ingest_lag_records", "Records in the log that are not in the windows.", PLACE
        )
        self.lag_seconds = gauge(
            "freshet_ingest_lag_seconds",
            "Clock time since the timestamp of the newest record read, 0 at the log's end.",
            PLACE,
        )
        self.watermark_age_seconds = gauge(
            "freshet_ingest_watermark_age_seconds", "Clock time since the watermark.", PLACE
        )
        self.owned = gauge("freshet_ingest_partitions", "Partitions owned by this process.")
        self.items = gauge("freshet_ingest_items", "Items in the dictionaries of owned partitions.")
        self.versions = gauge(
            "freshet_ingest_versions", "Versions of the shop's tables in Redis, whoever keeps them."
        )
        self.redis_bytes = gauge(
            "freshet_ingest_redis_bytes", "Memory that Redis uses, whoever's keys it holds."
        )

        # What became of records, and how long that took.
        self.records = counter(
            "freshet_ingest_records",
            "Records read, by what became of them.",
            ("topic", "outcome"),
        )
        self._troubles = counter("freshet_ingest_troubles", "Waits, by what for.", ("what",))
        self.refused = counter("freshet_records_refused", "Never taken by Kafka.", ("topic",))
        self.skipped = counter(
            "freshet_ingest_skipped", "Records skipped, by why.", ("topic", "reason")
        )
        self.lines_dead = counter(
            "freshet_ingest_lines_dead", "Dead lines of orders that were applied.", ("topic",)
        )
        self.conflicting = counter(
            "freshet_ingest_conflicting", "Duplicates that say otherwise than before.", ("topic",)
        )
        self.recent_share = gauge(
            "freshet_ingest_recent_share",
            "Share of a topic's records of the last minute (of the newest 20 where those are "
            "more) that came late, are dead, say that they are over a year old, or were skipped.",
            ("topic", "of"),
        )
        self.path_never_seen = gauge(
            "freshet_ingest_path_never_seen",
            "1 for a field whose path none of the first thousand records had.",
            ("topic", "field"),
        )
        self.dead_letters = counter(
            "freshet_ingest_dead_letters", "Dead letters by stage and error.", ("stage", "error")
        )
        self.batch_records = histogram(
            "freshet_ingest_batch_records", "Records of a partition's batch.", buckets=BATCH_BUCKETS
        )
        self.stage_seconds = histogram(
            "freshet_ingest_stage_seconds",
            "Wall time of a stage: read (and decode), fold, publish, apply.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
        )

        # What went wrong.
        self.fenced = counter("freshet_ingest_fenced", "Partitions lost to a newer owner.")
        self.gaps = counter(
            "freshet_ingest_gaps", "Times Redis was found behind, and was caught up."
        )
        self.replayed = counter(
            "freshet_ingest_replayed_records", "Records read again because Redis was behind."
        )
        self.dropped_versions = counter(
            "freshet_ingest_versions_dropped",
            "Versions that had to leave before their time, since there were too many.",
        )
        self.paused = gauge(
            "freshet_ingest_paused", "1 while too many dead letters pause ingest until SIGHUP."
        )

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Count the wall time of a block as that of a stage."""
        return self.stage_seconds.labels(stage).time()

    def trouble(self, what: str) -> None:
        """Something was waited for."""
        self._troubles.labels(what).inc()

    def batch_applied(
        self, topic: str, counts: Counts, skip_reasons: Mapping[str, int] | None = None
    ) -> None:
        """Count one batch, now that it is in the windows."""
        for reason, count in (skip_reasons or {}).items():
            self.skipped.labels(topic, reason).inc(count)
        self.batch_records.observe(counts.read)
        for outcome in OUTCOMES:
            self.records.labels(topic, outcome).inc(getattr(counts, outcome))
        self.lines_dead.labels(topic).inc(counts.lines_dead)
        self.conflicting.labels(topic).inc(counts.conflicting)

    def kept(self, topic: str, counts: Mapping[str, int]) -> None:
        """Count one batch of a table, now that its versions are stored."""
        for outcome in ("applied", "dead_letter", "skipped"):
            self.records.labels(topic, outcome).inc(counts[outcome])

    def holds(self, owned: Collection[Owned]) -> None:
        """What this process owns."""
        self.owned.set(len(owned))
        windows = [one.windows for one in owned if one.windows is not None]
        self.items.set(sum(one.header.items for one in windows))

    def stands(self, key: Key, owned: Owned, end: int, now_ms: int, out_of_order_ms: int) -> None:
        """Where an owned partition stands at this clock time, when its log ends at `end`."""
        place = (key[0], str(key[1]))
        lag = max(0, end - owned.position)
        self.lag_records.labels(*place).set(lag)

        newest_ms = owned.newest_timestamp_ms
        lag_ms = max(0, now_ms - newest_ms) if lag and newest_ms is not None else 0
        self.lag_seconds.labels(*place).set(lag_ms / 1_000)

        if owned.windows is not None and owned.windows.frontier_ms is not None:
            watermark_ms = owned.windows.frontier_ms - out_of_order_ms
            self.watermark_age_seconds.labels(*place).set((now_ms - watermark_ms) / 1_000)
