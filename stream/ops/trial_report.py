"""A trial for people and for machines: a line a record, its lines below it, and the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from freshet.stream.codec import rfc3339
from freshet.stream.ops.trial import Trial, Tried, TriedLine
from freshet.stream.schemas import item_id_parts

NAMES = {"late_dropped": "late", "dead_letter": "dead"}


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What came of a trial.

    Attributes:
        trial: It.
        series_by: What makes an item.
        warnings: What is odd.
        notes: What was taken for granted.
    """

    trial: Trial
    series_by: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str] = field(default=())

    def as_text(self, most: int) -> str:
        """For people, at most so many records."""
        tried = self.trial.tried
        lines = [line for one in tried[:most] for line in self._record(one)]
        if len(tried) > most:
            lines.append(f"... and {len(tried) - most} more records")
        lines.append(self._summary())
        lines += [f"  {count} x {reason}" for reason, count in self.trial.reasons()]
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def _record(self, one: Tried) -> Iterator[str]:
        head = [one.place, NAMES.get(one.became, one.became)]
        if one.event_id is not None:
            head.append(one.event_id)
        if one.time_ms is not None:
            head.append(_moment(one.time_ms))
        if one.created_ms is not None:
            head.append(f"version {one.version} of an order made {_moment(one.created_ms)}")
        if one.cancelled:
            head.append("all of it given back")
        if one.reason:
            head.append(f"({one.reason})")
        yield "  ".join(head)
        for line in one.lines:
            yield f"    {self._line(line)}"
        for number, why in one.bad_lines:
            yield f"    line {number} is dead: {why}"

    def _line(self, line: TriedLine) -> str:
        parts = [f"{name}={value}" for name, value in self._item(line).items()]
        if line.kind is not None:
            return "  ".join([*parts, line.kind])
        return "  ".join([*parts, f"quantity={line.quantity:g}", f"unit_price={line.unit_price:g}"])

    def _item(self, line: TriedLine) -> dict[str, str]:
        return dict(zip(self.series_by, item_id_parts(line.item_id), strict=True))

    def _summary(self) -> str:
        counts = self.trial.counts
        names = ("applied", "duplicate", "late_dropped", "dead_letter", "skipped")
        told = [f"{counts[name]} {NAMES.get(name, name)}" for name in names if counts[name]]
        dead_lines = sum(len(one.bad_lines) for one in self.trial.tried)
        told += [f"{dead_lines} dead lines"] if dead_lines else []
        return f"{len(self.trial.tried)} records: {', '.join(told)}"

    def as_dict(self) -> dict[str, Any]:
        """For machines, all of it."""
        return {
            "records": [self._told(one) for one in self.trial.tried],
            "counts": {"read": len(self.trial.tried), **self.trial.counts},
            "reasons": [{"reason": why, "count": count} for why, count in self.trial.reasons()],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def _told(self, one: Tried) -> dict[str, Any]:
        lines = [
            {
                **self._item(line),
                "item_id": line.item_id,
                **({"kind": line.kind} if line.kind is not None else _amounts(line)),
            }
            for line in one.lines
        ]
        told: dict[str, Any] = {
            "place": one.place,
            "became": one.became,
            "event_id": one.event_id,
            "time": None if one.time_ms is None else rfc3339(one.time_ms),
            "lines": lines,
            "reason": one.reason,
            "dead_lines": [{"line": number, "reason": why} for number, why in one.bad_lines],
        }
        if one.created_ms is not None:
            told["created"] = rfc3339(one.created_ms)
            told |= {"version": one.version, "cancelled": one.cancelled}
        return told


def _amounts(line: TriedLine) -> dict[str, float | None]:
    return {"quantity": line.quantity, "unit_price": line.unit_price}


def _moment(time_ms: int) -> str:
    """RFC 3339 UTC, without the milliseconds that there are none of."""
    return rfc3339(time_ms).replace(".000Z", "Z")
