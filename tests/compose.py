"""A compose file as its specification reads it: variables filled in, short forms spelled out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_ENV_LINE = re.compile(r"^ENV (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume, or a file or folder of the host, and where the container sees it."""

    source: str
    target: str
    read_only: bool

    @property
    def is_volume(self) -> bool:
        return not self.source.startswith((".", "/"))


@dataclass(frozen=True, slots=True)
class Service:
    """What one container runs, and with what.

    `needs` maps each service that must come first to how far it must be; `health` is None where
    nothing is asked.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    mounts: tuple[Mount, ...]
    tmpfs: tuple[str, ...]
    working_dir: str
    health: tuple[str, ...] | None
    needs: Mapping[str, str]
    published: tuple[str, ...]
    read_only: bool


def load(*names: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One file, or several of which the later ones add to the services of the first."""
    merged: dict[str, Any] = {}
    for name in names:
        text = _VARIABLE.sub(
            lambda found: (environ or {}).get(found[1], found[2] or ""),
            (ROOT / name).read_text("utf-8"),
        )
        merged = _merged(merged, yaml.safe_load(text))
    return merged


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    both = {name: _merged(base[name], over[name]) for name in base.keys() & over.keys()}
    return {**base, **over, **both}


def services(loaded: Mapping[str, Any]) -> dict[str, Service]:
    """All of them, by name."""
    return {name: _service(name, raw) for name, raw in loaded["services"].items()}


def _service(name: str, raw: Mapping[str, Any]) -> Service:
    needs = raw.get("depends_on", {})
    if isinstance(needs, list):
        needs = {need: {"condition": "service_started"} for need in needs}
    return Service(
        name=name,
        image=raw["image"],
        command=tuple(raw.get("command", ())),
        environ=raw.get("environment", {}),
        mounts=tuple(_mount(text) for text in raw.get("volumes", ())),
        tmpfs=tuple(raw.get("tmpfs", ())),
        working_dir=raw.get("working_dir", "/"),
        health=_health(raw.get("healthcheck", {})),
        needs={need: how["condition"] for need, how in needs.items()},
        published=tuple(raw.get("ports", ())),
        read_only=raw.get("read_only", False),
    )


def _mount(text: str) -> Mount:
    source, target, *how = text.split(":")
    return Mount(source, target, how == ["ro"])


def _health(raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    if raw.get("disable") or "test" not in raw:
        return None
    kind, *words = raw["test"]
    return tuple(words) if kind == "CMD" else ("sh", "-c", *words)


def image_environ() -> dict[str, str]:
    """What the Dockerfile sets for every process, besides where programs are."""
    text = (ROOT / "deploy/Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    words = [word for line in _ENV_LINE.findall(text) for word in line.split()]
    pairs = dict(word.split("=", 1) for word in words)
    del pairs["PATH"]
    return pairs
