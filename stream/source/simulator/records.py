"""Records on their way to a batch: four columns that grow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from freshet.stream.source.batches import TopicKind


@dataclass(slots=True)
class Records:
    """Records in no particular order, with the time each arrives; grows in place."""

    kinds: list[TopicKind] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: TopicKind, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        """Append one record."""
        self.kinds.append(kind)
        self.keys.append(key)
        self.values.append(value)
        self.timestamps_ms.append(timestamp_ms)

    def extend(self, other: Records) -> None:
        """Append all records of another."""
        self.kinds += other.kinds
        self.keys += other.keys
        self.values += other.values
        self.timestamps_ms += other.timestamps_ms

    def by_time(self) -> Records:
        """The same records in the order they arrive, equal times as they were added."""
        order = np.argsort(np.array(self.timestamps_ms, dtype=np.int64), kind="stable").tolist()
        return Records(
            [self.kinds[i] for i in order],
            [self.keys[i] for i in order],
            [self.values[i] for i in order],
            [self.timestamps_ms[i] for i in order],
        )

    def cut(self, start: int, stop: int) -> Records:
        """Records `start` to `stop`."""
        return Records(
            self.kinds[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.timestamps_ms[start:stop],
        )
