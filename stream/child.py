"""Programs that run beside us and end when we do.

Every child dies with the thread that started it (PR_SET_PDEATHSIG), even when that is killed: start
them from a thread that lives as long as they are needed, such as the main one.

`python -m freshet.stream.child PARENT COMMAND...` becomes another program after it has tied itself
to its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from freshet.stream.process import BackOff, wait_until

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 20.0
LOOK_S = 0.05


class Child:
    """A program that runs beside us and ends when we do.

    Args:
        command: What to run.
        log_file: Where its output goes; None drops it.
        environ: Added to our own environment.
        pipe_output: Give its standard output to `process.stdout` instead.
        share_output: Let it write where we write.
        given: Bytes for its standard input, fewer than a pipe holds (64 KB).
    """

    def __init__(
        self,
        command: list[str],
        *,
        log_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        pipe_output: bool = False,
        share_output: bool = False,
        given: bytes | None = None,
    ) -> None:
        tied = [sys.executable, "-m", "freshet.stream.child", str(os.getpid()), *command]
        env = {**os.environ, **(environ or {})}
        log: IO[bytes] | None = log_file.open("ab") if log_file else None
        elsewhere = None if share_output else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                tied,
                env=env,
                stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                stdout=subprocess.PIPE if pipe_output else (log or elsewhere),
                stderr=log or elsewhere,
                start_new_session=True,
            )
        finally:
            if log:
                log.close()
        if self.process.stdin and given is not None:
            with suppress(BrokenPipeError), self.process.stdin as pipe:
                pipe.write(given)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it became ready before it died or the time was up."""
        look = BackOff(LOOK_S, LOOK_S)
        return wait_until(lambda: not self.alive or ready(), timeout_s, look) and self.alive

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end, wait, and kill it if it does not; a second call does nothing."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# In the child -------------------------------------------------------------------------------------


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Linux only.

    What was asked of the kernel outlives `exec`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    _, parent, *program = sys.argv
    die_with_parent(int(parent))
    os.execvp(program[0], program)
