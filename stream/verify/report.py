"""What `freshet verify` found, for programs and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is stored otherwise than it was recounted.

    `what` is a channel, or a field of the header; then item, resolution and bucket are None.
    """

    topic: str
    partition: int
    what: str
    stored: int | str | None
    recounted: int | str | None
    item_id: str | None = None
    resolution_ms: int | None = None
    bucket_start_ms: int | None = None

    def as_text(self) -> str:
        """For a person."""
        place = f"{self.topic}:{self.partition}"
        if self.item_id is not None:
            place += f" {self.item_id!r} bucket {self.bucket_start_ms} of {self.resolution_ms} ms"
        return f"{place}: {self.what} is stored as {self.stored}, recounted as {self.recounted}"


@dataclass(slots=True)
class PartitionReport:
    """What was found of one partition, of events or of a shop's table.

    `cells` are those of windows, or versions. `log_missing` says why it could not be recounted, or
    is None.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    records: int = 0
    cells: int = 0
    differences: int = 0
    log_missing: str | None = None


@dataclass(slots=True)
class Report:
    """What `freshet verify` found; `shown` are the first differences."""

    generation: int
    partitions: list[PartitionReport] = field(default_factory=list)
    tables: list[PartitionReport] = field(default_factory=list)
    shown: list[Difference] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """How many cells, versions and header fields differ."""
        return sum(part.differences for part in (*self.partitions, *self.tables))

    @property
    def log_missing(self) -> list[str]:
        """Why partitions could not be recounted."""
        missing = [(part, part.log_missing) for part in (*self.partitions, *self.tables)]
        return [f"{part.topic}:{part.partition}: {why}" for part, why in missing if why is not None]

    @property
    def agrees(self) -> bool:
        """Whether everything stored was recounted and is the same; False of nothing at all."""
        return bool(self.partitions) and not self.differences and not self.log_missing

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "agrees": self.agrees,
            "generation": self.generation,
            "records": sum(part.records for part in self.partitions),
            "cells": sum(part.cells for part in self.partitions),
            "differences": self.differences,
            "log_missing": self.log_missing,
            "partitions": [asdict(part) for part in self.partitions],
            "tables": [asdict(part) for part in self.tables],
            "shown": [asdict(difference) for difference in self.shown],
        }

    def note(self, part: PartitionReport, difference: Difference) -> None:
        """Count a difference of a partition, and show it if it is one of the first."""
        part.differences += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(difference)

    def as_text(self) -> str:
        """For a person."""
        if not self.partitions:
            return f"there are no windows under generation {self.generation}: nothing was compared"
        lines = [f"the log is gone: {why}" for why in self.log_missing]
        lines += [_late_begin(part) for part in self.partitions if part.first_offset > 0]
        lines += [difference.as_text() for difference in self.shown]
        if self.differences > len(self.shown):
            lines.append(f"and {self.differences - len(self.shown)} more")
        return "\n".join([*lines, self._conclusion()])

    def _conclusion(self) -> str:
        totals = self.as_dict()
        compared = (
            f"{totals['cells']} cells from {totals['records']} records of "
            f"{len(self.partitions)} partitions{self._tables_text()}"
        )
        if self.agrees:
            return f"windows and log agree: {compared}"
        if self.differences:
            return f"{self.differences} differences; recounted {compared}"
        return f"not everything could be compared; no differences in {compared}"

    def _tables_text(self) -> str:
        if not self.tables:
            return ""
        versions = sum(part.cells for part in self.tables)
        records = sum(part.records for part in self.tables)
        return f", {versions} versions of {len(self.tables)} table partitions from {records}"


def _late_begin(part: PartitionReport) -> str:
    return (
        f"{part.topic}:{part.partition} begins at offset {part.first_offset}: "
        "what the log held before is not in it"
    )
