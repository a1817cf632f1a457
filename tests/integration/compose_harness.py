"""`docker compose` without Docker: its processes on this machine, as the compose file says.

Each has exactly the environment, command, entry point, health command and mounts of its service.
Of a container remains what would differ: a port of a service becomes a free one of this machine, a
service's name 127.0.0.1, and a path that is mounted or may be written lies in a folder of its own.
The folder goes with `down`, volumes stay. Read-only containers are so where we may mount, as root
may; limits and users are not imposed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from freshet.stream.child import Child, free_port
from tests.compose import ROOT, Service, image_environ, load, services
from tests.integration.kafka_image import start_kafka

HEALTHY_WITHIN_S = 300.0
HEALTH_TIMEOUT_S = 120.0
LOOK_S = 0.2
KAFKA_IN_IMAGE = "/opt/kafka"
_ADDRESS = re.compile(r"(?P<host>[\w.-]*):(?P<port>\d{4,5})\b")
LOCK = "mount -o remount,bind,ro /"
OUTSIDE = ("PATH", "PYTHONPATH", "PYTHONSAFEPATH", "JAVA_HOME", "OMP_NUM_THREADS")
_OWN_HOSTS = ("", "localhost", "127.0.0.1", "0.0.0.0")


class Compose:
    """The services of compose files, up and down.

    Args:
        files: As given to `docker compose -f`.
        folder: For volumes, containers and logs.
        kafka_home: An unpacked Kafka, in place of the image's.
        environ: What fills the files' variables.
    """

    def __init__(
        self, *files: str, folder: Path, kafka_home: Path, environ: Mapping[str, str]
    ) -> None:
        self.services = services(load(*files, environ=environ))
        self._folder = folder
        self._kafka_home = kafka_home
        self._ports: dict[tuple[str, str], int] = {}
        self._running: dict[str, Child] = {}

    def port(self, service: str, port: str) -> int:
        """The port of this machine where that of a service is."""
        return self._ports.setdefault((service, port), free_port())

    def up(self, *names: str) -> None:
        """Start services and what they need, in order; wait as `depends_on` says."""
        for name in names:
            if name in self._running:
                continue
            service = self.services[name]
            for need, condition in service.needs.items():
                self.up(need)
                if condition == "service_healthy":
                    self.wait_healthy(need)
                elif condition == "service_completed_successfully":
                    code = self._running[need].process.wait(HEALTHY_WITHIN_S)
                    assert code == 0, self.log(need)
            self._running[name] = self._start(service)

    def wait_healthy(self, name: str) -> None:
        """Until its health command ends with 0; never where it has ended."""
        service = self.services[name]
        assert service.health is not None, f"{name} has no healthcheck"
        command = self._words(service, service.health)
        end_s = time.monotonic() + HEALTHY_WITHIN_S
        while self._call(service, command, HEALTH_TIMEOUT_S).returncode:
            assert self._running[name].alive, self.log(name)
            assert time.monotonic() < end_s, self.log(name)
            time.sleep(LOOK_S)

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm`: another command in a container of a service."""
        service = self.services[name]
        words = self._words(service, (*_entry_point(service), *command))
        return self._call(service, words, HEALTHY_WITHIN_S)

    def ended(self) -> list[str]:
        """Services that have ended though they are meant to run; Docker would start them again."""
        once = {
            need
            for service in self.services.values()
            for need, condition in service.needs.items()
            if condition == "service_completed_successfully"
        }
        ended = [name for name, child in self._running.items() if not child.alive]
        return [name for name in ended if name not in once]

    def log(self, name: str) -> str:
        """The newest lines that a service printed."""
        path = self._folder / f"{name}.log"
        kafka = self._container(self.services[name]) / "kafka.log"
        found = [one.read_text("utf-8", "replace") for one in (path, kafka) if one.exists()]
        return f"{name}:\n" + "\n".join("".join(found).splitlines()[-30:])

    def down(self) -> None:
        """Stop all, the newest first, and throw the containers away."""
        for child in reversed(self._running.values()):
            child.stop()
        self._running.clear()
        shutil.rmtree(self._folder / "containers", ignore_errors=True)

    # How one runs ----------------------------------------------------------------------------

    def _start(self, service: Service) -> Child:
        container = self._container(service)
        self._mount(service, container)
        environ = self._environ(service)
        if service.image.startswith("apache/kafka"):
            # Where Kafka keeps its log if it is not told, which is in the container.
            environ.setdefault("KAFKA_LOG_DIRS", str(container / "tmp/kafka-logs"))
            return start_kafka(self._kafka_home, container, environ)
        words = self._words(service, (*_entry_point(service), *service.command))
        command = ["env", "-i", *(f"{name}={value}" for name, value in environ.items()), *words]
        at = f"cd '{container}{service.working_dir}' && exec \"$@\""
        command = ["sh", "-c", at, "sh", *command]
        if service.read_only and _may_mount():
            command = self._read_only(container, command)
        return Child(command, log_file=self._folder / f"{service.name}.log")

    def _read_only(self, container: Path, command: list[str]) -> list[str]:
        """The same with nothing to write to but its volumes and /tmp."""
        kept = (self._folder / "volumes", container / "tmp")
        binds = [f"mount --bind '{path}' '{path}'" for path in kept if path.exists()]
        script = " && ".join(["mount --make-rprivate /", *binds, LOCK, 'exec "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]

    def _call(
        self, service: Service, words: list[str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        container = self._container(service)
        self._mount(service, container)
        return subprocess.run(
            words,
            env=self._environ(service),
            cwd=f"{container}{service.working_dir}",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _environ(self, service: Service) -> dict[str, str]:
        """The container's variables, and what this machine needs to find the programs."""
        image = image_environ() if service.image == "freshet" else {}
        outside = {name: os.environ[name] for name in OUTSIDE if name in os.environ}
        inside = {**image, **service.environ}
        told = {name: self._here(service, text) for name, text in inside.items()}
        return outside | told | {"TMPDIR": str(self._container(service) / "tmp")}

    def _words(self, service: Service, words: tuple[str, ...]) -> list[str]:
        first, *rest = (self._here(service, word) for word in words)
        return [sys.executable if first == "python" else first, *rest]

    # What differs from a container -----------------------------------------------------------

    def _container(self, service: Service) -> Path:
        return self._folder / "containers" / service.name

    def _mount(self, service: Service, container: Path) -> None:
        for path in ("/tmp", service.working_dir, *service.tmpfs):
            Path(f"{container}{path}").mkdir(parents=True, exist_ok=True)
        for mount in service.mounts:
            source = (ROOT / mount.source).resolve()
            if mount.is_volume:
                source = self._folder / "volumes" / mount.source
                source.mkdir(parents=True, exist_ok=True)
            assert source.exists(), f"Docker would make an empty folder of {source}"
            target = Path(f"{container}{mount.target}")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not target.is_symlink():
                target.rmdir()
            if not target.is_symlink():
                target.symlink_to(source)

    def _here(self, service: Service, text: str) -> str:
        """A text of the compose file as it must read on this machine."""
        if text.isdigit() and len(text) >= 4:
            return str(self.port(service.name, text))
        text = _ADDRESS.sub(lambda found: self._address(service, found), text)
        text = text.replace(KAFKA_IN_IMAGE, str(self._kafka_home))
        inside = (*service.tmpfs, *(mount.target for mount in service.mounts))
        for path in inside:
            text = re.sub(rf"(?<![\w/.]){path}(?=/|$)", f"{self._container(service)}{path}", text)
        return text

    def _address(self, service: Service, found: re.Match[str]) -> str:
        host, port = found["host"], found["port"]
        if host in self.services:
            return f"127.0.0.1:{self.port(host, port)}"
        if host in _OWN_HOSTS:
            return f"{host}:{self.port(service.name, port)}"
        return found[0]


@cache
def _may_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", f"mount --make-rprivate / && {LOCK}"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _entry_point(service: Service) -> tuple[str, ...]:
    if service.image == "freshet":
        return ("python", "-m", "freshet")
    return ()
