"""`python -m freshet.online.owner SECONDS`: a worker's child; its settings are on standard input.

It takes the lease before it imports what is heavy, and ends at once where somebody has it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

from freshet.stream.config import Settings
from freshet.stream.cores import sleep_where_threads_wait
from freshet.stream.errors import FreshetError
from freshet.stream.health import Health
from freshet.stream.process import Stop, on_signals
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import EFFECTS_OWNER_KEY
from freshet.stream.store.lease import Lease
from freshet.stream.telemetry import configure_logging


def main() -> None:
    """Own the effects; a known error is one line and exit status 1."""
    settings: Settings = pickle.load(sys.stdin.buffer)
    configure_logging(settings.telemetry)
    sleep_where_threads_wait(os.environ)
    stop = Stop()
    try:
        with on_signals({signal.SIGTERM: stop.set, signal.SIGINT: stop.set}):
            own(settings, stop, ttl_s=float(sys.argv[1]))
    except FreshetError as error:
        print(f"freshet worker, owner of effects: {error}", file=sys.stderr)
        sys.exit(1)


def own(settings: Settings, stop: Stop, *, ttl_s: float) -> None:
    """Take the lease, and own the effects for as long as it lasts.

    Args:
        settings: All of them.
        stop: Ends it.
        ttl_s: How long the lease lasts where nobody renews it.

    Raises:
        FreshetError: A server is missing or unfit.
    """
    client = connect(settings.redis)
    health = Health(stop, "taking over the effects")

    def alive() -> bool:
        return health.live() is None

    lease = Lease(client, EFFECTS_OWNER_KEY, alive=alive, lost=stop.set, ttl_s=ttl_s)
    with lease:
        if not lease.take():
            return
        from freshet.online.owner.process import run

        run(settings, client, lease, stop, health)


if __name__ == "__main__":
    main()
