"""The loop while a segment is served differently: what goes out, what waits, what a next worker
finds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.online.adjust.decision import Decisions, encoded
from freshet.online.worker import shard
from freshet.online.worker.shard import OwnedShards
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.schemas import (
    AdjustmentDecision,
    Adjustments,
    Forecast,
    Score,
    SegmentAdjustment,
)
from freshet.stream.units import HOUR_MS
from tests.online.worker.turns import (
    CUTOFF_MS,
    HOURS,
    SETTINGS,
    FakeMembership,
    Turns,
    owned_of,
    reader_of,
)
from tests.online.worker.windows import FIRST, UNITS

TOPICS = SETTINGS.kafka.topics
ONSET_MS = CUTOFF_MS - 10 * HOUR_MS
ITEMS = ["a|n", "young|n"]


def decision(
    as_of_ms: int = CUTOFF_MS - HOUR_MS, *, hidden: bool = True, items: list[str] = ITEMS
) -> AdjustmentDecision:
    """Of the segment of items without a category."""
    one = SegmentAdjustment(segment="-", how="hidden", begins_at_ms=ONSET_MS, sample=items)
    return AdjustmentDecision(
        resolution_ms=HOUR_MS,
        as_of_ms=as_of_ms,
        weights_version="v3",
        segments=[one] if hidden else [],
    )


def decided(*made: AdjustmentDecision) -> Decisions:
    decisions = Decisions()
    for one in made:
        key, value = encoded(one)
        decisions.take(key.encode(), value)
    return decisions


HIDDEN = Adjustments(begins_at_ms=ONSET_MS, decision_sha256=encoded(decision())[0])


def turns_of(monkeypatch: pytest.MonkeyPatch, *made: AdjustmentDecision) -> Turns:
    return Turns(monkeypatch, owned_of(reader_of(), decisions=decided(*(made or (decision(),)))))


def shadow_of(turns: Turns) -> list[Forecast]:
    sent = turns.commits.sent
    return [decode(Forecast, value) for name, _, value in sent if name == TOPICS.shadow]


def test_what_is_served_differently_goes_out_with_what_would_be_without_in_one_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    (lot,) = turns.commits.lots
    shadows = [place for place in lot if place[0] == TOPICS.shadow]
    assert shadows == [(TOPICS.shadow, "a|n"), (TOPICS.shadow, "young|n")]
    served, besides = turns.forecasts(), shadow_of(turns)
    assert [one.adjustments for one in served] == [HIDDEN, HIDDEN]
    assert [one.adjustments for one in besides] == [Adjustments(), Adjustments()]
    for one, other in zip(served, besides, strict=True):
        assert one.item_id == other.item_id and one.cutoff_ms == other.cutoff_ms == CUTOFF_MS
        assert one.forecast_id != other.forecast_id
        assert one.status == other.status, "what an item is does not hang on what is hidden of it"
    # Of `a|n` something was hidden; `young|n` had sold nothing before.
    alike = [
        one.context_sha256 == other.context_sha256
        for one, other in zip(served, besides, strict=True)
    ]
    assert alike == [False, True]
    assert turns.measured("adjusted_segments", how="hidden") == 1
    assert turns.measured("shadow_forecasts_total") == 2


def test_besides_only_the_sample_is_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch, decision(items=["young|n", "elsewhere|n"]))
    turns.turn()
    assert [one.item_id for one in shadow_of(turns)] == ["young|n"]
    assert all(one.adjustments.begins_at_ms == ONSET_MS for one in turns.forecasts())


def test_a_commit_that_was_refused_leaves_nothing_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.commits.before = lambda _: False
    turns.turn()
    assert turns.main.pending.cutoffs == turns.main.shadow.cutoffs == []


@pytest.mark.parametrize(
    "made",
    [
        # The alarm is over.
        [decision(CUTOFF_MS - 2 * HOUR_MS), decision(hidden=False)],
        # What is decided at a cutoff holds for the next one, for every worker alike.
        [decision(CUTOFF_MS)],
        [],
    ],
)
def test_without_an_earlier_decision_nothing_is_served_differently_or_forecast_twice(
    monkeypatch: pytest.MonkeyPatch, made: list[AdjustmentDecision]
) -> None:
    turns = Turns(monkeypatch, owned_of(reader_of(), decisions=decided(*made)))
    turns.turn()
    assert shadow_of(turns) == [] and turns.main.shadow.cutoffs == []
    assert [one.adjustments for one in turns.forecasts()] == [Adjustments()] * 2
    assert turns.measured("adjusted_segments", how="hidden") == 0


def test_adjustments_can_be_turned_off_and_are_of_the_main_resolution_alone() -> None:
    def adjusting(settings: Settings) -> list[int]:
        made = {one.resolution_ms: reader_of() for one in settings.served}
        owned = owned_of(made, settings=settings)
        return [one.resolution_ms for one in owned.served if one.adjusted is not None]

    assert adjusting(Settings()) == [HOUR_MS]
    assert adjusting(Settings.model_validate({"worker": {"adjust": False}})) == []


def scored(turns: Turns) -> list[Score]:
    """The hour after the round becomes final."""
    reader: Any = turns.main.reader
    reader.add("a|n", FIRST + HOURS, UNITS, 5_000)
    reader.reached = reader.clicked = FIRST + HOURS + 3
    reader.head = FIRST + HOURS + 3
    turns.turn(later_s=9.0)
    return [one for one in turns.scores() if one.bucket_start_ms == CUTOFF_MS]


def test_a_final_bucket_scores_both_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    served = {one.item_id: one.forecast_id for one in turns.forecasts()}
    besides = {one.item_id: one.forecast_id for one in shadow_of(turns)}
    found = {one.item_id: one for one in scored(turns)}
    assert set(found) == {"a|n", "young|n"}
    for item_id, one in found.items():
        assert [(step.forecast_id, step.adjusted) for step in one.steps] == [
            (served[item_id], True)
        ]
        assert [step.forecast_id for step in one.unadjusted] == [besides[item_id]]
    assert not turns.main.shadow.due(CUTOFF_MS), "scored once"


def recovered(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> OwnedShards:
    """What a next worker reads of the topics."""
    sent = turns.commits.sent + turns.delivery.sent

    class FakeTail(list[tuple[int, bytes]]):
        cut: frozenset[int] = frozenset()

        def __init__(self, _: Settings, topic: str) -> None:
            super().__init__((0, value) for name, _, value in sent if name == topic)

    monkeypatch.setattr(shard, "Tail", FakeTail)
    owned = owned_of(reader_of())
    membership: Any = FakeMembership()
    owned.recover(SETTINGS, membership)
    return owned


def test_a_next_worker_scores_what_waits_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    owned = recovered(monkeypatch, turns)
    for one in (owned.main, turns.main):
        (waits,) = one.shadow.due(CUTOFF_MS)
        (serves,) = one.pending.due(CUTOFF_MS)
        assert waits.forecast_ids == [made.forecast_id for made in shadow_of(turns)]
        assert serves.adjusted_I is not None and serves.adjusted_I.tolist() == [True, True]
        assert waits.adjusted_I is not None and not np.any(waits.adjusted_I)


def test_what_was_scored_without_adjustments_is_not_scored_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    assert len(scored(turns)) == 2
    owned = recovered(monkeypatch, turns)
    assert owned.main.shadow.due(CUTOFF_MS) == owned.main.pending.due(CUTOFF_MS) == []
