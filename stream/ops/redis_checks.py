"""What `freshet doctor` asks Redis: whether it may hold windows, and what those say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import redis

from freshet.stream.clock import wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.events.dead_letter import notes_of
from freshet.stream.events.decoder import EventKind
from freshet.stream.events.hints import LATE, hint_of
from freshet.stream.fold.headers import fingerprint, kind_of
from freshet.stream.ingest.claims import another_shop
from freshet.stream.ingest.losses import lost_share
from freshet.stream.kafka import Key, LogOffsets, cluster, topic_ids
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.ops.doctor import Check
from freshet.stream.ops.trial import RawRecord
from freshet.stream.ops.trial_records import newest
from freshet.stream.store.clock import open_clock, read_anchor
from freshet.stream.store.connection import check_fit, connect, node_infos, translated
from freshet.stream.store.generation import NEW_GENERATION_HINT, current_generation
from freshet.stream.store.layout import BESIDE, OUTCOMES, Header
from freshet.stream.store.redis import WindowStore

MAX_SKEW_MS: Final = 5_000
NEARLY_FULL: Final = 0.9
LETTERS: Final = 100


# The server ---------------------------------------------------------------------------------------


def check_redis(settings: Settings) -> Iterator[Check]:
    """Whether Redis answers and may hold windows."""
    client = connect(settings.redis)
    for info in node_infos(client):
        yield from _of_node(info, settings)
    check_fit(client)
    yield from _kept_on_disk(client)
    yield from _other_databases(client, settings)
    yield Check("redis", "ok", "answers, never evicts, runs scripts")


def _of_node(info: Mapping[str, Any], settings: Settings) -> Iterator[Check]:
    if info.get("cluster_enabled") and not settings.redis.cluster:
        text = "this is a node of a Redis Cluster"
        yield Check("redis", "problem", text, "set redis.cluster = true")
    if info.get("role") == "slave" and not settings.redis.cluster:
        text = f"this is a replica of {info.get('master_host')}:{info.get('master_port')}"
        yield Check("redis", "problem", text, "redis.url must name the master")
    failed = {"rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"}
    for name in sorted(failed):
        if info.get(name, "ok") != "ok":
            text = f"the last write to its disk failed ({name}: {info[name]})"
            yield Check("redis", "problem", text, "its log says why; is the disk full?")
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used > NEARLY_FULL * limit:
        text = f"{used / 2**20:.0f} of {limit / 2**20:.0f} MB are used"
        yield Check("redis", "warning", text, "raise maxmemory: a full Redis stops ingest")


def _kept_on_disk(client: redis.Redis) -> Iterator[Check]:
    """A service that hides its settings is trusted."""
    try:
        said: Any = client.config_get("appendonly") | client.config_get("save")
    except redis.RedisError:
        return
    if said.get("appendonly") == "no" and not said.get("save"):
        yield Check(
            "redis",
            "warning",
            "it keeps nothing on disk: after its restart ingest folds again what Kafka still has",
            "set appendonly yes",
        )


def _other_databases(client: redis.Redis, settings: Settings) -> Iterator[Check]:
    """Whether this database is empty, and another one is not."""
    if settings.redis.cluster:
        return
    with translated(client):
        if client.dbsize():
            return
        others: Any = client.info("keyspace")
    number = client.connection_pool.connection_kwargs.get("db") or 0
    found = [f"{name.removeprefix('db')} ({one['keys']} keys)" for name, one in others.items()]
    if found:
        text = f"database {number} is empty, and others are not: {', '.join(found)}"
        yield Check("redis", "warning", text, "does redis.url end with the right number?")


def check_clock(settings: Settings, now_ms: Callable[[], int] = wall_now_ms) -> list[Check]:
    """Whether this machine and Redis agree about the time, and whether time is simulated."""
    client = connect(settings.redis)
    said = client.time()
    seconds, microseconds = next(iter(said.values())) if isinstance(said, dict) else said
    skew_ms = round(now_ms() - (seconds * 1_000 + microseconds / 1_000))
    if abs(skew_ms) > MAX_SKEW_MS:
        text = f"this machine's clock is {skew_ms} ms ahead of Redis' (negative: behind)"
        return [Check("clock", "warning", text, "let both follow the same time server")]
    anchor = read_anchor(client)
    if anchor is None:
        return [Check("clock", "ok", "wall time")]
    at_ms = open_clock(client).now_ms()
    text = f"simulated, at {at_ms} ms, {anchor.speed:g} times as fast as wall time"
    return [Check("clock", "ok", text)]


# The windows --------------------------------------------------------------------------------------


def check_windows(settings: Settings) -> list[Check]:
    """Whether every stored partition can be continued from the log under these settings."""
    windows = Windows(settings)
    strange = [
        Check("windows", "problem", error.message, error.hint)
        for error in (another_shop(*other, windows.generation) for other in windows.others)
    ]
    return strange or _check_ours(settings, windows)


def _check_ours(settings: Settings, windows: Windows) -> list[Check]:
    if not windows.headers:
        return [Check("windows", "ok", f"generation {windows.generation} is empty")]
    logs = windows.logs()
    ids = topic_ids(settings, sorted({topic for topic, _ in logs})) if logs else {}
    checks: list[Check] = []
    for (topic, partition), header in windows.headers.items():
        if (topic, partition) not in logs:
            text = f"{topic}:{partition} has windows, and there is no such partition"
            checks.append(Check("windows", "problem", text, NEW_GENERATION_HINT))
            continue
        first, end = logs[topic, partition]
        ours = fingerprint(windows.kinds[topic], settings)
        why = _why_not(header, range(first, end + 1), ours, ids.get(topic, ""))
        fold_anew = (
            f"`freshet ingest --from-beginning --into {windows.generation + 1}` folds what the log "
            "holds anew"
        )
        checks += [
            Check("windows", "problem", f"{topic}:{partition}: {text}", fold_anew + other)
            for text, other in why
        ]
    return checks or [Check("windows", "ok", f"{len(windows.headers)} partitions can be continued")]


def _why_not(header: Header, log: range, ours: str, topic_id: str) -> Iterator[tuple[str, str]]:
    """What keeps a partition from being continued, and what else than folding anew would help."""
    if header.topic_id and topic_id and header.topic_id != topic_id:
        yield "the topic was deleted and made again since", ""
    elif header.next_offset not in log:
        text = f"the windows end at offset {header.next_offset}, the log holds "
        yield f"{text}{log.start} to {log.stop - 1}", ""
    if header.fingerprint != ours:
        yield "the windows were folded under other settings", ", or take the settings back"


class Windows:
    """What the current generation says of its partitions of orders and clicks that have begun."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        client = connect(settings.redis)
        self.generation = current_generation(client, settings.redis.generation)
        topics = settings.kafka.topics
        self.kinds: dict[str, EventKind] = {topics.orders: "orders", topics.clicks: "clicks"}
        store = WindowStore(client, self.generation)
        found = {key: store.header(*key) for key in sorted(store.partitions())}
        begun = {
            key: header
            for key, header in found.items()
            if header is not None and header.next_offset is not None
        }
        self.headers = {key: header for key, header in begun.items() if key[0] in self.kinds}
        self.others = sorted(
            {
                (topic, kind_of(header))
                for (topic, _), header in begun.items()
                if topic not in self.kinds and kind_of(header)
            }
        )
        """Topics of orders or clicks that are not these settings', and which of both."""

    def logs(self) -> dict[Key, tuple[int, int]]:
        """Where their logs begin and end; of what is no more, nothing."""
        there = cluster(self._settings).partitions
        known = [key for key in self.headers if key[1] < there.get(key[0], 0)]
        return LogOffsets(self._settings).ranges(known) if known else {}

    def waiting(self) -> int:
        """How many records of all logs are not in the windows yet."""
        there = cluster(self._settings).partitions
        keys = [(topic, number) for topic in self.kinds for number in range(there.get(topic, 0))]
        folded = {key: header.next_offset or 0 for key, header in self.headers.items()}
        logs = LogOffsets(self._settings).ranges(keys)
        return sum(max(0, end - folded.get(key, first)) for key, (first, end) in logs.items())

    def books(self) -> dict[str, Counter[str]]:
        """What became of each topic's records."""
        books: dict[str, Counter[str]] = {}
        for (topic, _), header in self.headers.items():
            counts = {name: getattr(header, name) for name in ("read", *OUTCOMES, *BESIDE)}
            books.setdefault(topic, Counter()).update(counts)
        return books


