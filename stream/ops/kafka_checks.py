"""What `freshet doctor` asks Kafka: brokers, topics, groups, clocks, and the Schema Registry."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from freshet.stream.clock import wall_now_ms
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import (
    AIOKAFKA,
    FAUST,
    Cluster,
    LogOffsets,
    admin,
    append_time_ms,
    cluster,
    group_members,
    sign_in,
    topic_configs,
)
from freshet.stream.kafka.registry import ask_registry
from freshet.stream.kafka.topics import TopicPlan, mismatches, plan, unfit
from freshet.stream.ops.doctor import Check, State
from freshet.stream.ops.redis_checks import MAX_SKEW_MS, Windows
from freshet.stream.read.progress import InputState, loading
from freshet.stream.schemas import SHOP_TABLES, WindowsAdvanced
from freshet.stream.units import DAY_MS

REACH_S: Final = 2.0


def check_broker(settings: Settings) -> Iterator[Check]:
    """Whether Kafka answers, which kind it is, and whether all that it names can be reached."""
    found = cluster(settings)
    servers = settings.kafka.bootstrap_servers
    for host, port in found.addresses:
        try:
            socket.create_connection((host, port), REACH_S).close()
        except OSError as error:
            text = f"{servers} answers, and says that a broker is at {host}:{port}: {error}"
            hint = "its advertised.listeners must name an address that this machine can reach"
            yield Check("kafka", "problem", text, hint)
    kind = (
        f"{found.num_brokers} broker(s)"
        if found.has_controller
        else "an embedded broker, for demos and tests only"
    )
    yield Check("kafka", "ok", f"{servers} answers: {kind}")


def check_sign_in(settings: Settings) -> list[Check]:
    """Whether the clients of the page and of control can follow what librdkafka follows."""
    kafka = settings.kafka
    if kafka.security_protocol == "PLAINTEXT" and not kafka.client:
        return []
    for client in (AIOKAFKA, FAUST):
        sign_in(kafka, client)
    how = kafka.sasl_mechanism or kafka.security_protocol
    return [Check("sign-in", "ok", f"every process can sign in by {how}")]


# Topics -------------------------------------------------------------------------------------------


def check_topics(settings: Settings) -> list[Check]:
    """Whether all topics exist and are set as planned for live use."""
    found = cluster(settings)
    if not found.has_controller:
        return [Check("topics", "ok", "topics come into being when they are used")]
    states = settings.events.orders.mode == "state"
    wanted = plan(settings.kafka, live=True, orders_are_states=states)
    checks = [*_missing(settings, wanted, found), *_differing(settings, wanted, found)]
    return checks or [Check("topics", "ok", f"all {len(wanted)} topics are as planned")]


def _missing(settings: Settings, wanted: list[TopicPlan], found: Cluster) -> Iterator[Check]:
    """What `freshet topics create` would make, a slip of the pen before anything else."""
    missing = [topic.name for topic in wanted if topic.name not in found.partitions]
    others = found.partitions.keys() - {topic.name for topic in wanted}
    meant = dict(_meant(settings, missing, {name: found.partitions[name] for name in others}))
    for name, other in meant.items():
        text = f"missing: {name}; did you mean {other}, which has records?"
        hint = "name it in kafka.topics before `freshet topics create` makes the other"
        yield Check("topics", "problem", text, hint)
    left = [name for name in missing if name not in meant]
    if left:
        hint = "`freshet topics create` makes them"
        yield Check("topics", "problem", f"missing: {', '.join(left)}", hint)


def _meant(
    settings: Settings, missing: list[str], others: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Topics of the shop's own that are missing, and one of nearly that name that has records."""
    of_shop = settings.kafka.topics.of("orders", "clicks", *SHOP_TABLES)
    for name in missing:
        near = difflib.get_close_matches(name, others) if name in of_shop else []
        for other in near:
            keys = [(other, number) for number in range(others[other])]
            if any(end > first for first, end in LogOffsets(settings).ranges(keys).values()):
                yield name, other
                break


def _differing(settings: Settings, wanted: list[TopicPlan], found: Cluster) -> list[Check]:
    present = [topic for topic in wanted if topic.name in found.partitions]
    configs = topic_configs(admin(settings), settings, [topic.name for topic in present])
    checks = []
    for topic in present:
        for problem in mismatches(topic, found.partitions[topic.name], configs[topic.name]):
            state: State = "problem" if unfit(topic, problem) else "warning"
            checks.append(Check("topics", state, f"{topic.name}: {problem}", _why(problem)))
    return checks


def _why(problem: str) -> str:
    if problem.startswith("message.timestamp.type: expected CreateTime"):
        return (
            "with LogAppendTime what is announced is known from when Kafka got it, whatever its "
            "sender's timestamp says; `announced_at` in the record says it too"
        )
    reasons = {
        "message.timestamp.type": "with CreateTime windows follow the third largest time, so that "
        "one wrong clock cannot carry them away; after more than an hour without events they wait "
        "for 20 of a partition, which a small shop notices; LogAppendTime needs neither (only a "
        "demo or a replay needs CreateTime)",
        "max.message.bytes": "a record that is larger than this stops its partition",
        "cleanup.policy": "without compaction a table loses its oldest entries, or grows for ever; "
        "with it a topic of events loses all but the last of a key",
        "retention.ms": "raw orders may name a person: dead letters and late records stay for "
        "kafka.dead_letter_retention_ms; `kafka-configs.sh --alter --topic` sets it",
        "segment.ms": "a record stays until its whole segment is old enough: a day more than "
        "retention.ms, as planned",
        "partitions": "fewer partitions than planned limit how many processes share the work",
    }
    return reasons.get(problem.split(":")[0], "")


