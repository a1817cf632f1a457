"""Back to what served before: the nearest ancestor of a version that is whole."""

from __future__ import annotations

from freshet.online.weights.manifest import number_of
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


def serve_parent_of(registry: Registry, version: str) -> str:
    """Serve the nearest ancestor that is whole, at last the shipped weights; returns its name.

    Raises:
        RegistryError: There is no such version.
    """
    target = registry.manifest(version).parent
    while target != BASE:
        try:
            return registry.serve(target)
        except RegistryError as error:
            log.error("parent_not_served", version=target, reason=str(error))
            target = _parent_of(registry, target)
    return registry.serve(BASE)


def _parent_of(registry: Registry, version: str) -> str:
    try:
        parent = registry.manifest(version).parent
    except RegistryError:
        return BASE
    # A manifest that was made by hand could name itself, or a later one.
    older = parent != BASE and number_of(parent) < number_of(version)
    return parent if older else BASE
