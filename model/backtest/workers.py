"""The work of a comparison: a model fits and forecasts windows, in this process or in several.

A process gets the panel once and cuts its own windows; a failure becomes part of the answer.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal, NamedTuple

import numpy as np

from freshet.model.baselines import Model
from freshet.model.predict.cluster import Cluster
from freshet.model.tables.panel import Panel, Rolling, Window
from freshet.stream.arrays import Floats
from freshet.stream.cores import usable_threads
from freshet.stream.errors import FreshetError

FineTune = Literal["none", "once", "each"]
Make = Callable[[str, FineTune], Model]


@dataclass(frozen=True, slots=True)
class WindowForecast:
    """What one model gave for one window, [N, H, Q], or why it gave nothing."""

    model: str
    index: int
    quantiles_NHQ: Floats | None
    fit_s: float = 0.0
    predict_s: float = 0.0
    error: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """What every task shares."""

    panel: Panel
    rolling: Rolling
    levels: tuple[float, ...]
    fine_tune: FineTune
    make: Make


class Task(NamedTuple):
    """One model and the windows that it forecasts one after the other.

    Attributes:
        model: its name.
        indices: of the windows.
        fit_at: the window at which it learns first; None where it does not.
    """

    model: str
    indices: tuple[int, ...]
    fit_at: int | None


def plan(job: Job, models: tuple[str, ...], done: set[tuple[str, int]]) -> list[Task]:
    """Tasks for all windows that are not done: one a window, or one a model that shares a fit.

    Raises:
        FreshetError: a model's name or weights are wrong. Other failures are left to the task,
            which reports them.
    """
    tasks: list[Task] = []
    for name in models:
        left = tuple(index for index in range(job.rolling.num_windows) if (name, index) not in done)
        learns = bool(left) and _learns(job, name)
        if learns and job.fine_tune != "each":
            tasks.append(Task(name, left, fit_at=0))
        else:
            tasks += [Task(name, (index,), fit_at=index if learns else None) for index in left]
    return tasks


def _learns(job: Job, name: str) -> bool:
    try:
        return job.make(name, job.fine_tune).needs_fit
    except FreshetError:
        raise
    except Exception:
        return False


def forecasts(
    job: Job, tasks: list[Task], jobs: int, cluster: Cluster | None = None
) -> Iterator[WindowForecast]:
    """The answers to all tasks, as they come; from a cluster all at once."""
    if cluster is not None:
        for answers in cluster.map(partial(_all_answers, job), tasks):
            yield from answers
    elif jobs == 1 or len(tasks) == 1:
        for task in tasks:
            yield from _answers(job, task)
    else:
        yield from _in_processes(job, tasks, min(jobs, len(tasks)))


def _in_processes(job: Job, tasks: list[Task], jobs: int) -> Iterator[WindowForecast]:
    with _threads_shared_by(jobs):
        # Forked processes would hang in the thread pools that torch and lightgbm had begun.
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (job,))
        try:
            pending = {pool.submit(_in_worker, task): task for task in tasks}
            for future in as_completed(pending):
                try:
                    yield from future.result()
                except BrokenExecutor:
                    error = "its process died, perhaps for lack of memory; try fewer --jobs"
                    yield from (
                        WindowForecast(pending[future].model, index, None, error=error)
                        for index in pending[future].indices
                    )
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _threads_shared_by(jobs: int) -> Iterator[None]:
    """Processes started meanwhile share the cores, unless the caller has chosen their threads."""
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(max(usable_threads() // jobs, 1))
    try:
        yield
    finally:
        del os.environ[name]


_job: Job | None = None


def _begin(job: Job) -> None:
    global _job
    _job = job


def _in_worker(task: Task) -> list[WindowForecast]:
    assert _job is not None, "the pool's initializer runs before any task"
    return _all_answers(_job, task)


def _all_answers(job: Job, task: Task) -> list[WindowForecast]:
    return list(_answers(job, task))


def _answers(job: Job, task: Task) -> Iterator[WindowForecast]:
    """The forecasts of a task; an error ends it for one window, or for all without a model."""
    try:
        started = time.perf_counter()
        model = _fitted(job, task)
        fit_s = time.perf_counter() - started
    except Exception as error:
        yield from (_failure(task.model, index, error) for index in task.indices)
        return
    for index in task.indices:
        try:
            window = job.rolling.window(job.panel, index)
            started = time.perf_counter()
            quantiles_NHQ = _checked(model.predict(window, job.levels), window, job.levels)
            predict_s = time.perf_counter() - started
            yield WindowForecast(task.model, index, quantiles_NHQ, fit_s, predict_s)
            # The first window has told it.
            fit_s = 0.0
        except Exception as error:
            yield _failure(task.model, index, error)


def _fitted(job: Job, task: Task) -> Model:
    model = job.make(task.model, job.fine_tune)
    if task.fit_at is not None:
        model.fit(job.rolling.window(job.panel, task.fit_at))
    return model


def _failure(model: str, index: int, error: Exception) -> WindowForecast:
    lines = str(error).strip().splitlines() or ["no message"]
    text = f"{type(error).__name__}: {lines[0]}"
    return WindowForecast(model, index, None, error=text, trace=traceback.format_exc())


def _checked(quantiles_NHQ: Floats, window: Window, levels: tuple[float, ...]) -> Floats:
    """The quantiles, if finite and as many as asked for: scores pass over missing ones silently."""
    expected = (len(window), window.horizon, len(levels))
    found = np.asarray(quantiles_NHQ, np.float64)
    if found.shape != expected:
        raise ValueError(f"it gave quantiles of shape {found.shape}, expected {expected}")
    wrong_N = ~np.isfinite(found).all((1, 2))
    if wrong_N.any():
        first = window.item_ids[int(np.argmax(wrong_N))]
        raise ValueError(
            f"its forecasts of {int(wrong_N.sum())} series are not finite, first {first!r}"
        )
    return found
