"""Which one-line faults in critical modules do the tests notice? Cosmic Ray makes them.

`bench/mutants.toml` lists the modules, the tests that must notice, and survivors that change
nothing, each with a reason. Each fault is written into a copy of the tree, and the tests of its
module run there in a fork of a process that has the large libraries loaded already.

Run: python -m bench.mutants [--mutants N] [--only PART_OF_A_PATH ...] [--seed S]
        [--minutes M]
Writes bench/results/mutants.json; exit status 1 where too few were noticed. What was tried before
of the same module and tests is in build/mutants.jsonl and is not tried again: remove it after
changes elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

from bench.faults import ROOT, Mutant, mutated_code, sample
from bench.report import write_result

LIST = ROOT / "bench" / "mutants.toml"
FOLDERS = ("freshet", "stream", "model", "online", "dashboard", "tests", "bench", "docs")
# What tests import that takes long: loaded once, before the forks.
PRELOAD = (
    *("pytest", "hypothesis", "numpy", "torch", "pyarrow", "pandas", "scipy.special", "redis"),
    *("transformers.configuration_utils", "huggingface_hub", "structlog", "pydantic"),
    "torch._dynamo",
)
FLOOR_OVER_ALL = 0.90
FLOOR_OF_A_MODULE = 0.85
TIMEOUT_FACTOR = 4.0  # a fault that makes its tests so much slower has been noticed
TIMEOUT_ROOM_S = 20.0


class Tried:
    """What was found before of the same fault, module and tests; a run may be cut into parts."""

    def __init__(self, tests_of: dict[str, list[str]]) -> None:
        self._tests_of = tests_of
        self._file = ROOT / "build" / "mutants.jsonl"
        lines = self._file.read_text("utf-8").splitlines() if self._file.exists() else []
        self._outcomes: dict[str, str] = dict(json.loads(line) for line in lines)

    def outcome(self, mutant: Mutant) -> str | None:
        return self._outcomes.get(self._key(mutant))

    def note(self, mutant: Mutant, outcome: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([self._key(mutant), outcome]) + "\n")

    def _key(self, mutant: Mutant) -> str:
        digest = hashlib.sha256(f"{mutant.operator} {mutant.occurrence}".encode())
        for path in (mutant.path, *self._tests_of[mutant.path]):
            for file in sorted((ROOT / path).rglob("*.py")) or [ROOT / path]:
                digest.update(file.read_bytes())
        return digest.hexdigest()


# One copy of the tree ----------------------------------------------------------------------------


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of what tests need, where faults do no harm."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in FOLDERS:
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        for name in ("pyproject.toml", "Makefile", "setup.py", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        subprocess.run(["make", "-s", "links"], cwd=copy, check=True)
        yield copy


def run_tests(copy: Path, tests: Sequence[str], timeout_s: float) -> str:
    """ "passed", "failed" or "timeout", of these tests in a fork of this process."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _become_pytest(copy, tests)
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _become_pytest(copy: Path, tests: Sequence[str]) -> None:
    """Run tests in a copy and end the process; never returns."""
    status = 1
    try:
        os.chdir(copy)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        links = str(copy / "build" / "links")
        sys.path[:0] = [links, str(copy)]
        os.environ["PYTHONPATH"] = os.pathsep.join([links, str(copy)])
        os.environ["PYTHONSAFEPATH"] = "1"
        for name in [name for name in sys.modules if name.split(".")[0] in ("freshet", "bench")]:
            del sys.modules[name]
        _find_no_smaller_examples()
        pytest = importlib.import_module("pytest")
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
        # Some of PRELOAD bring pytest plugins with them.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        # Nobody reads the traceback, and drawing it takes a second.
        options += ["--tb=no"]
        status = int(pytest.main([*options, *tests]))
    finally:
        os._exit(status)


def _find_no_smaller_examples() -> None:
    """That a property fails is enough; looking for its smallest example takes most of the time."""
    from hypothesis import Phase, settings

    phases = [Phase.explicit, Phase.generate, Phase.target]
    settings.register_profile("faults", phases=phases, database=None)
    settings.load_profile("faults")


