"""Whether history and live records of a topic are of one shop: same partitions, same series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Final

from freshet.stream.clock import wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.events.decoder import EventKind
from freshet.stream.kafka import partitions_of
from freshet.stream.kafka.placing import partition_of_key
from freshet.stream.ops.trial import RawRecord, trial
from freshet.stream.ops.trial_records import newest
from freshet.stream.schemas import item_id_parts
from freshet.stream.source.history import History

LOOKED_AT: Final = 200
FEWEST: Final = 5
MAX_SHARE: Final = 0.1
"""Some keys may be of a time at which the topic had fewer partitions."""
PLACED_BY_MURMUR2: Final = (
    "let whoever sends live records place them as Kafka's own producer does "
    "(librdkafka: partitioner=murmur2_random), or an order counts once on each partition"
)


def misplaced(records: Sequence[RawRecord], num_partitions: int) -> tuple[int, int]:
    """How many records lie where Kafka's own producer would not put their keys; of how many."""
    keyed = [record for record in records if record.key is not None]
    elsewhere = sum(
        partition_of_key(record.key or b"", num_partitions) != record.partition for record in keyed
    )
    return elsewhere, len(keyed)


def placed_otherwise(records: Sequence[RawRecord], num_partitions: int) -> str:
    """What to say of a topic whose keys are placed by another rule; empty of one that is right."""
    elsewhere, keyed = misplaced(records, num_partitions)
    if keyed < FEWEST or elsewhere <= MAX_SHARE * keyed:
        return ""
    return f"{elsewhere} of {keyed} keys do not lie on the partition that murmur2 gives them"


def placing_warnings(
    settings: Settings, topic: str, kind: EventKind, records: Sequence[RawRecord]
) -> list[str]:
    """What to say of live records whose versions of one order would lie on two partitions."""
    if kind != "orders" or settings.events.orders.mode != "state":
        return []
    said = placed_otherwise(records, partitions_of(settings, [topic])[topic])
    return [f"{said}; {PLACED_BY_MURMUR2}"] if said else []


def held_against_topic(settings: Settings, history: History) -> tuple[History, list[str]]:
    """The same history, and what a person should know before it is sent beside live records.

    Raises:
        InvalidInputError: An order of the file and its live versions would lie on two partitions,
            and count twice.
    """
    topic = settings.kafka.topics.orders
    live = newest(settings, topic, LOOKED_AT)
    records = iter(history.records)
    first = list(islice(records, LOOKED_AT))
    orders = [record for record in first if record.kind == "orders"]
    if orders and settings.events.orders.mode == "state":
        said = placed_otherwise(live, partitions_of(settings, [topic])[topic])
        if said:
            raise InvalidInputError(
                f"{topic}: {said}; history is placed by it, so an order of {history.name} that "
                "changes live would count twice",
                hint=PLACED_BY_MURMUR2,
            )
    now_ms = wall_now_ms()
    old = [RawRecord(one.value, one.key, one.headers, now_ms) for one in orders]
    return replace(history, records=chain(first, records)), list(_regions(settings, old, live))


def _regions(
    settings: Settings, old: Sequence[RawRecord], live: Sequence[RawRecord]
) -> Iterator[str]:
    """Regions that history and the topic do not share: then each series begins anew."""
    theirs, ours = _found(settings, old, old=True), _found(settings, live, old=False)
    if theirs and ours and not theirs & ours:
        some, others = (", ".join(sorted(regions)[:3]) for regions in (theirs, ours))
        yield (
            f"history is of the regions {some}, live records of {others}: no series has both; "
            "map region to the same (--map region=COLUMN, or events.orders.fields.region)"
        )


def _found(settings: Settings, records: Sequence[RawRecord], *, old: bool) -> set[str]:
    tried = trial(settings, "orders", records, old=old).tried
    return {item_id_parts(line.item_id)[-1] for one in tried for line in one.lines}
