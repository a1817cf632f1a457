"""A seeded shop that makes freshet's events: the same seed gives the same bytes."""

from __future__ import annotations

from freshet.stream.source.simulator.faults import Faults
from freshet.stream.source.simulator.plan import PlantedDrift, Scenario, find_scenario
from freshet.stream.source.simulator.shop import DEFAULT_ITEMS, DEFAULT_START_MS, SimulatedShop

__all__ = [
    "DEFAULT_ITEMS",
    "DEFAULT_START_MS",
    "Faults",
    "PlantedDrift",
    "Scenario",
    "SimulatedShop",
    "find_scenario",
]
