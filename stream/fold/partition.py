"""One partition's windows, as ingest drives them: claim, fold a batch, apply it, and again.

Nothing here is durable but what `apply` and `declare_idle` write. So a crash anywhere, and a Redis
that came back older, are the same case: claim again, seek to `header.next_offset`, fold the same
records into the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from freshet.stream.arrays import Digests, Ints
from freshet.stream.config import Settings
from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.events.decoder import Decoded, EventKind
from freshet.stream.events.formats.decoding import FormatDecoder
from freshet.stream.events.map.missing import NeverSeen
from freshet.stream.events.order_states import settle
from freshet.stream.events.redrive import NO_HEADERS, Headers
from freshet.stream.failpoints import failpoint
from freshet.stream.fold.additions import Additions, click_additions, order_additions
from freshet.stream.fold.batches import Counts, DecodedBatch, Fold, RawBatch
from freshet.stream.fold.content import ContentDigests
from freshet.stream.fold.dictionary import ItemDictionary
from freshet.stream.fold.frontier import NEVER_MS, rule_of
from freshet.stream.fold.headers import fingerprint, header_after, reach_fields, reach_of
from freshet.stream.fold.history import HistoryVerdicts, judge_history, loads_of
from freshet.stream.fold.state_log import StateLog
from freshet.stream.fold.verdicts import (
    DeadLetter,
    Known,
    Verdicts,
    applied_though_old,
    dead_letters,
    reach_verdicts,
)
from freshet.stream.fold.watermark import TimeRules
from freshet.stream.fold.writes import ChangedTiles, MinuteLog, TileFolder
from freshet.stream.store.layout import Answer, Header, Keys, Update
from freshet.stream.store.redis import WindowStore


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of a topic; a state keeps what it said when the state began."""

    topic_id: str = ""
    num_partitions: int = 0
    timestamp_type: str = ""


