"""How far every partition's windows are, without a single one of them: a look for whoever waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from freshet.stream.config import Settings
from freshet.stream.read.merge import input_of
from freshet.stream.read.progress import Input, InputState, reached
from freshet.stream.store.connection import translated
from freshet.stream.store.format import check_format
from freshet.stream.store.generation import current_generation
from freshet.stream.store.layout import Header, Keys, partitions_key

LOOK_S = 30.0


def read_heads(client: redis.Redis, generation: int) -> dict[Input, Header]:
    """The headers of the current windows' partitions that hold anything; three round trips.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        generation: Which windows at least.

    Raises:
        StoreUnavailableError: Redis does not answer, or another version's windows are in it.
    """
    current = current_generation(client, generation)
    with translated(client):
        members: Any = client.smembers(partitions_key(current))
        inputs = sorted(map(input_of, members))
        pipe = client.pipeline(transaction=False)
        for at in inputs:
            pipe.hgetall(Keys(current, *at).header)
        answers = pipe.execute()
    headers = {at: Header.parse(fields) for at, fields in zip(inputs, answers, strict=True)}
    for header in headers.values():
        check_format(header.fingerprint, current)
    return {at: header for at, header in headers.items() if header.next_offset is not None}


def states_of(heads: dict[Input, Header]) -> dict[Input, InputState]:
    """What headers say of progress."""
    return {at: InputState.of(header) for at, header in heads.items()}


class EventsReached:
    """Up to when events have come: what is only asked of earlier times may be forgotten then.

    It may be years before the clock and before what the shop's tables say, while history is loaded.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        settings: The generation of windows, and whose topics count.
        now_s: A clock that never goes back.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._generation = client, settings.redis.generation
        self._orders = settings.kafka.topics.orders
        self._now_s = now_s
        self._looked_s = -LOOK_S
        self._ms = 0

    def ms(self) -> int:
        """The time that all partitions of orders with any have reached; 0 before there are any.

        It is looked up twice a minute at most.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        if self._now_s() - self._looked_s >= LOOK_S:
            self._looked_s = self._now_s()
            inputs = states_of(read_heads(self._client, self._generation))
            frontiers_ms = [part.frontier_ms for part in reached(inputs, [self._orders])]
            self._ms = min(frontiers_ms, default=0)
        return self._ms
