"""What becomes of each record of a batch: applied, or one of four reasons why not.

The reasons: it is from the future, it is too late, it is a duplicate, a full dictionary refuses it.
The verdicts are those of judging record by record in log order; whole columns are judged at once
only where the order inside the batch cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Bools, Digests, Ints
from freshet.stream.events.columns import Decoded
from freshet.stream.events.hints import YEAR_MS
from freshet.stream.events.redrive import repeats
from freshet.stream.fold.dedupe import Entries, SeenHashes, find_duplicates
from freshet.stream.fold.dictionary import Admission, ItemDictionary
from freshet.stream.fold.frontier import FrontierRule, Reach
from freshet.stream.fold.state_batch import ChangedOrders, StateBatch
from freshet.stream.fold.state_log import StateLog
from freshet.stream.fold.watermark import Aside, TimeRules, TimeVerdicts, time_verdicts
from freshet.stream.units import MINUTE_MS


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used, or one line of it: its place in the batch, and why.

    Stages: decode, future, dictionary. `line` counts from 0, None is the whole record.
    """

    index: int
    stage: str
    error_class: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a partition knows before a batch.

    `rule` moves its frontier on from `reach`. `redrives` are those redrive headers of the
    batch that were judged before it. `orders` are the states of orders, where records are states.
    """

    reach: Reach
    rule: FrontierRule
    seen: SeenHashes
    dictionary: ItemDictionary
    redrives: AbstractSet[bytes]
    orders: StateLog | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The good records of a batch, what becomes of each, and what is new to the dictionary.

    `counted_ms` is when each counts, `times` says which are from the future and which are too late.
    `line_slot` is each line's slot once `new_items` have theirs; -1 on lines that are not applied.
    `contents` are digests of what each record says; `conflicting` are the duplicates that say
    otherwise. `forgotten` are of orders that are no longer kept. `new_redrives` are the headers of
    records sent again that were judged for the first time. Where records are states of orders,
    `orders` says what they change.
    """

    decoded: Decoded
    counted_ms: Ints
    times: TimeVerdicts
    contents: Digests
    duplicate: Bools
    conflicting: Bools
    refused: Bools
    forgotten: Bools
    applied: Bools
    line_slot: Ints
    new_items: list[str]
    new_redrives: list[bytes]
    orders: ChangedOrders | None

    @property
    def too_late(self) -> Bools:
        """What enters no window because of its time."""
        late: Bools = self.times.too_late | self.forgotten
        return late

    @property
    def applied_lines(self) -> Bools:
        """Which lines belong to applied records."""
        lines: Bools = self.applied[self.decoded.line_record]
        return lines

    @property
    def applied_entries(self) -> Entries:
        """What the applied records leave for their duplicates; of a state it is the state."""
        if self.orders is not None:
            return Entries.none()
        hashes, contents = self.decoded.event_hash[self.applied], self.contents[self.applied]
        return Entries(hashes, self.applied_times_ms // MINUTE_MS, contents)

    @property
    def applied_times_ms(self) -> Ints:
        """When the applied records count."""
        times_ms: Ints = self.counted_ms[self.applied]
        return times_ms


def reach_verdicts(
    decoded: Decoded,
    timestamps_ms: Ints,
    redrives: Sequence[bytes | None],
    *,
    history: Bools,
    contents: Digests,
    known: Known,
    rules: TimeRules,
) -> Verdicts:
    """Judge the good records of a batch; changes nothing of what is known.

    Args:
        decoded: The good records, in log order.
        timestamps_ms: Their Kafka timestamps.
        redrives: Their redrive headers, None for most; empty when no record has one.
        history: Which of them are history.
        contents: Digests of what they say.
        known: What was known before the batch.
        rules: Limits of time.
    """
    redriven = np.zeros(len(decoded.index), np.bool_)
    if redrives:
        redriven = np.array([name is not None for name in redrives], np.bool_)
    aside = Aside(redriven, history)
    times = time_verdicts(
        decoded.event_time_ms, timestamps_ms, known.reach, rules, aside, known.rule
    )
    duplicate = np.zeros(len(decoded.index), np.bool_)
    new_redrives: list[bytes] = []
    if redrives and known.orders is None:
        duplicate, new_redrives = repeats(redrives, times.future, known.redrives)
    on_time = np.flatnonzero(~(times.future | times.too_late | duplicate))
    slot = known.dictionary.slots(decoded.line_name, decoded.item_ids)
    admission = Admission(decoded, on_time, slot, known.dictionary)
    admit = admission.admit if admission.needed() else None
    refused, forgotten, conflicting = np.zeros((3, len(decoded.index)), np.bool_)
    versions = None
    if known.orders is None:
        minutes = decoded.event_time_ms[on_time] // MINUTE_MS
        events = Entries(decoded.event_hash[on_time], minutes, contents[on_time])
        found = find_duplicates(
            events,
            times.watermark_ms[on_time],
            known.seen.known(events.hashes),
            allowed_lateness_ms=rules.allowed_lateness_ms,
            admit=admit,
        )
        duplicate[on_time], refused[on_time] = found.duplicate, found.refused
        conflicting[on_time] = found.conflicting
    else:
        versions = StateBatch(decoded, on_time, known.orders)
        # An order that was forgotten may have counted: sent again it would count twice.
        judged = versions.judge(times.watermark_ms, history, admit)
        duplicate[on_time], refused[on_time] = judged.duplicate, judged.refused
        forgotten[on_time] = judged.late
    applied = ~(times.future | times.too_late | duplicate | refused | forgotten)
    new_items = _give_slots(slot, decoded, applied, len(known.dictionary))
    orders, counted_ms = None, decoded.event_time_ms
    if versions is not None:
        orders = versions.changes(slot, new_items, len(known.dictionary))
        conflicting[on_time] = orders.conflicting
        counted_ms = counted_ms.copy()
        counted_ms[on_time] = orders.time_ms
    return Verdicts(
        decoded=decoded,
        counted_ms=counted_ms,
        times=times,
        contents=contents,
        duplicate=duplicate,
        conflicting=conflicting,
        refused=refused,
        forgotten=forgotten,
        applied=applied,
        line_slot=slot,
        new_items=new_items,
        new_redrives=new_redrives,
        orders=orders,
    )


def _give_slots(slot: Ints, decoded: Decoded, applied: Bools, num_known: int) -> list[str]:
    """Fill in the slots of new items on applied lines; the new items, in log order."""
    new_items: dict[str, int] = {}
    for line in np.flatnonzero((slot < 0) & applied[decoded.line_record]).tolist():
        next_slot = num_known + len(new_items)
        slot[line] = new_items.setdefault(decoded.item_of(line), next_slot)
    return list(new_items)


def applied_though_old(verdicts: Verdicts, timestamps_ms: Ints, history: Bools) -> list[int]:
    """Places of applied records that say that they happened over a year before they were sent.

    Args:
        verdicts: On the good records of the batch.
        timestamps_ms: Kafka timestamps of all records of the batch.
        history: Which of the good records are history, which may be old.
    """
    decoded = verdicts.decoded
    old = timestamps_ms[decoded.index] - decoded.event_time_ms > YEAR_MS
    if not old.any():
        return []
    places: list[int] = decoded.index[old & verdicts.applied & ~history].tolist()
    return places


def dead_letters(verdicts: Verdicts, timestamps_ms: Ints, rules: TimeRules) -> list[DeadLetter]:
    """Every record of the batch that cannot be used, and lines that applied ones lack.

    In log order; a line of a record that is late or a duplicate is not told of.

    Args:
        verdicts: On the good records of the batch.
        timestamps_ms: Kafka timestamps of all records of the batch.
        rules: For the message.
    """
    decoded = verdicts.decoded
    dead = [
        DeadLetter(bad.index, "decode", bad.error_class, bad.message) for bad in decoded.refusals
    ]
    for n in np.flatnonzero(verdicts.times.future).tolist():
        index = int(decoded.index[n])
        dead.append(_future(verdicts, n, int(timestamps_ms[index]), rules))
    for index in decoded.index[verdicts.refused].tolist():
        text = "the partition's item dictionary is full (windows.max_items_per_partition)"
        dead.append(DeadLetter(index, "dictionary", "DictionaryFull", text))
    if decoded.line_refusals:
        counted = set(decoded.index[verdicts.applied].tolist())
        dead += [
            DeadLetter(bad.index, "decode", bad.error_class, bad.message, bad.line)
            for bad in decoded.line_refusals
            if bad.index in counted
        ]
    return sorted(dead, key=lambda letter: letter.index)


def _future(verdicts: Verdicts, n: int, timestamp_ms: int, rules: TimeRules) -> DeadLetter:
    """Of the n-th good record: how far ahead it is, and of what."""
    event_time_ms = int(verdicts.decoded.event_time_ms[n])
    index = int(verdicts.decoded.index[n])
    ahead_ms = event_time_ms - timestamp_ms
    text = (
        f"event_time is {ahead_ms} ms after the record's timestamp, expected at most "
        f"{rules.max_future_ms} (windows.max_future_ms)"
    )
    if ahead_ms <= rules.max_future_ms:
        frontier_ms = int(verdicts.times.watermark_ms[n]) + rules.out_of_order_ms
        text = (
            f"event_time is {event_time_ms - frontier_ms} ms beyond all others of the partition, "
            "which is more than windows.max_ahead_ms: its producer's clock may be wrong"
        )
    return DeadLetter(index, "future", "FutureEvent", text)
