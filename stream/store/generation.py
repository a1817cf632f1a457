"""Which complete set of windows readers read: one number in Redis, which only rises."""

from __future__ import annotations

from typing import Any, Final

import redis

from freshet.stream.errors import StoreError
from freshet.stream.store.connection import translated
from freshet.stream.store.script import Script

GENERATION_KEY: Final = "freshet:generation"
NEW_GENERATION_HINT: Final = (
    "fold what the log still holds into new windows with "
    "`freshet ingest --from-beginning --into GENERATION`, "
    "or bring back the Redis or the topic that belong together"
)


def current_generation(client: redis.Redis, configured: int) -> int:
    """The generation that readers read: the newest that was made current, or as configured.

    Raises:
        StoreError: The key holds something else.
    """
    with translated(client):
        said: Any = client.get(GENERATION_KEY)
    return later_generation(said, configured)


def later_generation(said: bytes | None, configured: int) -> int:
    """The later of the one that is configured and the one that the key in Redis names.

    >>> later_generation(b"3", 0), later_generation(None, 2)
    (3, 2)
    """
    if said is not None and not said.isdigit():
        raise StoreError(
            f"Redis key {GENERATION_KEY} holds {said[:40]!r}",
            hint="set it to a generation's number",
        )
    return max(configured, int(said or 0))


def make_current(client: redis.Redis, generation: int) -> None:
    """Switch readers to a generation, all with their next look; a later one stays current."""
    with translated(client):
        Script(client, "raise")([GENERATION_KEY], [generation])