class PartitionWindows:
    """The one writer of a partition's windows.

    Not thread-safe; each fold must be applied before the next.
    """

    def __init__(
        self,
        store: WindowStore,
        kind: EventKind,
        topic: str,
        partition: int,
        settings: Settings,
        header: Header,
        facts: TopicFacts,
    ) -> None:
        keys = store.keys(topic, partition)
        self.kind: EventKind = kind
        self.topic = topic
        self.partition = partition
        self.header = header
        self._facts = facts
        self._store = store
        self._rules = TimeRules.of(settings.windows)
        self._windows = settings.windows
        self._frontier_rule = rule_of(settings.windows, header.timestamp_type)
        self._max_items = settings.windows.max_items_per_partition
        self._decoder = FormatDecoder(kind, settings)
        self._tiles = TileFolder(store.read, keys, settings)
        self._minutes = MinuteLog(
            store.read,
            keys,
            self._rules.allowed_lateness_ms,
            lambda: store.minutes(topic, partition),
        )
        self._contents = ContentDigests()
        self._orders = _state_log(kind, store, keys, settings)
        self._any_key = settings.events.orders.key == "any"
        self._dictionary: ItemDictionary | None = None
        self._stale = False

    @classmethod
    def claim(
        cls,
        store: WindowStore,
        kind: EventKind,
        topic: str,
        partition: int,
        settings: Settings,
        *,
        facts: TopicFacts | None = None,
    ) -> PartitionWindows:
        """Own a partition: its epoch rises, all earlier owners are fenced.

        Reads the header and nothing else. Seek to `header.next_offset`; where that is None, call
        `start_at` with the log's first offset.

        Raises:
            FingerprintError: The stored windows were folded under other settings; nothing was
                changed.
            LogLostError: They were folded from a topic with another id (empty is unknown); nothing
                was changed.
        """
        facts = facts or TopicFacts()
        header = store.claim(topic, partition, fingerprint(kind, settings), facts.topic_id)
        return cls(store, kind, topic, partition, settings, header, facts)

    def start_at(self, log_start_offset: int) -> None:
        """Begin a partition that has no windows yet; nothing is written before the first apply."""
        assert self.header.next_offset is None, (
            f"{self.topic}:{self.partition} continues at {self.header.next_offset}"
        )
        self.header = replace(
            self.header,
            first_offset=log_start_offset,
            num_partitions=self._facts.num_partitions,
            timestamp_type=self._facts.timestamp_type,
        )
        self._frontier_rule = rule_of(self._windows, self._facts.timestamp_type)
        begin_ms = self._windows.history_before
        if begin_ms is not None:
            begun = reach_fields(self._frontier_rule.begin(begin_ms))
            self.header = replace(self.header, origin_ms=begin_ms, **begun)

    @property
    def next_offset(self) -> int:
        """Where the next batch begins."""
        offset = (
            self.header.first_offset if self.header.next_offset is None else self.header.next_offset
        )
        assert offset is not None, "start_at comes before the first fold"
        return offset

    @property
    def frontier_ms(self) -> int | None:
        """How far its events have come; None before any counted."""
        return self.header.frontier_ms

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Ints,
        headers: Mapping[int, Headers] = NO_HEADERS,
    ) -> Decoded:
        """The next records of the log as columns.

        Parts that follow each other may be put together and folded once.
        """
        decoded, keys = self._decoder.decode(values, keys, timestamps_ms, headers)
        if self._orders is None:
            return decoded
        future_ms = self._rules.max_future_ms
        return settle(decoded, keys, any_key=self._any_key, max_future_ms=future_ms)

    def never_seen(self) -> Iterator[NeverSeen]:
        """Paths of the map that no record has had although enough came, each told once."""
        return self._decoder.decoder.never_seen()

    def unseen(self, records: Sequence[Any]) -> list[NeverSeen]:
        """Paths that no record has had so far, however few came; some of them as plain JSON."""
        return self._decoder.decoder.unseen(records)

    def fold(self, batch: RawBatch) -> Fold:
        """Decode a batch and fold it as `fold_decoded` does."""
        decoded = self.decode(batch.values, batch.keys, batch.timestamps_ms, batch.headers)
        first_offset = int(batch.offsets[0]) if len(batch.offsets) else self.next_offset
        return self.fold_decoded(
            DecodedBatch(
                decoded=decoded,
                timestamps_ms=batch.timestamps_ms,
                first_offset=first_offset,
                next_offset=batch.next_offset,
                redrives=batch.redrives,
                history=batch.history,
            )
        )

    def judge(self, batch: DecodedBatch) -> tuple[Verdicts, list[DeadLetter]]:
        """What would become of a batch's records; reads what a fold reads, and writes nothing."""
        verdicts = self._verdicts(batch, self._history(batch), self._load())
        return verdicts, dead_letters(verdicts, batch.timestamps_ms, self._rules)

    def fold_decoded(self, batch: DecodedBatch) -> Fold:
        """Judge and add up a batch.

        Reads Redis where it must, writes nothing, and changes nothing until `apply`. A bad record
        never fails its batch: it is in `dead`.

        Raises:
            StoreUnavailableError: Redis did not answer; fold again.
            StoreError: The stored windows are damaged.
        """
        assert batch.next_offset >= self.next_offset, "the batch ends before the windows"
        assert batch.first_offset >= self.next_offset, "the batch begins before the windows"
        dictionary = self._load()
        history = self._history(batch)
        verdicts = self._verdicts(batch, history, dictionary)
        dead = dead_letters(verdicts, batch.timestamps_ms, self._rules)
        counts = _counts(verdicts, dead, repeated=history.repeated)
        header = header_after(self.header, batch.next_offset, counts, verdicts)
        if history.complete:
            header = replace(header, history_complete=1)
        num_items = len(dictionary) + len(verdicts.new_items)
        additions = self._of_known_items(_additions(self.kind, verdicts), num_items)
        update, changed = self._update(verdicts, additions, header, history.highest)
        return Fold(
            update=update,
            dead=dead,
            too_late=verdicts.decoded.index[verdicts.too_late].tolist(),
            touched_item_ids=_touched(additions, verdicts.new_items, dictionary),
            counts=counts,
            next_offset=batch.next_offset,
            frontier_ms=header.frontier_ms,
            header=header,
            changed=changed,
            skip_reasons=Counter(one.reason for one in verdicts.decoded.skipped),
            old=applied_though_old(verdicts, batch.timestamps_ms, history.patient),
        )

    def apply(self, fold: Fold) -> Answer:
        """Write a fold, whole or not at all, and move on when it is in.

        APPLIED, ALREADY: it is in. GAP: Redis is older than this object; claim again and seek.
        FENCED: another owner has the partition; drop it until it is reassigned. After GAP and
        FENCED this object must not be used.

        Raises:
            StoreUnavailableError: No answer; apply the same fold again, or claim again.
        """
        failpoint("before_apply")
        answer = self._why_stale() if self._stale else self._store.apply(fold.update)
        failpoint("after_apply")
        if answer in (Answer.APPLIED, Answer.ALREADY):
            self._remember(fold)
        return answer

    def declare_idle(self, idle_frontier_ms: int) -> Answer:
        """Say that the partition has nothing more to read as of this clock time; the offset stays.

        GAP and FENCED mean what they mean for `apply`.
        """
        answer = self._store.declare_idle(self.topic, self.partition, self.header, idle_frontier_ms)
        if answer is Answer.APPLIED:
            before = self.header.idle_frontier_ms
            idle_ms = idle_frontier_ms if before is None else max(before, idle_frontier_ms)
            self.header = replace(self.header, idle_frontier_ms=idle_ms)
        return answer

    def _load(self) -> ItemDictionary:
        """Dictionary and live dedupe minutes, once, at the first fold after a claim."""
        if self._dictionary is None:
            item_ids = self._stored_items()
            first_ms, newest_ms = self.header.first_event_ms, self.header.newest_ms
            if first_ms is not None and newest_ms is not None:
                watermark_ms = _or_never(self.header.frontier_ms) - self._rules.out_of_order_ms
                self._minutes.load(first_ms, newest_ms, watermark_ms)
            self._dictionary = ItemDictionary(self._max_items, item_ids)
        return self._dictionary

    def _stored_items(self) -> list[str]:
        try:
            return self._store.dictionary(self.topic, self.partition, self.header.items)
        except StoreUnavailableError:
            raise
        except StoreError:
            if not self._moved():
                raise
            # Redis changed since the claim. The fold goes on, and `apply` will say so instead of
            # writing it.
            self._stale = True
            return []

    def _of_known_items(self, additions: Additions, num_items: int) -> Additions:
        """Those whose item has a slot, which is all unless Redis changed since the claim.

        A stored order names its lines by slot: one of a later time than the dictionary may name a
        slot that is not there yet.
        """
        known = additions.item < num_items
        if known.all():
            return additions
        if not self._moved():
            raise StoreError(f"the orders of {self.topic}-{self.partition} are damaged")
        self._stale = True
        return additions.where(known)

    def _stored_header(self) -> Header:
        return self._store.header(self.topic, self.partition) or Header()

    def _moved(self) -> bool:
        """Whether the stored header is no longer the claimed one."""
        stored, mine = self._stored_header(), self.header
        same_owner = (stored.epoch, stored.owner) == (mine.epoch, mine.owner)
        return not same_owner or stored.next_offset != mine.next_offset

    def _why_stale(self) -> Answer:
        stored, mine = self._stored_header(), self.header
        newer = stored.epoch > mine.epoch
        other = stored.epoch == mine.epoch and stored.owner != mine.owner
        return Answer.FENCED if newer or other else Answer.GAP

    def _history(self, batch: DecodedBatch) -> HistoryVerdicts:
        """What the history headers of a batch settle, which hardly any batch has."""
        if not batch.history:
            nobody = np.zeros(len(batch.decoded.index), np.bool_)
            return HistoryVerdicts(batch.decoded, nobody, 0, {}, complete=False)
        loads = loads_of(batch.history)
        known = self._store.loaded(self.topic, self.partition, loads)
        return judge_history(batch.decoded, batch.history, batch.redrives, known)

    def _verdicts(
        self, batch: DecodedBatch, history: HistoryVerdicts, dictionary: ItemDictionary
    ) -> Verdicts:
        decoded = history.decoded
        index = decoded.index
        names = list(map(batch.redrives.get, index.tolist())) if batch.redrives else []
        asked = [name for name in names if name is not None]
        known = Known(
            reach=reach_of(self.header),
            rule=self._frontier_rule,
            seen=self._minutes.seen,
            dictionary=dictionary,
            redrives=self._store.redriven(self.topic, self.partition, asked),
            orders=self._orders,
        )
        return reach_verdicts(
            decoded,
            batch.timestamps_ms[index],
            names if asked else (),
            history=history.patient,
            contents=self._contents_of(decoded),
            known=known,
            rules=self._rules,
        )

    def _contents_of(self, decoded: Decoded) -> Digests:
        """Digests of what records say, which states do without."""
        if self._orders is None:
            return self._contents.of(decoded)
        return np.zeros(len(decoded.index), np.uint32)

    def _update(
        self,
        verdicts: Verdicts,
        additions: Additions,
        header: Header,
        loaded: Mapping[bytes, int],
    ) -> tuple[Update, ChangedTiles]:
        """The batch's absolute writes, and the tiles to remember once they are in."""
        watermark_ms = verdicts.times.frontier_ms - self._rules.out_of_order_ms
        tiles, changed = self._tiles.fold(
            additions,
            newest_ms=_or_never(self.header.newest_ms),
            watermark_ms=watermark_ms,
        )
        update = Update(
            topic=self.topic,
            partition=self.partition,
            epoch=header.epoch,
            owner=header.owner,
            expected_offset=self.next_offset,
            next_offset=self.next_offset if header.next_offset is None else header.next_offset,
            watermark_ms=None if header.frontier_ms is None else watermark_ms,
            header=header.written_fields(),
            items_before=self.header.items,
            new_items=verdicts.new_items,
            redrives=verdicts.new_redrives,
            minutes=self._minutes.appends(verdicts.applied_entries, watermark_ms),
            tiles=tiles,
            orders=verdicts.orders.writes if verdicts.orders is not None else (),
            loaded=loaded,
        )
        return update, changed

    def _remember(self, fold: Fold) -> None:
        # What others wrote to the header meanwhile can only be our own idle frontier.
        self.header = replace(fold.header, idle_frontier_ms=self.header.idle_frontier_ms)
        self._load().extend(fold.update.new_items)
        self._tiles.remember(fold.changed)
        self._minutes.remember(fold.update.minutes, _or_never(fold.update.watermark_ms))
        if self._orders is not None:
            self._orders.remember(fold.update.orders)


