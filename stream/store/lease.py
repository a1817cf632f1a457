"""One process of a shop does a thing: who, says a key in Redis that its holder keeps alive.

A lease alone stops nobody who sleeps past its end; what its holder writes needs a fence of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from freshet.stream.process import Stop
from freshet.stream.store.connection import translated
from freshet.stream.telemetry import get_logger

RENEW_S = 3.0  # so that a Redis that restarts takes no lease away

log = get_logger(__name__)


def is_free(client: redis.Redis, key: str) -> bool:
    """Whether nobody holds a lease.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    with translated(client):
        return not client.exists(key)


class Lease:
    """A lease that a thread of its own renews for as long as `alive` says so.

    Args:
        client: From `freshet.stream.store.connection.connect`.
        key: The name of the lease.
        alive: Whether its holder still does anything.
        lost: Called once, from that thread, when the lease is another's or nobody's.
        ttl_s: Without renewal it ends after so long.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        *,
        alive: Callable[[], bool],
        lost: Callable[[], None],
        ttl_s: float,
    ) -> None:
        self._client, self._alive, self._lost, self._ttl_s = client, alive, lost, ttl_s
        self._lock = Lock(client, key, timeout=ttl_s, blocking=False, thread_local=False)
        self._ended = Stop()
        self._until_s = 0.0

    @property
    def held(self) -> bool:
        """Whether it is ours for certain at this moment, whatever slept meanwhile."""
        return time.monotonic() < self._until_s

    def take(self) -> bool:
        """Take it where it is free, and keep it; False where somebody has it.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        asked_s = time.monotonic()
        with translated(self._client):
            if not self._lock.acquire():
                return False
        self._until_s = asked_s + self._ttl_s
        threading.Thread(target=self._keep, name="lease", daemon=True).start()
        return True

    def give_back(self) -> None:
        """Let another have it at once."""
        self._ended.set()
        self._until_s = 0.0
        with suppress(LockError, redis.RedisError):
            self._lock.release()

    def _keep(self) -> None:
        wait_s = min(RENEW_S, self._ttl_s / 5)
        while not self._ended.wait(wait_s) and self._renewed():
            pass
        if not self._ended.is_set():
            self._until_s = 0.0
            self._lost()

    def _renewed(self) -> bool:
        """False when it is over; a Redis that is away may come back in time."""
        asked_s = time.monotonic()
        if not self._alive():
            log.error("lease_not_kept", reason="its holder stands still")
            return False
        try:
            self._lock.reacquire()
        except LockError:
            return False
        except redis.RedisError:
            return self.held
        self._until_s = asked_s + self._ttl_s
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_back()
