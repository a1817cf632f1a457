"""Child processes: started together, restarted with back-off when they die, stopped together."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from freshet.stream.child import Child
from freshet.stream.errors import FreshetError

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
MAX_FAILURES = 5
FAILURE_WINDOW_S = 60.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 8


@dataclass(slots=True)
class Service:
    """One command kept running.

    Attributes:
        name: What people call it; its log is `<name>.log`.
        argv: The command line.
        restarts: How often it was started again after dying.
        once: True when exit status 0 means that its work is done.
    """

    name: str
    argv: Sequence[str]
    once: bool = False
    restarts: int = 0
    process: Child | None = None
    next_start_s: float = 0.0
    failures_s: list[float] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def finished(self) -> bool:
        return self.once and self.process is not None and self.process.process.poll() == 0


class Supervisor:
    """Starts children, looks after them on every `tend`, stops them in reverse order.

    Args:
        log_dir: Where each child's stdout and stderr are appended.
        say: Called with one plain sentence when something happens to a service.
        monotonic_s: The clock, an argument so that tests need not wait.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        say: Callable[[str], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_dir = log_dir
        self._say = say
        self._now_s = monotonic_s
        self.services: list[Service] = []

    def start(self, service: Service) -> None:
        """Start one service now and look after it from here on."""
        self.services.append(service)
        self._spawn(service)

    def tend(self) -> None:
        """Restart what died and whose back-off has passed.

        Raises:
            FreshetError: A service failed `MAX_FAILURES` times within a minute; the text ends with
                its last log lines.
        """
        for service in self.services:
            if service.running or service.finished or service.process is None:
                self._restart_when_due(service)
            else:
                self._bury(service)

    def stop(self, *names: str) -> None:
        """Stop the named services for good, all when none is named.

        All get SIGTERM at once, and SIGKILL where that does not help in time.
        """
        newest_first = list(reversed(self.services))
        leaving = [service for service in newest_first if service.name in names or not names]
        for service in leaving:
            if service.running and service.process:
                service.process.process.terminate()
        for service in leaving:
            if service.process:
                service.process.stop(STOP_TIMEOUT_S)
            self.services.remove(service)

    def finished(self, name: str) -> bool:
        """Whether the work of a service is done."""
        return any(service.name == name and service.finished for service in self.services)

    def log_path(self, name: str) -> Path:
        """Where a service's stdout and stderr go."""
        return self._log_dir / f"{name}.log"

    def _spawn(self, service: Service) -> None:
        service.process = Child(list(service.argv), log_file=self.log_path(service.name))

    def _bury(self, service: Service) -> None:
        """Plan the next start of a service that died; each death in a row doubles the wait."""
        assert service.process is not None
        how = _how(service.process.process.returncode)
        now_s = self._now_s()
        recent_s = [at_s for at_s in service.failures_s if now_s - at_s < FAILURE_WINDOW_S]
        service.failures_s = [*recent_s, now_s]
        if len(service.failures_s) >= MAX_FAILURES:
            log_end = (
                f"its log {self.log_path(service.name)} ends with:\n{self._tail(service.name)}"
            )
            raise FreshetError(
                f"{service.name} died {MAX_FAILURES} times within a minute, the last time {how}",
                hint=log_end,
            )
        wait_s = min(FIRST_BACKOFF_S * 2 ** len(recent_s), MAX_BACKOFF_S)
        service.next_start_s = now_s + wait_s
        service.process = None
        self._say(f"{service.name} died ({how}); it starts again in {wait_s:.1f} s")

    def _restart_when_due(self, service: Service) -> None:
        if service.process is None and self._now_s() >= service.next_start_s:
            service.restarts += 1
            self._spawn(service)

    def _tail(self, name: str) -> str:
        lines = self.log_path(name).read_text("utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])


def _how(status: int) -> str:
    """Exit status in words.

    >>> _how(-9), _how(1)
    ('SIGKILL', 'exit status 1')
    """
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
