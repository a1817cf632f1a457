"""Which topics freshet needs and how each must be set, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from freshet.stream.config import KafkaSettings
from freshet.stream.schemas import RECORDS, SHOP_TABLES
from freshet.stream.units import DAY_MS

DEAD_LETTER_SUFFIX = ".dlq"
FOREVER = "-1"
LARGEST_MS = str(2**63 - 1)
BATCH_OVERHEAD_BYTES = 1_024
DEAD_LETTER_ROOM_BYTES = 64 * 1_024

TABLES = (*SHOP_TABLES, "models", "effects", "scored", "owner", "decisions")
"""What lies on compacted topics: the newest record of a key is what holds."""

TopicState = Literal["created", "exists", "mismatch", "automatic"]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic: name, number of partitions, and the settings that differ from the broker's.

    Without the settings in `needed` it does not do; any other may be a shop's own choice.
    """

    name: str
    partitions: int
    config: dict[str, str]
    needed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What became of one topic.

    `created`, `exists` (it will do; `warnings` say what is not as planned), `mismatch` (with
    `problems`, for which it will not do; nothing was altered), or `automatic`: the broker has no
    controller and makes topics when they are first used.
    """

    name: str
    state: TopicState
    partitions: int
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def dead_letter_topic(topic: str) -> str:
    """Where records of a topic go that cannot be used.

    >>> dead_letter_topic("freshet.orders.v1")
    'freshet.orders.v1.dlq'
    """
    return topic + DEAD_LETTER_SUFFIX


def dead_letter_max_bytes(settings: KafkaSettings) -> int:
    """Largest record of a dead-letter topic: the source's limit and 64 KB for the headers.

    >>> dead_letter_max_bytes(KafkaSettings(max_record_bytes=1_000_000))
    1065536
    """
    return settings.max_record_bytes + DEAD_LETTER_ROOM_BYTES


def plan(
    settings: KafkaSettings, *, live: bool, orders_are_states: bool = False
) -> list[TopicPlan]:
    """Every topic freshet reads or writes.

    Args:
        settings: Names, partitions and limits.
        orders_are_states: Whether the topic of orders may be compacted: its last states do.
        live: True: topics get LogAppendTime, so that "too far in the future" is judged by the
            broker's clock, and a producer whose clock is wrong is not refused; but the shop's
            tables keep the producer's timestamps, which say since when something is known. False
            (demo, simulate): all producers' timestamps are kept for ever, however old or far ahead.
    """
    names = settings.topics
    keep = {"message.timestamp.type": "LogAppendTime"} if live else _any_time()
    # Raw orders and clicks may hold what names a person: they do not stay for ever. Kafka deletes
    # whole segments, so a record stays for as long as its segment is written to, and the retention.
    dead_letters = {
        **keep,
        "max.message.bytes": str(dead_letter_max_bytes(settings)),
        "retention.ms": str(settings.dead_letter_retention_ms),
        "segment.ms": str(min(DAY_MS, settings.dead_letter_retention_ms)),
    }
    events = {
        **keep,
        "max.message.bytes": str(settings.max_record_bytes + BATCH_OVERHEAD_BYTES),
        "cleanup.policy": "delete",
    }
    tables = {**keep, "cleanup.policy": "compact"}
    # Its records are large and superseded within hours, and Kafka compacts no open segment.
    states = {**tables, "segment.ms": str(DAY_MS)}
    # Kafka refuses what is an hour ahead, so that nobody announces by a wrong clock in silence.
    told = {**tables, "message.timestamp.type": "CreateTime"}
    configs: dict[str, dict[str, str]] = {}
    for name in (names.orders, names.clicks):
        configs[name] = events
    for name in names.of(*TABLES):
        configs[name] = tables
    configs |= {names.owner: states, names.decisions: states}
    for name in names.of(*SHOP_TABLES):
        configs[name] = told
    if names.forecasts_latest:
        configs[names.forecasts_latest] = tables
    others = [names.windows, names.forecasts, names.rounds, names.shadow, names.scores]
    others += [names.drift, names.retrain, names.alerts]
    configs |= dict.fromkeys(others, keep)
    for kind in RECORDS:
        configs[dead_letter_topic(getattr(names, kind))] = dead_letters
    configs[names.late] = dead_letters
    needed = _needed(settings, orders_are_states)
    return [
        TopicPlan(name, settings.partitions, config, needed.get(name, frozenset()))
        for name, config in configs.items()
    ]


def _needed(settings: KafkaSettings, orders_are_states: bool) -> dict[str, frozenset[str]]:
    """The settings without which a topic does not do.

    A dead letter that its topic refuses holds up its partition; an entry of our own tables that is
    deleted is lost; of compacted events only the last of a key is left.
    """
    names = settings.topics
    takes_all, cleaned = frozenset({"max.message.bytes"}), frozenset({"cleanup.policy"})
    needed = {dead_letter_topic(getattr(names, kind)): takes_all for kind in RECORDS}
    needed[names.late] = takes_all
    ours = names.of("models", "effects", "scored", "owner", "decisions")
    needed |= dict.fromkeys((*ours, names.forecasts_latest), cleaned)
    needed[names.clicks] = cleaned
    if not orders_are_states:
        needed[names.orders] = cleaned
    return needed


def _any_time() -> dict[str, str]:
    """Settings under which a record of any time is taken and kept.

    Kafka 4 refuses timestamps over an hour ahead and deletes year-old ones at the next retention
    check.
    """
    return {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": LARGEST_MS,
        "retention.ms": FOREVER,
    }


def unfit(wanted: TopicPlan, problem: str) -> bool:
    """Whether the topic does not do because of what `mismatches` says, which else is a warning.

    >>> wanted = TopicPlan("t", 4, {}, frozenset({"cleanup.policy"}))
    >>> unfit(wanted, "cleanup.policy: ..."), unfit(wanted, "partitions: ...")
    (True, False)
    """
    return problem.partition(":")[0] in wanted.needed


def mismatches(wanted: TopicPlan, partitions: int, config: Mapping[str, str]) -> tuple[str, ...]:
    """What an existing topic has otherwise than planned; a larger limit or more partitions is fine.

    >>> mismatches(TopicPlan("t", 4, {"retention.ms": "-1"}), 2, {"retention.ms": "604800000"})
    ('partitions: expected 4 or more, found 2', 'retention.ms: expected -1, found 604800000')
    """
    problems = []
    if partitions < wanted.partitions:
        problems.append(f"partitions: expected {wanted.partitions} or more, found {partitions}")
    for name, value in wanted.config.items():
        found = config.get(name)
        if found is not None and not _satisfies(name, value, found):
            problems.append(f"{name}: expected {value}, found {found}")
    return tuple(problems)


def _satisfies(name: str, value: str, found: str) -> bool:
    if name == "max.message.bytes":
        return int(found) >= int(value)
    if name == "cleanup.policy":
        return value in found.split(",") and (value == "compact" or "compact" not in found)
    return found == value
