"""Another generation of windows, built beside the current one, which readers then go over to.

`freshet ingest --from-beginning --into GENERATION` is the way to change resolutions, `series_by`,
lateness or the calendar, and the way out of a lost log. The builder reads the whole log under its
own settings and group while the current generation is written and read on; when it has caught up,
one write makes its generation current: readers go over with their next look, and whoever writes the
old one ends. The builder goes on as the live ingest. Dead letters and late records that the current
generation has already told of are not told again.
"""

from __future__ import annotations

from collections.abc import Mapping

import redis

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError
from freshet.stream.kafka import Key
from freshet.stream.store.connection import connect, translated
from freshet.stream.store.generation import current_generation, make_current
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger

KEYS_A_CALL = 1_000

log = get_logger(__name__)


class Generations:
    """Which generation a process writes, and whether readers read it yet.

    Args:
        client: Connected to the Redis of both.
        configured: `redis.generation`.
        into: The generation to build; None writes the current one.

    Raises:
        ConfigError: `into` is older than what is current.
    """

    def __init__(self, client: redis.Redis, configured: int, into: int | None = None) -> None:
        self._client = client
        current = current_generation(client, configured)
        if into is not None and into < current:
            raise ConfigError(
                f"generation {into} is older than {current}, which is current",
                hint=f"build generation {current + 1}",
            )
        self.written = current if into is None else into
        self.building = self.written > current
        self._told = WindowStore(client, current) if self.building else None

    def superseded_by(self) -> int | None:
        """The generation that is current instead of ours; None while ours is, or is being built."""
        current = current_generation(self._client, self.written)
        return current if current > self.written else None

    def told_before(self, key: Key) -> int:
        """The offset before which the current generation has told of dead and late records."""
        header = self._told.header(*key) if self._told is not None else None
        return (header.next_offset or 0) if header else 0

    def switch(self) -> None:
        """Make what was built current.

        What the old generation has told of is still asked for: its writer may have been a second
        ahead.
        """
        if self.building:
            make_current(self._client, self.written)
            self.building = False
            log.info("generation_is_current", generation=self.written)


def caught_up(positions: Mapping[Key, int], ends: Mapping[Key, int]) -> bool:
    """Whether everything that was in the logs when they were asked is folded.

    >>> caught_up({("o", 0): 7}, {("o", 0): 7}), caught_up({("o", 0): 6}, {("o", 0): 7})
    (True, False)
    >>> caught_up({}, {})  # Nobody has asked yet.
    False
    """
    return bool(ends) and all(positions.get(key, 0) >= end for key, end in ends.items())


def drop_generation(settings: Settings, generation: int) -> int:
    """Delete all keys of a generation that is not current; how many there were.

    Blocks Redis for no longer than one call of a thousand keys takes. Its list of partitions goes
    last, so a drop that was interrupted can be repeated.

    Raises:
        ConfigError: It is current: readers would find nothing.
    """
    client = connect(settings.redis)
    current = current_generation(client, settings.redis.generation)
    if generation == current:
        raise ConfigError(
            f"generation {generation} is current", hint="build and switch to another one first"
        )
    with translated(client):
        windows = _delete(client, f"{{freshet:g{generation}:*")
        return windows + _delete(client, f"freshet:g{generation}:*")


def _delete(client: redis.Redis, pattern: str) -> int:
    found = 0
    keys: list[bytes] = []
    for key in client.scan_iter(match=pattern, count=KEYS_A_CALL):
        keys.append(key)
        if len(keys) == KEYS_A_CALL:
            found += _unlink(client, keys)
            keys = []
    return found + _unlink(client, keys)


def _unlink(client: redis.Redis, keys: list[bytes]) -> int:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.unlink(key)
    return sum(pipe.execute()) if keys else 0
