"""A seed and a scenario in, records in the order they arrive out: equal seeds, equal bytes."""

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
