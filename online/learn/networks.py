"""Versions of weights as networks: loaded to train from, written when the gate says yes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from freshet.model.checkpoint import BASE_WEIGHTS, CARD_FILE, CONFIG_FILE, GOLDEN_FILE, WEIGHTS_FILE
from freshet.model.devices import pick_device
from freshet.model.network import FreshetNetwork
from freshet.model.weights import save_weights, verify_weights
from freshet.online.judge.verdict import Report, Verdict
from freshet.online.learn.finetune import Challenger
from freshet.online.trials.contest import Terms
from freshet.online.trials.pools import Pools
from freshet.online.weights.registry import BASE, Manifest, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.schemas import RetrainRequest

TERMS_FILE = "trial.json"
CARD = """---
library_name: transformers
pipeline_tag: time-series-forecasting
---

# freshet weights fine-tuned from {parent}

Asked for by `{request_id}` ({reason}; segments: {segments}).
{steps} steps, then {factor:g} of the way from the parent to the tuned weights, \
chosen on validation windows, and {kept:g} of the way from the shipped weights to that.

## Gate

| line | value |
|---|---|
{rows}
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A challenger that passed or is on trial, and all that its version keeps of how it came about.

    Attributes:
        terms: Of the trial that goes on; None where it is over.
        segments: For which it passed, beside its parent; none: in its place.
    """

    request: RetrainRequest
    parent: str
    challenger: Challenger
    report: Report
    offsets: dict[str, int]
    terms: Terms | None = None
    segments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionedNetworks:
    """The registry's versions as networks.

    Args:
        registry: Where versions are kept.
        device: Where networks are to be; "auto" is a GPU if there is one.
        base: Folder of the shipped weights.
        stopped: Called before every pass of a network that was loaded, and of its copies; raises
            when the process is to end.
    """

    registry: Registry
    device: str = "auto"
    base: Path = BASE_WEIGHTS
    stopped: Callable[[], None] = lambda: None

    def load(self, version: str) -> FreshetNetwork:
        """The network of a version.

        Raises:
            RegistryError: There is no such version, or a file of it was altered.
            WeightsError: It does not compute what it did when it was saved.
        """
        if version == BASE:
            folder = self.base
        else:
            self.registry.verify(version)
            folder = self.registry.path(version)
        network = verify_weights(folder).network
        torch.nn.Module.to(network, pick_device(self.device))
        network.register_forward_pre_hook(lambda *_: self.stopped())
        return network

    def register(self, candidate: Candidate, created_at_ms: int) -> Manifest:
        """Make a version of the candidate, with its card and its verdict."""

        def build(folder: Path) -> None:
            save_weights(candidate.challenger.network.cpu(), folder, card=_card(candidate))
            _write_verdict(folder, candidate.report)
            if candidate.terms is not None:
                (folder / TERMS_FILE).write_bytes(msgspec.json.encode(candidate.terms))

        return self.registry.add(
            build,
            parent=candidate.parent,
            created_at_ms=created_at_ms,
            request_id=candidate.request.request_id,
            offsets=candidate.offsets,
            gate=candidate.report,
            segments=candidate.segments,
        )

    def terms(self, version: str) -> Terms | None:
        """What was declared of a version's trial; None where it has passed the gate.

        Raises:
            RegistryError: There is no such version, or its terms cannot be read.
        """
        path = self.registry.path(version) / TERMS_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Terms) if path.exists() else None
        except (OSError, msgspec.MsgspecError) as error:
            raise RegistryError(f"{path} cannot be read: {error}") from None

    def adopt(
        self,
        folder: Path,
        *,
        parent: str,
        created_at_ms: int,
        report: Report,
        offsets: dict[str, int],
    ) -> Manifest:
        """Make a version of weights that were trained elsewhere, with its verdict."""

        def build(building: Path) -> None:
            for name in (WEIGHTS_FILE, CONFIG_FILE, GOLDEN_FILE, CARD_FILE):
                shutil.copyfile(folder / name, building / name)
            _write_verdict(building, report)

        return self.registry.add(
            build, parent=parent, created_at_ms=created_at_ms, offsets=offsets, gate=report
        )


def report_of(
    verdict: Verdict | None, challenger: Challenger, pools: Pools, *, total_s: float
) -> Report:
    """What the gate saw and how the challenger came about, for events, manifest and card."""
    return {
        **({"verdict": "not yet"} if verdict is None else verdict.report()),
        "factor": challenger.factor,
        "kept": challenger.kept,
        "tune_s": round(challenger.seconds, 3),
        "total_s": round(total_s, 3),
        "windows": float(pools.num_training_windows),
    }


def _write_verdict(folder: Path, report: Report) -> None:
    (folder / "gate.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _card(candidate: Candidate) -> str:
    """The model card of a fine-tuned version."""
    request, challenger = candidate.request, candidate.challenger
    return CARD.format(
        parent=candidate.parent,
        request_id=request.request_id,
        reason=request.reason,
        segments=", ".join(request.segments) or "all",
        steps=len(challenger.train_losses),
        factor=challenger.factor,
        kept=challenger.kept,
        rows="\n".join(f"| {name} | {value} |" for name, value in candidate.report.items()),
    )
