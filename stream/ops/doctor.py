"""Runs checks at once, each with its own limit of time, and says of each what it found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Final, Literal

from freshet.stream.errors import FreshetError

LIMIT_S: Final = 7.0
"""Of all checks together: with the start of a process none takes ten."""

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `problem` if freshet cannot run like this, `warning` if a person should know."""

    name: str
    state: State
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One check.

    Attributes:
        name: What it is about.
        look: Makes the findings; may block.
        needs: Names of probes without which there is nothing to look at.
        late: What it is where the check does not end in time.
    """

    name: str
    look: Callable[[], Iterable[Check]]
    needs: tuple[str, ...] = ()
    late: State = "problem"


class Examination:
    """Probes that look at the same time.

    Args:
        probes: Which.
        limit_s: How long all of them may take.
    """

    def __init__(self, probes: Sequence[Probe], limit_s: float = LIMIT_S) -> None:
        self._waiting = {probe.name: probe for probe in probes}
        self._running: dict[str, Probe] = {}
        self._well: dict[str, bool] = {}
        self._left_out: list[str] = []
        self._ended: Queue[tuple[str, list[Check]]] = Queue()
        self._limit_s = limit_s

    def findings(self) -> Iterator[Check]:
        """Each check's findings as it ends; a check that fails or hangs stops no other."""
        deadline_s = time.monotonic() + self._limit_s
        self._start()
        while self._running:
            try:
                name, found = self._ended.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                yield from map(self._too_late, self._running.values())
                self._left_out += self._waiting
                break
            del self._running[name]
            yield from found
            self._well[name] = all(check.state != "problem" for check in found)
            self._start()
        if self._left_out:
            text = f"not looked at, for want of the above: {', '.join(self._left_out)}"
            yield Check("doctor", "warning", text)

    def _start(self) -> None:
        """Start what has all that it needs, and leave out what will never have it."""
        for name, probe in list(self._waiting.items()):
            known = [self._well.get(need) for need in probe.needs]
            if False in known:
                del self._waiting[name]
                self._well[name] = False
                self._left_out.append(name)
            elif None not in known:
                del self._waiting[name]
                self._running[name] = probe
                threading.Thread(target=self._run, args=(probe,), name=name, daemon=True).start()

    def _run(self, probe: Probe) -> None:
        try:
            found = list(probe.look())
        except FreshetError as error:
            found = [Check(probe.name, "problem", error.message, error.hint)]
        except Exception as error:  # Whatever a library raises, the other checks go on.
            text = f"the check failed: {type(error).__name__}: {error}"
            found = [Check(probe.name, "problem", text, "this is a fault of freshet: report it")]
        self._ended.put((probe.name, found))

    def _too_late(self, probe: Probe) -> Check:
        text = f"no answer within {self._limit_s:g} s"
        return Check(probe.name, probe.late, text, "is that server, disk or machine overloaded?")
