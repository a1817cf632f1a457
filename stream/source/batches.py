"""What every source yields: records in the order they arrive, one span of time after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TopicKind = Literal["orders", "clicks", "catalog", "promotions", "inventory"]


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Records with `start_ms <= timestamp < end_ms`, in time order, as columns of one length.

    Attributes:
        kinds: The topic of each record.
        timestamps_ms: When it arrives: the timestamp of the Kafka record.
    """

    start_ms: int
    end_ms: int
    kinds: list[TopicKind]
    keys: list[bytes]
    values: list[bytes | None]
    timestamps_ms: list[int]

    def __len__(self) -> int:
        return len(self.kinds)
