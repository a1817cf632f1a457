"""A look at the first records of history before any is sent: whether ingest could use them.

Records that the topic's map does not fit, or orders that change without their keys, would be dead
letters to the last one, and counted as loaded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from typing import Final

import numpy as np

from freshet.stream.clock import wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventKind
from freshet.stream.events.formats.decoding import FormatDecoder
from freshet.stream.events.order_states import settle
from freshet.stream.source.history import History, OldRecord

FIRST_RECORDS: Final = 5_000
KINDS: Final[tuple[EventKind, ...]] = ("orders", "clicks")


def checked(settings: Settings, history: History) -> History:
    """The same history, once it is known that some of its first records can be used.

    Raises:
        InvalidInputError: None of its first orders, or of its first clicks, can be.
        SchemaRegistryAwayError: Their schema is not known, and nobody answers.
    """
    records = iter(history.records)
    first = list(islice(records, FIRST_RECORDS))
    for kind in KINDS:
        own = [record for record in first if record.kind == kind]
        if own:
            sent_ms = wall_now_ms()
            decoded = _decoded(settings, kind, own, sent_ms)
            _refuse_useless(decoded, history.name, kind)
            _refuse_times_of_sending(decoded, sent_ms, history.name, kind)
    return replace(history, records=chain(first, records))


def _decoded(
    settings: Settings, kind: EventKind, records: list[OldRecord], sent_ms: int
) -> Decoded:
    decoded, keys = FormatDecoder(kind, settings).decode(
        [record.value for record in records],
        [record.key for record in records],
        np.full(len(records), sent_ms, np.int64),
        {n: list(record.headers) for n, record in enumerate(records) if record.headers},
    )
    orders = settings.events.orders
    if kind == "clicks" or orders.mode != "state":
        return decoded
    future_ms = settings.windows.max_future_ms
    return settle(decoded, keys, any_key=orders.key == "any", max_future_ms=future_ms)


def _refuse_useless(decoded: Decoded, name: str, kind: EventKind) -> None:
    if len(decoded.index):
        return
    what = Counter(f"{bad.error_class}: {bad.message}" for bad in decoded.refusals)
    what.update(f"skipped by {one.reason}" for one in decoded.skipped)
    (why, count), *_ = what.most_common(1)
    raise InvalidInputError(
        f"{name}: none of its first {decoded.num_records} {kind} can be used; {count} times {why}",
        hint=f"nothing was sent. Lines of JSON are read by the map events.{kind} like live ones: "
        "give them as your topic has them, with --key where orders are states; of a table say with "
        "--map which column is what",
    )


def _refuse_times_of_sending(decoded: Decoded, sent_ms: int, name: str, kind: EventKind) -> None:
    if not np.all(decoded.event_time_ms == sent_ms):
        return
    field = "event_time" if decoded.states is None else "changed_at"
    raise InvalidInputError(
        f"{name}: {kind} have their times from Kafka, so all of history would be of today",
        hint=f"map events.{kind}.fields.{field} to a time that records carry; nothing was sent",
    )