def _state_log(
    kind: EventKind, store: WindowStore, keys: Keys, settings: Settings
) -> StateLog | None:
    """Where records say what orders are: what is known of them."""
    orders = settings.events.orders
    if kind != "orders" or orders.mode != "state":
        return None
    return StateLog(store.read_fields, keys, orders.keep_ms)


def _or_never(time_ms: int | None) -> int:
    """A time, or one before all events."""
    return NEVER_MS if time_ms is None else time_ms


def _counts(verdicts: Verdicts, dead: Sequence[DeadLetter], *, repeated: int) -> Counts:
    decoded = verdicts.decoded
    lines_dead = sum(letter.line is not None for letter in dead)
    return Counts(
        read=decoded.num_records,
        applied=int(verdicts.applied.sum()),
        duplicate=int(verdicts.duplicate.sum()) + repeated,
        late_dropped=int(verdicts.too_late.sum()),
        dead_letter=len(dead) - lines_dead,
        skipped=len(decoded.skipped),
        lines_dead=lines_dead,
        conflicting=int(verdicts.conflicting.sum()),
    )


def _additions(kind: EventKind, verdicts: Verdicts) -> Additions:
    """What the applied records add."""
    if verdicts.orders is not None:
        return verdicts.orders.additions
    decoded, lines = verdicts.decoded, verdicts.applied_lines
    slot = verdicts.line_slot[lines]
    time_ms = decoded.event_time_ms[decoded.line_record[lines]]
    if kind == "orders":
        return order_additions(slot, time_ms, decoded.quantity[lines], decoded.unit_price[lines])
    return click_additions(slot, time_ms, decoded.channel[lines])


def _touched(additions: Additions, new_items: list[str], dictionary: ItemDictionary) -> list[str]:
    """The items that something was added to."""
    num_known = len(dictionary)
    touched = np.zeros(num_known + len(new_items), np.bool_)
    touched[additions.item] = True
    slots = np.flatnonzero(touched)
    known = [dictionary.item_ids[slot] for slot in slots[slots < num_known].tolist()]
    return known + [new_items[slot] for slot in (slots[slots >= num_known] - num_known).tolist()]
