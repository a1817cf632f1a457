"""What a person does with weights versions: list, show, promote, roll back."""

from __future__ import annotations

from typing import Any

import msgspec

from freshet.online.weights.registry import ALIASES, BASE, CHAMPION, Registry
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher
from freshet.stream.schemas import ModelEvent, ModelEventKind
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect


def versions(settings: Settings) -> list[dict[str, Any]]:
    """The shipped weights, then all versions, oldest first, with the aliases of each."""
    registry = Registry(settings.learn.registry)
    pointed = {alias: registry.alias(alias) for alias in ALIASES} | {CHAMPION: registry.champion()}
    names = [BASE, *(manifest.version for manifest in registry.list())]
    return [
        {"version": name, "aliases": [alias for alias in ALIASES if pointed[alias] == name]}
        for name in names
    ]


def show(settings: Settings, version: str) -> dict[str, Any]:
    """The manifest of a version or alias, after its files were checked.

    Raises:
        RegistryError: There is no such version, or a file was altered.
    """
    registry = Registry(settings.learn.registry)
    name = (registry.alias(version) or BASE) if version in ALIASES else version
    return {"version": BASE} if name == BASE else dict(msgspec.to_builtins(registry.verify(name)))


def promote(settings: Settings, version: str) -> str:
    """Make a version, or `base`, the champion past the gate, and tell the workers.

    Returns what to print.
    """
    registry = Registry(settings.learn.registry)
    before = registry.champion()
    place = _location(registry, version)
    registry.serve(version)
    _announce(settings, "promoted", version, place, parent=before)
    return f"{version} is the champion, {before} was"


def rollback(settings: Settings) -> str:
    """Make the champion's parent the champion again and tell the workers; returns what to print."""
    registry = Registry(settings.learn.registry)
    before = registry.champion()
    parent = BASE if before == BASE else registry.manifest(before).parent
    # Looked at before the alias moves: workers refuse altered files.
    place = _location(registry, parent)
    version = registry.roll_back()
    _announce(settings, "rolled_back", version, place, parent=before)
    return f"{version} is the champion again, {before} was"


def _location(registry: Registry, version: str) -> tuple[str, str]:
    """Checksum and folder of a version whose files were checked; empty for the shipped weights."""
    if version == BASE:
        return "", ""
    sha256 = registry.verify(version).weights_sha256
    return sha256, str(registry.path(version).resolve())


def _announce(
    settings: Settings, kind: ModelEventKind, version: str, place: tuple[str, str], *, parent: str
) -> None:
    sha256, uri = place
    event = ModelEvent(
        kind=kind,
        version=version,
        at_ms=open_clock(connect(settings.redis)).now_ms(),
        sha256=sha256,
        uri=uri,
        parent=parent,
        reason="by hand",
    )
    with Publisher(settings) as publisher:
        topic = settings.kafka.topics.models
        publisher.produce(topic, encode(event), key=f"{kind}:{version}")
        publisher.flush()
