"""How two versions differ: where they come from, what the gate said, and how far weights moved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.weights import verify_weights
from freshet.online.weights.registry import BASE, Manifest, Registry, open_registry
from freshet.online.weights.versions import named
from freshet.stream.config import Settings
from freshet.stream.errors import WeightsError

MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions, first and second.

    Attributes:
        facts: What their manifests say differently, both sides.
        distance: How far the weights moved: the length of the difference over that of the first.
        moved: The parameters that moved furthest in that sense, each with its distance.
    """

    first: str
    second: str
    facts: dict[str, tuple[Any, Any]]
    distance: float
    moved: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        lines = [f"{name}: {one} | {other}" for name, (one, other) in self.facts.items()]
        lines.append(f"weights moved by {self.distance:.3%}; furthest:")
        lines += [f"  {name}  {distance:.3%}" for name, distance in self.moved.items()]
        return "\n".join(lines)


def difference(settings: Settings, first: str, second: str) -> Difference:
    """How two versions (or aliases) differ.

    Raises:
        RegistryError, WeightsError: There is no such version, or it is not what it was.
    """
    registry = open_registry(settings.learn)
    first, second = named(registry, first), named(registry, second)
    one, other = _facts(registry, first), _facts(registry, second)
    names = [name for name in one | other if one.get(name) != other.get(name)]
    distance, moved = _moved(_weights(registry, first), _weights(registry, second))
    return Difference(
        first=first,
        second=second,
        facts={name: (one.get(name), other.get(name)) for name in names},
        distance=distance,
        moved=moved,
    )


def _facts(registry: Registry, version: str) -> dict[str, Any]:
    if version == BASE:
        return {"version": BASE}
    manifest: Manifest = registry.verify(version)
    gate = {f"gate.{name}": value for name, value in manifest.gate.items()}
    return {
        "version": manifest.version,
        "parent": manifest.parent,
        "created_at_ms": manifest.created_at_ms,
        "request_id": manifest.request_id,
        **gate,
    }


def _weights(registry: Registry, version: str) -> dict[str, Tensor]:
    folder = BASE_WEIGHTS if version == BASE else registry.path(version)
    return dict(verify_weights(folder).network.state_dict())


def _moved(first: dict[str, Tensor], second: dict[str, Tensor]) -> tuple[float, dict[str, float]]:
    shapes = {name: tuple(value.shape) for name, value in first.items()}
    if shapes != {name: tuple(value.shape) for name, value in second.items()}:
        raise WeightsError("the two networks differ in shape, so their weights cannot be compared")
    length, way = 0.0, 0.0
    moved = {}
    for name, value in first.items():
        own = float(value.double().square().sum())
        change = float((second[name].double() - value.double()).square().sum())
        length += own
        way += change
        if change:
            moved[name] = (change / own) ** 0.5 if own else float("inf")
    furthest = sorted(moved.items(), key=lambda entry: -entry[1])[:MOST_SHOWN]
    return (way / length) ** 0.5 if length else 0.0, dict(furthest)
