"""Whether a process is well: what its probes answer, and how it waits for a server that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

from freshet.stream.errors import BrokerError, FreshetError, OtherFormatError, RegistryError
from freshet.stream.process import BackOff, Stop
from freshet.stream.telemetry import get_logger

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
ASK_S = 1.0
ANSWER_WITHIN_MS = 1_500  # two of them and a pause are less than the 5 s that /readyz may be wrong
WATCH = "watch"  # its thread's name
STUCK_S = 120.0  # a micro-batch takes seconds on a slow CPU, the longest wait for a server 5

Question = Callable[[], None]
"""Raises a FreshetError that says what is away."""

log = get_logger(__name__)


class Health:
    """Troubles that last, the loop's heart beat, and the pauses after a failure.

    Args:
        stop: Ends the pauses.
        start: What the process does before its first turn.
        standing: What is amiss while no trouble is known, or empty; asked with each probe.
        counted: Told the name of each trouble, every time.
    """

    def __init__(
        self,
        stop: Stop,
        start: str,
        *,
        standing: Callable[[], str] = str,
        counted: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.stop = stop
        self._standing = standing
        self._counted = counted
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S, stop.wait)
        self._beat_s = time.monotonic()
        self._troubles = {"start": start}

    # What probes ask ------------------------------------------------------------------------------

    def live(self) -> str | None:
        """None while the loop turns."""
        silent_s = time.monotonic() - self._beat_s
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > STUCK_S else None

    def ready(self) -> str | None:
        """None while the process does its work, else all that is amiss."""
        # A copy, because probes ask from their own thread.
        troubles = dict.fromkeys([*self._troubles.values(), self._standing()])
        return "; ".join(filter(None, troubles)) or None

    def trouble(self, what: str) -> str | None:
        """What is amiss with one thing, or None."""
        return self._troubles.get(what)

    # What the process tells -----------------------------------------------------------------------

    def beat(self) -> None:
        """The loop still turns."""
        self._beat_s = time.monotonic()

    def started(self) -> None:
        """The start is over."""
        self.over("start")

    def answered(self) -> None:
        """A server answered: the next pause is a short one again."""
        self._back_off.reset()

    def say(self, what: str, text: str) -> None:
        """Something is amiss; said in the log once, until it is over."""
        if what not in self._troubles:
            log.error("degraded", what=what, error=text)
        self._troubles[what] = text
        self._counted(what)

    def over(self, what: str) -> None:
        """Something is no longer amiss."""
        if self._troubles.pop(what, None) is not None and what != "start":
            log.info("recovered", what=what)

    def turned(self) -> None:
        """A whole turn went well: everything answered."""
        for what in ("start", "broker", "redis", "weights", "format"):
            self.over(what)

    def wait_out(self, error: FreshetError) -> bool:
        """Say a failure, and pause a little longer each time; False when told to stop."""
        self.say(_what_is_away(error), str(error))
        self.beat()
        return self._back_off.pause()


class Watch:
    """Asks once a second whether servers are there: an idle loop would not notice that one is gone.

    It asks beside the loop while its `with` block lasts; nobody waits for its last answer.

    Args:
        health: Told of each that does not answer, and when it answers again.
        questions: What to ask, by the name of what it is about.
    """

    def __init__(self, health: Health, questions: Mapping[str, Question]) -> None:
        self._health = health
        self._questions = questions
        self._ended = Stop()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name=WATCH, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()

    def look(self) -> None:
        """Ask everything once."""
        for what, ask in self._questions.items():
            try:
                ask()
            except FreshetError as error:
                self._health.say(what, str(error))
            else:
                self._health.over(what)

    def _run(self) -> None:
        while not self._ended.wait(ASK_S):
            try:
                self.look()
            except Exception:
                # Whatever a library raises, the questions go on.
                log.exception("servers_not_asked")


def _what_is_away(error: FreshetError) -> str:
    if isinstance(error, RegistryError):
        return "weights"
    if isinstance(error, OtherFormatError):
        return "format"
    return "broker" if isinstance(error, BrokerError) else "redis"