def work(
    tasks: Queue[Any], answers: Queue[Any], tests_of: dict[str, list[str]], end_s: float
) -> None:
    """Try faults until none or no time is left; times the tests of a module without one first."""
    from cosmic_ray.plugins import get_operator

    for name in PRELOAD:
        importlib.import_module(name)
    # pytest collects garbage twice, a second each with all that the libraries made.
    gc.freeze()
    usual_s: dict[str, float] = {}
    with copied_tree() as copy:
        while (mutant := tasks.get()) is not None:
            if time.monotonic() > end_s:
                answers.put((mutant, "left"))
                continue
            tests = tests_of[mutant.path]
            target = copy / mutant.path
            code = target.read_text("utf-8")
            if mutant.path not in usual_s:
                started_s = time.monotonic()
                if run_tests(copy, tests, timeout_s=600.0) != "passed":
                    answers.put((mutant, "broken"))
                    continue
                usual_s[mutant.path] = time.monotonic() - started_s
            mutated = mutated_code(
                code, get_operator(f"core/{mutant.operator}")(), mutant.occurrence
            )
            assert mutated is not None
            try:
                target.write_text(mutated, "utf-8")
                limit_s = TIMEOUT_FACTOR * usual_s[mutant.path] + TIMEOUT_ROOM_S
                answers.put((mutant, run_tests(copy, tests, limit_s)))
            finally:
                target.write_text(code, "utf-8")


# The whole ----------------------------------------------------------------------------------------


def try_all(
    chosen: list[Mutant], tests_of: dict[str, list[str]], processes: int, end_s: float
) -> Iterator[tuple[Mutant, str]]:
    """Each fault and what its tests said, as they come."""
    tasks: Queue[Any] = Queue()
    answers: Queue[Any] = Queue()
    # Faults of one module follow each other, so that a worker times few modules.
    for mutant in sorted(chosen, key=lambda mutant: mutant.path):
        tasks.put(mutant)
    workers = [
        Process(target=work, args=(tasks, answers, tests_of, end_s)) for _ in range(processes)
    ]
    for worker in workers:
        tasks.put(None)
        worker.start()
    for _ in chosen:
        yield answers.get()
    for worker in workers:
        worker.join()


def equivalent(mutant: Mutant, known: Sequence[dict[str, str]]) -> str | None:
    """Why a fault changes nothing that anybody could see, if somebody found out."""
    for entry in known:
        place = (entry["path"], entry["before"], entry["after"])
        if place == (mutant.path, mutant.before, mutant.after):
            return entry["reason"]
    return None


def summary(noticed: int, tried: int) -> dict[str, Any]:
    return {"tried": tried, "noticed": noticed, "share": round(noticed / max(tried, 1), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=420)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seed", type=int, help="another draw than that of the list")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="what is left then is said")
    asked = parser.parse_args()
    started_s = time.monotonic()
    end_s = started_s + 60.0 * asked.minutes
    plan = tomllib.loads(LIST.read_text("utf-8"))
    modules = plan["module"]
    tests_of = {module["path"]: module["tests"] for module in modules}
    seed = plan["seed"] if asked.seed is None else asked.seed
    chosen = sample(modules, asked.mutants, seed, asked.only)
    before = Tried(tests_of)
    known = [(mutant, before.outcome(mutant)) for mutant in chosen]
    left = [mutant for mutant, outcome in known if outcome is None]
    print(f"{len(chosen)} faults, {len(left)} of them not tried before", flush=True)
    tried: dict[str, list[bool]] = defaultdict(list)
    survivors = []
    excused = []
    not_tried: dict[str, Counter[str]] = {"left": Counter(), "broken": Counter()}
    found = [(mutant, outcome) for mutant, outcome in known if outcome is not None]
    for mutant, outcome in itertools.chain(found, try_all(left, tests_of, asked.processes, end_s)):
        if outcome in ("left", "broken"):
            not_tried[outcome][mutant.path] += 1
            continue
        if mutant in left:
            before.note(mutant, outcome)
        reason = equivalent(mutant, plan.get("equivalent", [])) if outcome == "passed" else None
        if reason is not None:
            excused.append({**asdict(mutant), "reason": reason})
            continue
        tried[mutant.path].append(outcome != "passed")
        if outcome == "passed":
            survivors.append(asdict(mutant))
            print(f"{mutant.path}:{mutant.line}  {mutant.before}  ->  {mutant.after}", flush=True)
    by_module = {path: summary(sum(seen), len(seen)) for path, seen in sorted(tried.items())}
    over_all = summary(sum(map(sum, tried.values())), sum(map(len, tried.values())))
    numbers = {
        "seed": seed,
        "took_s": round(time.monotonic() - started_s),
        "over_all": over_all,
        "by_module": by_module,
        "survivors": survivors,
        "equivalent": excused,
        "not_tried": not_tried,
    }
    if not asked.only:
        write_result("mutants", numbers, ["cosmic-ray", "pytest", "hypothesis"])
    print(json.dumps({"over_all": over_all, "by_module": by_module}, indent=2))
    print(f"no time was left for: {dict(not_tried['left'])}")
    print(f"tests that fail without any fault: {dict(not_tried['broken'])}")
    weak = [path for path, found in by_module.items() if found["share"] < FLOOR_OF_A_MODULE]
    enough = not weak and not any(not_tried.values()) and over_all["share"] >= FLOOR_OVER_ALL
    sys.exit(0 if enough else 1)


if __name__ == "__main__":
    main()
