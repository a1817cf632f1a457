"""Workers as processes on a shop that moves on, and what a foreign client finds of their forecasts.

Hours pass when the test says so, and three of them are a bucket of the other resolution. A
transaction holds few forecasts, so that a round has several.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from freshet.stream.config import load
from freshet.stream.failpoints import VARIABLE
from freshet.stream.kafka import ensure_topics
from freshet.stream.units import HOUR_MS
from tests.integration.forecast_record import Account, ForeignReader, account
from tests.integration.test_worker import Shop, environ_for, save_random_weights

SESSION_S = 6
PORTION = 5
ITEMS = 40
TIMEOUT_S = 240.0
STEPS_MS = (HOUR_MS, 3 * HOUR_MS)
RUN = """
from freshet.online.worker import loop
from freshet.online.worker.process import run
from freshet.stream.config import load
loop.PORTION = {portion}
run(load().settings)
"""
# A round of many micro-batches takes seconds.
SLOW = (
    """
import time
from freshet.online.worker import whose
forecast_items = whose.forecast_items
def slowly(*some, **more):
    time.sleep(0.2)
    return forecast_items(*some, **more)
whose.forecast_items = slowly
"""
    + RUN
)
# As slow; everything is imported, and nothing connected, until it is woken.
POISED = "import os, signal\n" + SLOW.replace("run(", "os.kill(os.getpid(), signal.SIGSTOP)\nrun(")
ONE_RESOLUTION = ("PREDICTION_LENGTH", "SCORE_STEPS", "SEASON_LENGTH")


def _resolution(resolution_ms: int) -> dict[str, object]:
    lengths = {"prediction_length": 8, "season_length": 8, "context_length": 64}
    return {"resolution_ms": resolution_ms, "score_steps": [1, 3], **lengths}


class WorkerProcess:
    """One worker; what it says goes to a file."""

    def __init__(self, environ: dict[str, str], log_file: Path, code: str) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
                stdout=log,
                stderr=log,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def asleep(self) -> bool:
        """Whether it was stopped by a signal."""
        state = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8")
        return state.rpartition(")")[2].split()[0] == "T"

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def said(self, text: str) -> int:
        return self.log_file.read_text("utf-8", "replace").count(text)


class WorkerPair:
    """A shop, its workers, and a foreign reader of what they publish.

    Args:
        bootstrap_servers: A real Kafka.
        redis_url: An empty Redis.
        folder: Where weights and logs lie.
        name: Of this world alone.
        items: Of the shop.
        portion: Forecasts of one transaction.
        **over: Environment of every worker.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        redis_url: str,
        folder: Path,
        name: str,
        *,
        items: int = ITEMS,
        portion: int = PORTION,
        **over: str,
    ) -> None:
        environ = environ_for(bootstrap_servers, redis_url, folder, name)
        for field in ONE_RESOLUTION:
            del environ[f"FRESHET_WORKER__{field}"]
        widths = [{"resolution_ms": ms, "buckets": 200} for ms in STEPS_MS]
        self.environ = {
            **environ,
            "FRESHET_KAFKA__SESSION_TIMEOUT_MS": str(1_000 * SESSION_S),
            "FRESHET_WINDOWS__RESOLUTIONS": json.dumps(widths),
            "FRESHET_WORKER__RESOLUTIONS": json.dumps([_resolution(ms) for ms in STEPS_MS]),
            **over,
        }
        self.folder, self.portion = folder, portion
        self.settings = load(environ=self.environ).settings
        save_random_weights(Path(self.settings.worker.weights), seed=0)
        ensure_topics(self.settings, live=True)
        self.shop = Shop(self.settings, items=items)
        self.shop.sell(48)
        topics = self.settings.kafka.topics
        assert topics.forecasts_latest
        self.reader = ForeignReader(
            bootstrap_servers, topics.forecasts, topics.forecasts_latest, topics.rounds
        )
        self.workers: list[WorkerProcess] = []

    @property
    def num_shards(self) -> int:
        return self.settings.kafka.partitions

    def start(self, failpoint: str = "", code: str = RUN, **over: str) -> WorkerProcess:
        """One more worker."""
        environ = {**self.environ, VARIABLE: failpoint, **over}
        log_file = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(WorkerProcess(environ, log_file, code.format(portion=self.portion)))
        return self.workers[-1]

    # What comes about -----------------------------------------------------------------------------

    def wait(self, so: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> float:
        """Read on until it is so; how long that took."""
        began_s = time.monotonic()
        while not so():
            assert time.monotonic() < began_s + timeout_s, f"not within {timeout_s} s: {what}"
            self.reader.read(0.1)
        return time.monotonic() - began_s

    def all_complete(self) -> bool:
        """Whether all shards are complete at the newest cutoffs."""
        newest_ms = self.shop.now_ms
        return all(
            len(self.reader.complete(newest_ms // step_ms * step_ms, step_ms)) == self.num_shards
            for step_ms in STEPS_MS
        )

    def wait_complete(self) -> float:
        """Until all shards are complete at the newest cutoffs; how long that took."""
        return self.wait(self.all_complete, f"all shards complete at {self.shop.now_ms}")

    def sell_until(self, so: Callable[[], bool]) -> None:
        """Hour after hour until it is so, which may be in the middle of a round."""
        while not so():
            self.shop.sell(1)
            self.wait(lambda: so() or self.all_complete(), "another round")

    def wait_shared(self) -> None:
        """Until each of two workers has shards of its own, and forecasts of all are out."""
        self.wait(lambda: all(one.said("shards_changed") for one in self.workers), "both joined")
        self.wait_complete()
        self.sell_and_wait()

    def sell_and_wait(self) -> float:
        """Another hour, and its forecasts; how long those took."""
        self.shop.sell(1)
        return self.wait_complete()

    def account(self) -> Account:
        """What the topics hold now."""
        self.reader.read_to_end()
        return account(self.reader, self.num_shards)

    def close(self) -> None:
        for one in self.workers:
            one.kill()
        self.reader.close()
