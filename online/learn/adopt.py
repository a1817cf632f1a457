"""`freshet model add`: weights that were trained elsewhere go through the gate like learn's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from freshet.model.devices import pick_device
from freshet.model.weights import verify_weights
from freshet.online.effects.table import EffectsTable
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.trials.contest import Contest, Terms, chosen_items, measured, whole_days
from freshet.online.trials.evaluation import served_by
from freshet.online.trials.guard import Guard, open_guards, try_guards
from freshet.online.trials.history import open_history
from freshet.online.trials.pools import History, build_pools, split_history
from freshet.online.trials.shadow import Shadow
from freshet.online.weights.registry import CHALLENGER, open_registry
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.clock import latest_ms
from freshet.stream.config import LearnSettings, Settings
from freshet.stream.kafka import TableReader
from freshet.stream.read.shop import ShopFeed
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.units import DAY_MS


@dataclass(frozen=True, slots=True)
class Adopted:
    """What the gate said of a folder of weights.

    Attributes:
        version: The version it became; empty where the gate said no.
        parent: The champion that it was held against.
        reason: The conditions that failed; empty where all hold.
        gate: Every condition.
    """

    version: str
    parent: str
    reason: str
    gate: dict[str, float | str | bool]

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)

    def as_text(self) -> str:
        """All of it in words."""
        if not self.version:
            return f"not added, {self.parent} stays: {self.reason}"
        gain = f"{float(self.gate['gain']):.1%} better than {self.parent} on the hold-out"
        return f"{self.version} is the challenger, {gain}; `freshet model promote` lets it serve"


def adopt(settings: Settings, folder: Path) -> Adopted:
    """Judge weights on the shop's newest final buckets, and register them where they pass.

    They serve when a person promotes them. The gate cannot know what they were trained on: it is
    fair only where that ends before the hold-out, the newest `learn.holdout_buckets` buckets, made
    up to whole days.

    Raises:
        BrokerError, StoreError: Kafka or Redis is away.
        InvalidInputError: There are too few final buckets.
        WeightsError: The folder holds no weights that can be proven.
    """
    client = connect(settings.redis)
    clock = open_clock(client)
    shop = ShopTables.of(settings, latest_ms=lambda: latest_ms(clock))
    ShopFeed(client, settings, shop).read_to_end()
    effects = EffectsTable(settings.calendar.country or None)
    with TableReader(settings, [settings.kafka.topics.effects]) as reader:
        for record in reader.read_to_end():
            effects.take(record.key, record.value)
    history = open_history(settings, client, shop, effects)
    history.refresh()
    networks = VersionedNetworks(open_registry(settings.learn), settings.learn.device)
    found = judged(
        folder,
        history,
        networks,
        settings.learn,
        open_guards(settings, client, shop, effects, history),
    )
    if found.reason:
        return found
    manifest = networks.adopt(
        folder,
        parent=found.parent,
        created_at_ms=clock.now_ms(),
        report=found.gate,
        offsets=history.offsets(),
    )
    networks.registry.move_alias(CHALLENGER, manifest.version)
    return Adopted(manifest.version, found.parent, "", found.gate)


def judged(
    folder: Path,
    history: History,
    networks: VersionedNetworks,
    settings: LearnSettings,
    guards: Iterable[Guard] = (),
) -> Adopted:
    """The gate's verdict on a folder of weights against the champion."""
    challenger = verify_weights(folder).network
    torch.nn.Module.to(challenger, pick_device(networks.device))
    serving = networks.registry.champion()
    parent = serving.default
    champion = networks.load(parent)
    served = served_by(serving, parent)
    # A person waits: one look, and so at whole days.
    days = whole_days(history.grid, settings.holdout_buckets)
    holdout_buckets = days * max(1, DAY_MS // history.grid.resolution_ms)
    settings = settings.model_copy(update={"holdout_buckets": holdout_buckets})
    split = split_history(history, settings, onset_ms=None)
    pools = build_pools(history, split, (), settings.seed)
    terms = Terms(
        request_id="",
        parent=parent,
        beside=serving.other,
        segments=(),
        onset_ms=None,
        start_ms=split.holdout_start_ms,
        first_days=days,
        num_looks=1,
        error=1.0 - settings.gate_confidence,
        item_ids=chosen_items(history, (), settings.seed, served),
        standing=measured(
            champion,
            challenger,
            # Where it comes from, it need not descend from the shipped weights.
            base=champion,
            anchors=pools.anchors,
            pool=pools.validation,
            guards=try_guards(guards, champion, challenger, seed=settings.seed),
        ),
    )
    shadow = Shadow(history, terms.item_ids, champion, challenger, served=served)
    verdict = Contest(terms, shadow, settings.gate_margin).proceed()
    assert verdict is not None, "the hold-out is final"
    return Adopted("", parent, verdict.reason, verdict.report())
