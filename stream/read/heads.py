"""How far every partition's windows are, without a single one of them: a look for whoever waits."""

from __future__ import annotations

from typing import Any

import redis

from freshet.stream.read.merge import input_of
from freshet.stream.read.progress import Input, InputState
from freshet.stream.store.connection import translated
from freshet.stream.store.generation import current_generation
from freshet.stream.store.layout import Header, Keys, partitions_key


def read_heads(client: redis.Redis, generation: int) -> dict[Input, Header]:
    """The headers of the current windows' partitions that hold anything; three round trips.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        generation: Which windows at least.

    Raises:
        StoreUnavailableError: Redis does not answer.
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
    return {at: header for at, header in headers.items() if header.next_offset is not None}


def states_of(heads: dict[Input, Header]) -> dict[Input, InputState]:
    """What headers say of progress."""
    return {at: InputState.of(header) for at, header in heads.items()}
