"""Looks at everything the stream depends on, and says what is wrong and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from freshet.stream.config import Settings
from freshet.stream.errors import FreshetError
from freshet.stream.events.decoder import EventKind
from freshet.stream.fold.headers import fingerprint
from freshet.stream.kafka import (
    AIOKAFKA,
    FAUST,
    Cluster,
    LogOffsets,
    admin,
    cluster,
    sign_in,
    topic_configs,
)
from freshet.stream.kafka.topics import TopicPlan, mismatches, plan, unfit
from freshet.stream.store.clock import open_clock, read_anchor
from freshet.stream.store.connection import check_fit, connect
from freshet.stream.store.generation import current_generation
from freshet.stream.store.redis import WindowStore

MAX_SKEW_MS = 5_000

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `fail` if freshet cannot run like this, `warn` if a person should know."""

    name: str
    state: State
    message: str
    hint: str = ""


Probe = Callable[[], Iterable[Check]]


def run_checks(settings: Settings, extra: Iterable[tuple[str, Probe]] = ()) -> list[Check]:
    """All findings, in a fixed order; a check that cannot be made is a `fail` and stops no other.

    Args:
        settings: What to look at.
        extra: More checks by name, for what the stream does not know: weights, device.
    """
    probes: list[tuple[str, Probe]] = [
        ("broker", lambda: check_broker(settings)),
        ("sign-in", lambda: check_sign_in(settings)),
        ("topics", lambda: check_topics(settings)),
        ("redis", lambda: check_redis(settings)),
        ("clock", lambda: check_clock(settings)),
        ("windows", lambda: check_windows(settings)),
        *extra,
    ]
    return [check for name, probe in probes for check in _safely(name, probe)]


def _safely(name: str, probe: Probe) -> list[Check]:
    try:
        return list(probe())
    except FreshetError as error:
        return [Check(name, "fail", error.message, error.hint)]


def check_broker(settings: Settings) -> list[Check]:
    """Whether Kafka answers, and which kind it is."""
    found = cluster(settings)
    kind = (
        f"{found.num_brokers} broker(s)"
        if found.has_controller
        else "an embedded broker, for demos and tests only"
    )
    return [Check("broker", "ok", f"{settings.kafka.bootstrap_servers} answers: {kind}")]


def check_sign_in(settings: Settings) -> list[Check]:
    """Whether the clients of the page and of control can follow what librdkafka follows."""
    kafka = settings.kafka
    if kafka.security_protocol == "PLAINTEXT" and not kafka.client:
        return []
    for client in (AIOKAFKA, FAUST):
        sign_in(kafka, client)
    how = kafka.sasl_mechanism or kafka.security_protocol
    return [Check("sign-in", "ok", f"every process can sign in by {how}")]


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
    return [Check("topics", "fail", f"missing: {', '.join(missing)}", hint)]


def _differing(settings: Settings, wanted: list[TopicPlan], found: Cluster) -> list[Check]:
    present = [topic for topic in wanted if topic.name in found.partitions]
    configs = topic_configs(admin(settings), settings, [topic.name for topic in present])
    checks = []
    for topic in present:
        for problem in mismatches(topic, found.partitions[topic.name], configs[topic.name]):
            state: State = "fail" if unfit(topic, problem) else "warn"
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


def check_redis(settings: Settings) -> list[Check]:
    """Whether Redis answers and may hold windows: version, policy, scripts."""
    check_fit(connect(settings.redis))
    return [Check("redis", "ok", "answers, never evicts, runs scripts")]


def check_clock(settings: Settings) -> list[Check]:
    """Whether this machine and Redis agree about the time, and whether time is simulated."""
    client = connect(settings.redis)
    said = client.time()
    seconds, microseconds = next(iter(said.values())) if isinstance(said, dict) else said
    skew_ms = round(time.time() * 1_000 - (seconds * 1_000 + microseconds / 1_000))
    if abs(skew_ms) > MAX_SKEW_MS:
        text = f"this machine's clock is {skew_ms} ms ahead of Redis' (negative: behind)"
        return [Check("clock", "warn", text, "let both follow the same time server")]
    anchor = read_anchor(client)
    if anchor is None:
        return [Check("clock", "ok", "wall time")]
    now_ms = open_clock(client).now_ms()
    text = f"simulated, at {now_ms} ms, {anchor.speed:g} times as fast as wall time"
    return [Check("clock", "ok", text)]


def check_windows(settings: Settings) -> list[Check]:
    """Whether every stored partition can be continued from the log under these settings."""
    client = connect(settings.redis)
    store = WindowStore(client, current_generation(client, settings.redis.generation))
    topics = settings.kafka.topics
    kinds: dict[str, EventKind] = {topics.orders: "orders", topics.clicks: "clicks"}
    stored = [key for key in store.partitions() if key[0] in kinds]
    if not stored:
        return [Check("windows", "ok", f"generation {store.generation} is empty")]
    ranges = LogOffsets(settings).ranges(stored)
    checks = [
        check
        for (topic, partition), (first, end) in ranges.items()
        for check in _continues(
            store, topic, partition, range(first, end + 1), fingerprint(kinds[topic], settings)
        )
    ]
    return checks or [Check("windows", "ok", f"{len(stored)} partitions can be continued")]


def _continues(
    store: WindowStore, topic: str, partition: int, log: range, ours: str
) -> list[Check]:
    header = store.header(topic, partition)
    if header is None or header.next_offset is None:
        return []
    where = f"{topic}:{partition}"
    checks = []
    fold_anew = (
        f"`freshet ingest --from-beginning --into {store.generation + 1}` folds what the log "
        "holds anew"
    )
    if header.next_offset not in log:
        text = (
            f"{where}: the windows end at offset {header.next_offset}, the log holds "
            f"{log.start} to {log.stop - 1}"
        )
        checks.append(Check("windows", "fail", text, fold_anew))
    if header.fingerprint != ours:
        text = f"{where}: the windows were folded under other settings"
        checks.append(Check("windows", "fail", text, f"{fold_anew}, or take the settings back"))
    return checks
