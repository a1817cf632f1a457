"""What a verdict on weights says: promote, reject or not yet, and all that led there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Report = dict[str, float | str | bool]
"""What a verdict rests on, flat, as model events and manifests carry it."""
Decision = Literal["promote", "reject", "not yet"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured, what it was held against, whether it holds, and what that rests on.

    Attributes:
        hopeless: It does not hold, and no later day will change that.
        of_segments: It speaks of segments that another version may serve.
    """

    name: str
    value: float
    threshold: float
    ok: bool
    facts: Report = field(default_factory=dict)
    hopeless: bool = False
    of_segments: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """The gain that decides: of which row, its interval, and what that rests on."""

    row: int
    name: str
    gain: float
    low: float
    high: float
    num_items: int
    days: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promote, reject or wait, and every condition that led there.

    Attributes:
        segments: For which it passes, beside the champion; none: in the champion's place.
    """

    decision: Decision
    conditions: tuple[Condition, ...]
    gain: Shown
    segments: tuple[str, ...] = ()

    @property
    def promote(self) -> bool:
        """The challenger passes."""
        return self.decision == "promote"

    @property
    def reason(self) -> str:
        """The conditions that failed, in words; empty for a promotion."""
        failed = [condition for condition in self.conditions if not condition.ok]
        return "; ".join(f"{x.name} {x.value:.4g} against {x.threshold:.4g}" for x in failed)

    def report(self) -> Report:
        """The verdict flat."""
        gain = self.gain
        for_some: Report = {"for": ", ".join(self.segments)} if self.segments else {}
        return {
            "verdict": self.decision,
            **for_some,
            **flat_report(self.conditions),
            "gain": _plain(gain.gain),
            "gain_high": _plain(gain.high),
            "gain_of": gain.name,
            "days": gain.days,
        }


def flat_report(conditions: Iterable[Condition]) -> Report:
    """Conditions flat."""
    flat: Report = {}
    for condition in conditions:
        flat[condition.name] = condition.value
        flat[f"{condition.name}.threshold"] = condition.threshold
        flat[f"{condition.name}.ok"] = condition.ok
        flat |= {f"{condition.name}.{fact}": x for fact, x in condition.facts.items()}
    return {name: _plain(value) for name, value in flat.items()}


def _plain(value: float | str | bool) -> float | str | bool:
    """JSON has no infinities; six digits are enough for a report."""
    if isinstance(value, bool | str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
