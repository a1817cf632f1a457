"""What every event source yields: records in the order they arrive, one stretch of time after
another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TopicKind = Literal["orders", "clicks", "catalog", "promotions", "inventory"]


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Records with `start_ms <= timestamp < end_ms`, in time order; four columns of the same
    length.

    `kinds` says the topic of each record, `timestamps_ms` when it arrives (the Kafka record
    timestamp).
    """

    start_ms: int
    end_ms: int
    kinds: list[TopicKind]
    keys: list[bytes]
    values: list[bytes | None]
    timestamps_ms: list[int]

    def __len__(self) -> int:
        return len(self.kinds)