def check_books(settings: Settings) -> Iterator[Check]:
    """What became of all records since the windows began, and why the newest of them are lost."""
    windows = Windows(settings)
    books = windows.books()
    if not books:
        yield Check("books", "ok", "nothing has been read yet")
    for topic, counts in books.items():
        outcomes = " + ".join(f"{counts[name]} {name}" for name in OUTCOMES)
        beside = ", ".join(f"{counts[name]} {name}" for name in BESIDE)
        text = f"{topic}: {counts['read']} read = {outcomes}; {beside}"
        if lost_share(counts) <= settings.ingest.max_lost_share:
            yield Check("books", "ok", text)
            continue
        section = f"events.{windows.kinds[topic]}"
        why = _reasons(settings, topic, section) if counts["dead_letter"] else ""
        yield Check("books", "warning", text, why or hint_of(section, LATE))


def bytes_of(record: RawRecord) -> list[tuple[str, bytes | None]]:
    """The record's headers, all of them as bytes."""
    pairs = record.headers
    return [(name, said.encode() if isinstance(said, str) else said) for name, said in pairs]


def _reasons(settings: Settings, topic: str, section: str) -> str:
    """The three commonest reasons of the newest dead letters, and what to change."""
    letters = [
        notes_of(bytes_of(one)) for one in newest(settings, dead_letter_topic(topic), LETTERS)
    ]
    hints = Counter(hint_of(section, one.error_class, one.message) for one in letters)
    classes = Counter(one.error_class for one in letters)
    said = ", ".join(f"{count} x {name}" for name, count in classes.most_common(3))
    return f"{said}: {'; '.join(hint for hint, _ in hints.most_common(3))}" if letters else ""
