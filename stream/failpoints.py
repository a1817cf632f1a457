"""Named places where a test makes the process die by SIGKILL, so that crash recovery is tried and
not argued.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "FRESHET_FAILPOINT"
NAMES = (
    *("after_dead_letters", "before_apply", "after_apply", "before_notice"),
    *("before_forecasts", "after_forecasts", "before_scores", "after_scores"),
    *("registry_files_written", "registry_before_rename", "registry_after_rename"),
    *("registry_before_alias", "registry_between_aliases"),
    *("learn_trained", "learn_registered", "learn_served", "learn_announced"),
)

_passes: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process if the environment says `FRESHET_FAILPOINT=<name>[:n]` and this is the n-th
    pass.

    Without that variable it does nothing; production never sets it.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    assert name in NAMES, name
    chosen, _, count = wanted.partition(":")
    if chosen != name:
        return
    _passes[name] += 1
    if _passes[name] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
