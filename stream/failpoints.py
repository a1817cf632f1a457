"""Named places where a test kills the process, or stops it: recovery is tried, not argued."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Literal, get_args

VARIABLE = "FRESHET_FAILPOINT"

Failpoint = Literal[
    "after_dead_letters",
    "before_apply",
    "after_apply",
    "after_table_letters",
    "before_append",
    "after_append",
    "before_notice",
    "before_forecasts",
    "after_forecasts",
    "transaction_produced",
    "transaction_offsets_sent",
    "before_scores",
    "after_scores",
    "before_drift",
    "fenced_produced",
    "after_drift",
    "before_decision",
    "after_decision",
    "registry_files_written",
    "registry_before_rename",
    "registry_after_rename",
    "registry_before_alias",
    "registry_between_aliases",
    "learn_trained",
    "learn_trial_told",
    "learn_registered",
    "learn_served",
    "learn_announced",
]

_passes: Counter[str] = Counter()


def failpoint(name: Failpoint) -> None:
    """Signal this process if the environment names this point, once, at the n-th pass.

    `FRESHET_FAILPOINT=<name>[:n[:signal]]`, SIGKILL where it names no signal; without that variable
    it does nothing, and production never sets it.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    chosen, count, name_of_signal = [*wanted.split(":"), "", ""][:3]
    assert chosen in get_args(Failpoint), f"{VARIABLE} names {chosen}, which is no failpoint"
    if chosen != name:
        return
    _passes[name] += 1
    if _passes[name] == int(count or 1):
        os.kill(os.getpid(), signal.Signals[name_of_signal or "SIGKILL"])
