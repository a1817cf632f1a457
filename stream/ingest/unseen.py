"""Paths of a map that no record of a topic has: told once, with the nearest path that one has."""

from __future__ import annotations

from collections.abc import Iterable

from freshet.stream.events.map.missing import ENOUGH_RECORDS, NeverSeen
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


def tell(topic: str, paths: Iterable[NeverSeen], metrics: IngestMetrics) -> None:
    """Log and count paths that were never there."""
    for one in paths:
        metrics.path_never_seen.labels(topic, one.field).set(1)
        log.warning(
            "path_never_seen",
            topic=topic,
            field=one.field,
            path=one.path,
            records=ENOUGH_RECORDS,
            hint=f"did you mean {one.nearest!r}?" if one.nearest else "no path is like it",
        )
