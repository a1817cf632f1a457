"""What forecasts of a round have in common, and the records that a round sends."""

from __future__ import annotations

from collections.abc import Sequence

from freshet.online.forecast.publish import Origin
from freshet.online.weights.loaded import Serving
from freshet.online.worker.served import Served
from freshet.online.worker.shard import OwnedShards
from freshet.stream.codec import encode
from freshet.stream.config import Settings, Topics
from freshet.stream.kafka import Outgoing
from freshet.stream.schemas import Forecast, ForecastRound, ShardScored


def origin_of(
    settings: Settings,
    served: Served,
    serving: Serving,
    *,
    cutoff_ms: int,
    now_ms: int,
    side_offsets: dict[str, int],
) -> Origin:
    """What all forecasts of a round that begins now have in common, as the default makes them.

    `side_offsets` say how far the shop's tables are told; they do not move within a round.
    """
    effects = served.effects.of(cutoff_ms)
    amiss = bool(serving.fallback) or served.rolled_back or served.effects.missing(cutoff_ms)
    return Origin(
        resolution_ms=served.resolution_ms,
        cutoff_ms=cutoff_ms,
        issued_at_ms=now_ms,
        weights_version=serving.default.version,
        weights_sha256=serving.default.sha256,
        offsets=served.reader.offsets() | side_offsets,
        series_by=settings.events.series_by,
        degraded=amiss,
        warming_up=served.warming_up(cutoff_ms),
        conversion=settings.worker.conversion,
        edges_ms=served.edges_ms(cutoff_ms),
        effects_sha256="" if effects is None else effects.sha256,
        decision_sha256="" if served.adjusted is None else served.adjusted.sha256,
    )


def outgoing_forecasts(topics: Topics, forecasts: Sequence[Forecast]) -> list[Outgoing]:
    """Each forecast for the log, and for the table of the newest where there is one."""
    outgoing = []
    for record in forecasts:
        value = encode(record)
        outgoing.append(Outgoing(topics.forecasts, record.item_id.encode(), value))
        if topics.forecasts_latest:
            key = f"{record.item_id}@{record.resolution_ms}".encode()
            outgoing.append(Outgoing(topics.forecasts_latest, key, value))
    return outgoing


def outgoing_shadow(topics: Topics, forecasts: Sequence[Forecast]) -> list[Outgoing]:
    """Forecasts as they would be without adjustments; nobody is served them."""
    return [
        Outgoing(topics.shadow, record.item_id.encode(), encode(record)) for record in forecasts
    ]


def outgoing_rounds(topics: Topics, rounds: Sequence[ForecastRound]) -> list[Outgoing]:
    """What is said of rounds that are over."""
    return [
        Outgoing(topics.rounds, f"{one.shard}@{one.resolution_ms}".encode(), encode(one))
        for one in rounds
    ]


def outgoing_scored(
    topics: Topics, owned: OwnedShards, *, until_ms: int, num_shards: int, now_ms: int
) -> list[Outgoing]:
    """That all shards that are owned are scored so far, by the main resolution."""
    begun_ms = [state.first_event_ms for state in owned.main.reader.inputs.values()]
    first_ms = min((at_ms for at_ms in begun_ms if at_ms is not None), default=None)
    return [
        Outgoing(
            topics.scored,
            f"{shard}@{owned.main.resolution_ms}".encode(),
            encode(
                ShardScored(
                    shard=shard,
                    num_shards=num_shards,
                    resolution_ms=owned.main.resolution_ms,
                    scored_until_ms=until_ms,
                    scored_at_ms=now_ms,
                    begun_ms=first_ms,
                )
            ),
        )
        for shard in sorted(owned.marks)
    ]
