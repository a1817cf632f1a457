"""Kafka from KAFKA_HOME, configured as the official image is: by KAFKA_* variables alone.

The image's own program, which is part of Kafka, turns them into properties and formats the log.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from freshet.stream.child import Child

SETUP_TIMEOUT_S = 240.0
CLUSTER_ID = "5L6g3nShT-eMCtK--X86sw"
"""What the image uses where no other is given."""


def start_kafka(home: Path, folder: Path, environ: Mapping[str, str]) -> Child:
    """A broker that goes on with the log at KAFKA_LOG_DIRS; it may not answer yet.

    Args:
        home: An unpacked Kafka.
        folder: For what the container itself would hold; it is begun anew with each.
        environ: The container's variables.
    """
    configs = {name: folder / name for name in ("defaults", "mounted", "final")}
    for path in configs.values():
        path.mkdir(parents=True, exist_ok=True)
    (configs["final"] / "server.properties").write_text("", "utf-8")
    container = {"CLUSTER_ID": CLUSTER_ID, **_outside(), **environ}
    container |= {"LOG_DIR": str(folder), "KAFKA_HEAP_OPTS": "-Xms128M -Xmx512M"}
    _set_up(home, configs, container)
    command = [str(home / "bin/kafka-server-start.sh"), str(configs["final"] / "server.properties")]
    clean = ["env", "-i", *(f"{name}={value}" for name, value in container.items())]
    return Child([*clean, *command], log_file=folder / "kafka.log")


def _outside() -> dict[str, str]:
    """What Java needs of this machine; nothing else reaches the container."""
    return {name: os.environ[name] for name in ("PATH", "JAVA_HOME") if name in os.environ}


def _set_up(home: Path, configs: Mapping[str, Path], environ: Mapping[str, str]) -> None:
    command = [str(home / "bin/kafka-run-class.sh"), "kafka.docker.KafkaDockerWrapper", "setup"]
    for name, kind in (("defaults", "default"), ("mounted", "mounted"), ("final", "final")):
        command += [f"--{kind}-configs-dir", str(configs[name])]
    done = subprocess.run(
        command,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=SETUP_TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    # The image's script goes on, too, where its program finds the log of the last container.
    assert done.returncode == 0 or "already formatted" in said, said
