"""`freshet doctor`: the stream's checks, and those of weights and device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from freshet.online.weights.registry import BASE, open_registry
from freshet.stream.config import Settings
from freshet.stream.ops.doctor import Check, Probe, run_checks

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings."""

    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """True when freshet can run; warnings are allowed."""
        return all(check.state != "fail" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}

    def as_text(self) -> str:
        return "\n".join(_line(check) for check in self.checks)


def _line(check: Check) -> str:
    hint = f"; {check.hint}" if check.hint else ""
    return f"{MARKS[check.state]}  {check.name}: {check.message}{hint}"


def examine(settings: Settings) -> Examination:
    """Look at broker, topics, Redis, clock, windows, weights and device."""
    ours: list[tuple[str, Probe]] = [
        ("weights", lambda: _weights(settings)),
        ("device", lambda: _device(settings)),
    ]
    return Examination(run_checks(settings, ours))


def _weights(settings: Settings) -> Iterator[Check]:
    from freshet.model.weights import BASE_WEIGHTS, verify_weights

    registry = open_registry(settings.learn)
    for flaw in registry.survey()[1]:
        hint = "`freshet model verify` checks every file"
        yield Check("registry", "warn", f"{flaw.name} is passed over: {flaw.reason}", hint=hint)
    champion = registry.champion()
    folder = BASE_WEIGHTS
    if champion != BASE:
        registry.verify(champion)
        folder = registry.path(champion)
    verified = verify_weights(folder)
    told = f"{champion} ({verified.sha256[:12]}) computes what it did when it was saved"
    yield Check("weights", "ok", told)


def _device(settings: Settings) -> Iterator[Check]:
    from freshet.model.forecaster import BatchForecaster

    forecaster = BatchForecaster.from_pretrained(
        device=settings.worker.device, dtype=settings.worker.dtype
    )
    yield Check(
        "device",
        "ok",
        f"forecasts on {forecaster.device} in {str(forecaster.dtype).removeprefix('torch.')}",
    )
