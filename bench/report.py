"""Write one result file: the numbers of a run, the machine it ran on, and the versions it ran
with.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "load_before": os.getloadavg()[0],
    }


def write_result(name: str, numbers: dict[str, Any], packages: Iterable[str]) -> Path:
    """Write `bench/results/<name>.json` and return its path.

    Args:
        name: The script's name.
        numbers: What was measured; baselines and ratios of the same run belong in here.
        packages: Distribution names whose versions matter.
    """
    versions = {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    result = {
        "name": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    # JSON has no NaN: a number that is none would make the file unreadable elsewhere.
    told = json.dumps({**result, "versions": versions, **numbers}, indent=2, allow_nan=False)
    path.write_text(told + "\n", "utf-8")
    return path
