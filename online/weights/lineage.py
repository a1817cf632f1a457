"""Back to what served before: the parent of the last version, or the nearest ancestor."""

from __future__ import annotations

from typing import NamedTuple

from freshet.online.weights.assignment import Assignment
from freshet.online.weights.manifest import number_of
from freshet.online.weights.registry import BASE, PREVIOUS, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


class RolledBack(NamedTuple):
    """Which version was taken back, which one serves in its place, and who serves whom now."""

    version: str
    parent: str
    serving: Assignment


def roll_back(registry: Registry) -> RolledBack:
    """Serve the parent of the version that was promoted last in its place.

    Where it was added beside one that had served everybody, that one does again.

    Raises:
        RegistryError: The base serves everybody already, or the parent cannot be served.
    """
    champion, before = registry.champion(), registry.alias(PREVIOUS)
    version = champion.last(before or Assignment())
    if version == BASE:
        raise RegistryError("there is nothing to roll back to: the shipped weights are served")
    added = version == champion.other and before == Assignment(champion.default)
    parent = champion.default if added else registry.manifest(version).parent
    return RolledBack(version, parent, registry.serve(champion.replaced(version, parent)))


def parent_of(registry: Registry, version: str) -> str:
    """The nearest ancestor that is whole, at last the shipped weights.

    Raises:
        RegistryError: There is no such version.
    """
    target = registry.manifest(version).parent
    while target != BASE:
        try:
            registry.verify(target)
        except RegistryError as error:
            log.error("parent_not_served", version=target, reason=str(error))
            target = _parent_of(registry, target)
        else:
            return target
    return BASE


def _parent_of(registry: Registry, version: str) -> str:
    try:
        parent = registry.manifest(version).parent
    except RegistryError:
        return BASE
    # A manifest that was made by hand could name itself, or a later one.
    older = parent != BASE and number_of(parent) < number_of(version)
    return parent if older else BASE
