"""What `freshet doctor` asks Kafka: brokers, topics, groups, clocks, and the Schema Registry."""

from __future__ import annotations

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
from freshet.stream.schemas import WindowsAdvanced
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
    checks = [*_missing(wanted, found), *_differing(settings, wanted, found)]
    return checks or [Check("topics", "ok", f"all {len(wanted)} topics are as planned")]


def _missing(wanted: list[TopicPlan], found: Cluster) -> list[Check]:
    missing = [topic.name for topic in wanted if topic.name not in found.partitions]
    if not missing:
        return []
    hint = "`freshet topics create` makes them"
    return [Check("topics", "problem", f"missing: {', '.join(missing)}", hint)]


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
    logs = windows.logs() if windows.headers else {}
    behind = sum(
        max(0, end - (windows.headers[key].next_offset or 0)) for key, (_, end) in logs.items()
    )
    group = f"ingest.g{windows.generation}" if windows.generation else "ingest"
    yield _of_group(settings, "ingest", group, f"{behind} records behind")


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
