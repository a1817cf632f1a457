"""What `freshet doctor` asks of the newest records of each topic: what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from freshet.stream.catalog.records import usable
from freshet.stream.catalog.translate import Translator
from freshet.stream.clock import latest_ms, wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.errors import EventError, StoreError
from freshet.stream.events.decoder import EventKind
from freshet.stream.events.hints import hint_of, skip_hint
from freshet.stream.fold.history import HISTORY_HEADER
from freshet.stream.ingest.losing import MAX_SKIPPED_SHARE
from freshet.stream.ingest.losses import lost_share
from freshet.stream.kafka import cluster, timestamp_types
from freshet.stream.ops.agreement import placing_warnings
from freshet.stream.ops.doctor import Check
from freshet.stream.ops.redis_checks import bytes_of
from freshet.stream.ops.trial import RawRecord, Trial, trial
from freshet.stream.ops.trial_records import newest
from freshet.stream.ops.trial_warnings import warnings_of
from freshet.stream.schemas import SHOP_TABLES, ShopTable
from freshet.stream.slots import covariate_slots
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

NUM_RECORDS: Final = 100
STOPPED: Final = "does whoever sends them still run?"
ASTRAY: Final = ("are in 1970", "are over a year old", "are in the future")
"""Warnings of a trial after which forecasts would be of nothing."""


def check_events(settings: Settings, kind: EventKind) -> Iterator[Check]:
    """What ingest makes of the newest records of orders or clicks, and how old they are."""
    topic = getattr(settings.kafka.topics, kind)
    if topic not in cluster(settings).partitions:
        return
    records = newest(settings, topic, NUM_RECORDS)
    if not records:
        yield Check(kind, "warning", f"{topic} is empty", "does anybody send to this topic?")
        return
    found = trial(settings, kind, records, timestamp_type=_stamped_by(settings, topic))
    yield _judged(settings, kind, found)
    now_ms = _now_ms(settings)
    live = [n for n, one in enumerate(records) if not _of_history(one)]
    of_now = Trial([found.tried[n] for n in live], found.never_seen, found.records)
    for text in placing_warnings(settings, topic, kind, [records[n] for n in live]):
        said, _, hint = text.partition("; ")
        yield Check(kind, "problem", said, hint)
    for text in warnings_of(settings, kind, of_now, now_ms):
        astray = any(words in text for words in ASTRAY)
        said, _, hint = text.partition("; ")
        yield Check(kind, "problem" if astray else "warning", said, hint)
    times_ms = [one.time_ms for one in of_now.tried if one.became == "applied" and one.time_ms]
    if times_ms:
        age_ms = now_ms - max(times_ms)
        text = f"the newest of {topic} happened {_age(age_ms)} ago"
        still = age_ms < DAY_MS
        yield Check(kind, "ok" if still else "warning", text, "" if still else STOPPED)


def _judged(settings: Settings, kind: EventKind, found: Trial) -> Check:
    counts = {"read": len(found.tried), **found.counts}
    became = ", ".join(f"{count} {name}" for name, count in found.counts.most_common())
    text = f"of the newest {len(found.tried)} records: {became}"
    section = f"events.{kind}"
    if lost_share(counts) > settings.ingest.max_lost_share:
        reasons = found.reasons()
        said = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        outcome, _, why = reasons[0][0].partition(": ")
        error = "late" if outcome == "late_dropped" else why.partition(":")[0]
        hint = hint_of(section, error, why)
        return Check(kind, "problem", f"{text}; {said}", "" if hint in said else hint)
    if found.counts["skipped"] > MAX_SKIPPED_SHARE * len(found.tried):
        reason, _ = found.reasons(1)[0]
        why = reason.partition(": ")[2]
        hint = skip_hint(section, why.partition(":")[0])
        return Check(kind, "warning", f"{text}; {why}", hint)
    return Check(kind, "ok", text)


def _of_history(record: RawRecord) -> bool:
    return any(name == HISTORY_HEADER for name, _ in record.headers)


def _stamped_by(settings: Settings, topic: str) -> str:
    return timestamp_types(settings, [topic]).get(topic, "")


def _now_ms(settings: Settings) -> int:
    """By the shop's clock, which may be simulated; of this machine where Redis is away."""
    try:
        return open_clock(connect(settings.redis)).now_ms()
    except StoreError:
        return wall_now_ms()


def _age(ms: int) -> str:
    """An age in the largest unit of which it is several.

    >>> _age(90_000), _age(3 * 86_400_000), _age(-5)
    ('90 s', '72 hours', '0 s')
    """
    for name, unit_ms in (("days", DAY_MS), ("hours", HOUR_MS), ("minutes", MINUTE_MS)):
        if ms >= 5 * unit_ms:
            return f"{ms // unit_ms} {name}"
    return f"{max(0, ms) // 1_000} s"


# The shop's tables --------------------------------------------------------------------------------


def check_tables(settings: Settings) -> Iterator[Check]:
    """Whether the newest records of catalogue, promotions, stock and covariates can be used."""
    translator = Translator(settings)
    there = cluster(settings).partitions
    for topic, table in settings.kafka.topics.of(*SHOP_TABLES).items():
        if topic not in there:
            continue
        records = newest(settings, topic, NUM_RECORDS)
        wrong = list(_wrong(settings, translator, table, records))
        if not wrong:
            said = f"all of the newest {len(records)} records can be used"
            yield Check(table, "ok", said if records else "no records yet")
            continue
        text = f"{len(wrong)} of the newest {len(records)} records cannot be used: {wrong[0]}"
        many = len(wrong) > settings.ingest.max_lost_share * len(records)
        hint = f"does events.{table}.fields fit these records?"
        yield Check(table, "problem" if many else "warning", text, hint)


def _wrong(
    settings: Settings, translator: Translator, table: ShopTable, records: Sequence[RawRecord]
) -> Iterator[str]:
    """The first thing wrong with each, beginning with where it is."""
    slots = covariate_slots(settings.covariates.flags, settings.covariates.numbers)
    latest = latest_ms(open_clock(connect(settings.redis)))
    for one in records:
        try:
            told = translator.read(table, one.key, one.value, one.timestamp_ms, bytes_of(one))
            if told is not None and told[0] is None:
                raise EventError("a record without a key: nothing could supersede it")
            if told is not None and told[1] is not None:
                usable(table, told[1], latest_ms=latest, slots=slots)
        except EventError as error:
            yield f"{one.place}: {error.message}"