def check_retention(settings: Settings) -> Iterator[Check]:
    """Whether topics of events keep what windows hold: the rest cannot be folded again."""
    found = cluster(settings)
    topics = settings.kafka.topics
    names = [name for name in (topics.orders, topics.clicks) if name in found.partitions]
    if not found.has_controller or not names:
        return
    widths = settings.windows.resolutions
    longest_ms = max(width.resolution_ms * width.buckets for width in widths)
    configs = topic_configs(admin(settings), settings, names)
    for name in names:
        kept = _kept(configs[name])
        if kept is None or kept[0] >= longest_ms:
            continue
        text = f"{name} keeps {kept[1]}, and windows reach back {longest_ms / DAY_MS:g} days"
        hint = (
            "what is older can neither be verified nor folded again: raise its retention.ms, or "
            "keep the files that `freshet history load` takes"
        )
        yield Check("retention", "warning", text, hint)


def _kept(config: Mapping[str, str]) -> tuple[float, str] | None:
    """How many milliseconds a topic keeps, at most, and in words; None where that is for ever."""
    if "delete" not in config.get("cleanup.policy", "delete").split(","):
        return None
    kept_ms, kept_bytes = int(config["retention.ms"]), int(config["retention.bytes"])
    if kept_bytes >= 0:
        return 0.0, f"{kept_bytes} bytes a partition"
    return None if kept_ms < 0 else (float(kept_ms), f"{kept_ms / DAY_MS:.3g} days")


# Who reads ----------------------------------------------------------------------------------------


def check_ingest(settings: Settings) -> Iterator[Check]:
    """Whether ingest runs, and how far it is behind."""
    windows = Windows(settings)
    waiting = windows.waiting()
    text = f"{waiting} records behind" if windows.headers else f"not begun; {waiting} records wait"
    group = f"ingest.g{windows.generation}" if windows.generation else "ingest"
    yield _of_group(settings, "ingest", group, text)


def check_history(settings: Settings) -> Iterator[Check]:
    """Whether the history that is announced is there."""
    if settings.windows.history_before is None:
        return
    windows = Windows(settings)
    inputs = {key: InputState.of(header) for key, header in windows.headers.items()}
    found = loading(inputs, windows.kinds)
    if inputs and found is None:
        yield Check("history", "ok", "all of it is loaded")
        return
    begun = str(found) if found is not None and found.complete else "no history is loaded yet"
    hint = (
        "`freshet history load FILE` brings it, the last file without --more; a shop that has none "
        "leaves windows.history_before out and folds anew"
    )
    text = f"{begun}: until all of it is there nothing is forecast"
    yield Check("history", "warning", text, hint)


def check_worker(settings: Settings) -> Iterator[Check]:
    """Whether a worker runs."""
    yield _of_group(settings, "worker", "worker", "windows are forecast")


def _of_group(settings: Settings, process: str, group: str, text: str) -> Check:
    name = f"{settings.kafka.group_prefix}.{group}"
    members = group_members(settings, name)
    if members is None:
        return Check(process, "ok", text if process == "ingest" else "not known of this broker")
    if not members:
        told = f"none runs: the group {name} has no members" + f"; {text}" * (process == "ingest")
        hint = f"start `freshet {process}` with the same kafka.group_prefix"
        return Check(process, "warning", told, hint)
    return Check(process, "ok", f"{members} in the group {name}; {text}")


# Clocks -------------------------------------------------------------------------------------------


def check_broker_clock(
    settings: Settings, now_ms: Callable[[], int] = wall_now_ms
) -> Iterator[Check]:
    """This machine's clock against the broker's, by the stamp of a notice that is sent again."""
    windows = Windows(settings)
    if not windows.headers or not cluster(settings).has_controller:
        return
    (topic, partition), header = next(iter(windows.headers.items()))
    sent_ms = now_ms()
    notice = WindowsAdvanced(
        topic=topic,
        partition=partition,
        epoch=header.epoch,
        offset=header.next_offset or 0,
        frontier_ms=header.frontier_ms or 0,
    )
    stamp_ms = append_time_ms(settings, encode(notice))
    if stamp_ms is None:
        return
    # The record was on its way for some of the time: neither end is surely ahead of the other.
    ahead_ms = max(sent_ms - stamp_ms, 0) - max(stamp_ms - now_ms(), 0)
    if abs(ahead_ms) > MAX_SKEW_MS:
        text = f"this machine's clock is {ahead_ms} ms ahead of the broker's (negative: behind)"
        yield Check("clock", "warning", text, "let both follow the same time server")
    else:
        yield Check("clock", "ok", "the broker's clock is this machine's")


# The Schema Registry ------------------------------------------------------------------------------


def check_registry(settings: Settings) -> Iterator[Check]:
    """Whether the Schema Registry answers, where one is configured."""
    registry = settings.kafka.registry
    if registry.url:
        ask_registry(registry)
        yield Check("schema registry", "ok", f"{registry.url} answers")
