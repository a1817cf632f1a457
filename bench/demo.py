"""Run whole demos; write down their summaries, the length of the back-fill, and their memory.

`python -m bench.demo --scenario drift --seeds 1 2 3 --seconds 150` adds up every process of each
demo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.report import write_result

PACKAGES = ("torch", "numpy", "confluent-kafka", "redis", "river", "faust-streaming")
SAMPLE_S = 1.0


def memory_mib(process: psutil.Process) -> float:
    """Proportional memory of a process and its children, so that shared pages count once."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, AttributeError):
            continue
    return total / 2**20


def run(scenario: str, seed: int, seconds: int) -> dict[str, Any]:
    """One headless demo: its summary without the long lists, and what was seen from outside."""
    with tempfile.TemporaryDirectory() as folder:
        summary, log = Path(folder, "summary.json"), Path(folder, "log")
        options = (
            f"--headless --scenario {scenario} --seed {seed} --seconds {seconds} "
            f"--summary {summary}"
        )
        with log.open("w") as output:
            child = psutil.Popen(
                [sys.executable, "-m", "freshet", "demo", *options.split()], stdout=output
            )
        most_mib = 0.0
        while child.poll() is None:
            most_mib = max(most_mib, memory_mib(child))
            time.sleep(SAMPLE_S)
        found: dict[str, Any] = json.loads(summary.read_text())
        folded = re.search(r"history is folded after (\d+) s", log.read_text())
    found["drift"] = {
        "alerts": [f"{alert['segment']} {alert['kind']}" for alert in found["drift"]["alerts"]]
    }
    seen = {
        "exit_status": child.returncode,
        "back_fill_s": int(folded[1]) if folded else None,
        "most_mib": most_mib,
    }
    return {"scenario": scenario, "seed": seed, "seconds": seconds, **seen, **found}


def main() -> None:
    """Run the demos asked for, one after another; write `bench/results/demo_<scenario>.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="drift", choices=("calm", "flash_sale", "drift"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=int, default=150)
    arguments = parser.parse_args()
    runs = []
    for seed in arguments.seeds:
        runs.append(run(arguments.scenario, seed, arguments.seconds))
        print(json.dumps(runs[-1]), flush=True)
    write_result(f"demo_{arguments.scenario}", {"runs": runs}, PACKAGES)


if __name__ == "__main__":
    main()
