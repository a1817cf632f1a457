"""Records of history: old events that are loaded in whatever order, each exactly once.

A record with the header `freshet-history: LOAD:SEQUENCE` is never late or from the future and
leaves the frontier alone. Sequences rise within a load and a partition, so a record whose sequence
is not above the highest judged of its load is a duplicate: a load that was cut off is sent again
from its beginning. `LOAD:complete` on a record without a value says that all of it was sent. A
record that a person sends again goes by its redrive header instead of by its sequence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools
from freshet.stream.events.columns import Decoded, without
from freshet.stream.events.limits import Refusal, Skipped
from freshet.stream.events.redrive import Headers

HISTORY_HEADER: Final = "freshet-history"
COMPLETE: Final = b"complete"
MAX_LOAD_CHARACTERS: Final = 100
_MARK: Final = re.compile(rb"([A-Za-z0-9._-]{1,100}):([0-9]{1,18}|complete)")

Marks = Mapping[int, bytes]
"""What the history headers of a batch say, by the place of their record."""


def history_mark(headers: Headers, value: bytes | None) -> bytes | None:
    """What a record's history header says, the last one of several; None without one.

    Only a record without a value can say that a load is complete.

    >>> history_mark([("trace", b"1"), ("freshet-history", b"2024:17")], b"{}")
    b'2024:17'
    >>> history_mark([("freshet-history", b"2024:complete")], b"{}")
    b'2024:complete with a value'
    """
    for header, said in reversed(headers):
        if header == HISTORY_HEADER and said:
            mark = said.encode() if isinstance(said, str) else said
            ends = mark.endswith(b":" + COMPLETE) and value != b""
            return mark + b" with a value" if ends else mark
    return None


def loads_of(marks: Marks) -> list[bytes]:
    """The loads that a batch has records of."""
    found = map(_MARK.fullmatch, marks.values())
    return sorted({match[1] for match in found if match is not None})


@dataclass(frozen=True, slots=True)
class HistoryVerdicts:
    """What history headers make of a batch.

    `decoded` is without the records that are settled by them: `repeated` is how many are
    duplicates, and those that are refused or skipped are named in it. `patient` are the good
    records left that are history. `highest` are the sequences judged, of loads that went on.
    """

    decoded: Decoded
    patient: Bools
    repeated: int
    highest: Mapping[bytes, int]
    complete: bool


def judge_history(
    decoded: Decoded, marks: Marks, redriven: Collection[int], known: Mapping[bytes, int]
) -> HistoryVerdicts:
    """Settle what the headers settle; the rest is judged as other records are.

    Args:
        decoded: All of a batch.
        marks: Headers by the place of their record.
        redriven: Places of records that a person sends again.
        known: The highest sequence of each load that was judged before.
    """
    highest: dict[bytes, int] = {}
    bad: dict[int, Refusal] = {}
    repeated, complete = set(), set()
    skipped = {one.index for one in decoded.skipped}
    for place in sorted(marks):
        match = _MARK.fullmatch(marks[place])
        if match is None:
            if place not in skipped:
                bad[place] = _unfit(place, marks[place])
        elif match[2] == COMPLETE:
            complete.add(place)
        elif place not in redriven:
            load, sequence = match[1], int(match[2])
            if sequence <= highest.get(load, known.get(load, -1)):
                repeated.add(place)
            else:
                highest[load] = sequence
    left = _settled(decoded, bad, repeated, complete)
    patient = np.isin(left.index, list(marks))
    return HistoryVerdicts(left, patient, len(repeated), highest, bool(complete))


def _settled(
    decoded: Decoded, bad: Mapping[int, Refusal], repeated: set[int], complete: set[int]
) -> Decoded:
    """The batch without the records that their headers settle."""
    other = [one for one in decoded.refusals if one.index not in repeated | complete]
    refusals = {**bad, **{one.index: one for one in other}}
    gone = [Refusal(place, "", "") for place in repeated]
    left = without(decoded, [*gone, *refusals.values()])
    skipped = [one for one in decoded.skipped if one.index not in repeated | complete]
    return replace(
        left,
        refusals=[refusals[place] for place in sorted(refusals)],
        skipped=[*skipped, *(Skipped(place, "history_complete") for place in sorted(complete))],
    )


def _unfit(place: int, mark: bytes) -> Refusal:
    said = mark[:MAX_LOAD_CHARACTERS].decode(errors="replace")
    text = (
        f"the header {HISTORY_HEADER} is {said!r}, expected LOAD:SEQUENCE, "
        "or LOAD:complete on a record without a value"
    )
    return Refusal(place, "InvalidHistory", text)
