"""What belongs to a worker's shards, and what it learns from the topics when it takes them over."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
import torch

from freshet.online.adjust.decision import Decisions
from freshet.online.worker import shard
from freshet.online.worker.marks import LAST, Mark, Marks
from freshet.online.worker.served import SPARE_BUCKETS
from freshet.online.worker.shard import take_over
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import Delta
from freshet.stream.schemas import CatalogEntry, Score, ScoredStep
from freshet.stream.units import HOUR_MS
from tests.online.worker.records import records
from tests.online.worker.turns import FakeMembership, LiveReader, left_at, owned_of, reader_of
from tests.online.worker.windows import FIRST, FakeReader, tell

SETTINGS = Settings.model_validate(
    {
        "worker": {
            "context_length": 30,
            "prediction_length": 4,
            "score_steps": [0, 1, 4, 5],
            "season_length": 12,
            "max_pending_cutoffs": 3,
        },
        "redis": {"generation": 6},
        "drift": {"segment_by": "region"},
        "windows": {"allowed_lateness_ms": 7 * HOUR_MS},
    }
)
TOPICS = SETTINGS.kafka.topics
HEAD_MS = (FIRST + 30) * HOUR_MS


def score(item_id: str, forecast_id: str, hour: int) -> Score:
    step = ScoredStep(
        forecast_id=forecast_id,
        weights_version="v1",
        step=1,
        pinball=0.0,
        seasonal_naive_pinball=None,
        pit=0.5,
        residual=0.0,
        covered_80=True,
    )
    return Score(
        item_id=item_id,
        segment="-",
        resolution_ms=HOUR_MS,
        bucket_start_ms=(FIRST + hour) * HOUR_MS,
        scored_at_ms=0,
        actual=1.0,
        steps=[step],
    )


class Topics:
    """What each topic holds, read from its end; a topic that is missing cannot be read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: list[Any]) -> None:
        of = {getattr(TOPICS, name): held for name, held in values.items()}

        class FakeTail(list[tuple[int, bytes]]):
            cut: frozenset[int] = frozenset()

            def __init__(self, settings: Settings, topic: str) -> None:
                if topic not in of:
                    raise BrokerError(f"{topic} cannot be read")
                super().__init__((0, encode(record)) for record in of[topic])

        monkeypatch.setattr(shard, "Tail", FakeTail)


def test_shards_are_taken_over_with_windows_to_spare_and_all_that_the_topics_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [
        msgspec.structs.replace(record, cutoff_ms=HEAD_MS - 4 * HOUR_MS)
        for record in records(["a|n", "young|n", "x|n"])
    ]
    Topics(
        monkeypatch,
        forecasts=made,
        shadow=[],
        scores=[score("a|n", made[0].forecast_id, 26), score("x|n", made[2].forecast_id, 26)],
    )
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    reader = reader_of()

    def refresh(_: LiveReader) -> Delta:
        delta = FakeReader.refresh(reader)
        return Delta(delta.changed_rows, delta.changed_buckets_ms, ["a|n", "young|n"], True, ())

    monkeypatch.setattr(LiveReader, "refresh", refresh)

    def open_reader(*args: Any, **named: Any) -> LiveReader:
        asked.append((args, named))
        return reader

    monkeypatch.setattr(shard, "WindowReader", open_reader)
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new"))
    tell(shop, "catalog", CatalogEntry(sku="x"))
    membership: Any = FakeMembership(version=9)
    client: Any = "redis"
    decisions = Decisions()
    owned = take_over(
        SETTINGS,
        client,
        shop,
        membership,
        device=torch.device("cpu"),
        now_ms=77,
        decisions=decisions,
    )
    (((given, generation, resolution_ms, num_buckets), named),) = asked
    assert (given, generation, resolution_ms) == ("redis", 6, HOUR_MS)
    assert num_buckets == 30 + 4 + SPARE_BUCKETS == 106
    assert named == {"owns": membership.owns, "rules": ReadRules.of(SETTINGS, HOUR_MS)}
    assert owned.membership_version == 9 and owned.main.reader is reader and owned.shop is shop
    # Of the last round nothing is repeated; what nobody has forecast yet is.
    assert left_at(owned, HEAD_MS - 4 * HOUR_MS) == {"new|n"}, "x belongs to others"
    pending = owned.main.pending
    assert pending.score_steps == (1, 4), "0 is no step, 5 lies beyond the horizon"
    assert [(due.step, due.item_ids) for due in pending.due(HEAD_MS - 4 * HOUR_MS)] == [
        (1, ["young|n"])
    ]
    assert owned.main.adjusted is not None and owned.main.adjusted.decisions is decisions


@pytest.mark.parametrize("missing", ["forecasts", "shadow", "scores"])
def test_shards_are_not_taken_over_while_a_topic_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    held: dict[str, list[Any]] = {"forecasts": [], "shadow": [], "scores": []}
    del held[missing]
    Topics(monkeypatch, **held)
    owned = owned_of(reader_of())
    with pytest.raises(BrokerError, match="cannot be read"):
        owned.recover(SETTINGS, cast("Any", FakeMembership()))


def test_how_far_shards_are_say_the_groups_offsets_and_not_the_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (made,) = records(["a|n"])
    cutoffs_ms = [HEAD_MS - hours * HOUR_MS for hours in (2, 5, 3)]
    replaced = [
        msgspec.structs.replace(made, cutoff_ms=cutoff_ms, forecast_id=str(cutoff_ms))
        for cutoff_ms in cutoffs_ms
    ]
    Topics(monkeypatch, forecasts=replaced, shadow=[], scores=[])
    said = {0: {HOUR_MS: Mark(HEAD_MS - 4 * HOUR_MS, LAST, 2, 2), 60_000: Mark(60_000, 7, 1, 3)}}
    owned = owned_of(reader_of())
    owned.recover(SETTINGS, cast("Any", FakeMembership(said=said)))
    assert owned.marks == said
    assert owned.main.pending.cutoffs == sorted(cutoffs_ms)
    # A round moves the mark of its own width and keeps the others.
    mark = Mark(HEAD_MS, LAST, 2, 2)
    moved = owned.marks_with(owned.main, {0: mark})
    assert moved == {0: {HOUR_MS: mark, 60_000: Mark(60_000, 7, 1, 3)}}
    assert owned.marks == said, "nothing has moved yet"


def test_how_far_shards_are_is_asked_before_the_topics_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits until what the last owner began is over, so that its end is read too."""
    order: list[str] = []

    class Group(FakeMembership):
        def marks(self) -> dict[int, Marks]:
            order.append("marks")
            return super().marks()

    class FakeTail(list[tuple[int, bytes]]):
        cut: frozenset[int] = frozenset()

        def __init__(self, settings: Settings, topic: str) -> None:
            order.append(topic)

    monkeypatch.setattr(shard, "Tail", FakeTail)
    owned_of(reader_of()).recover(SETTINGS, cast("Any", Group()))
    assert order == ["marks", TOPICS.forecasts, TOPICS.shadow, TOPICS.scores]


def test_the_parts_of_shards_are_made_by_the_workers_settings() -> None:
    owned = owned_of(reader_of(), ShopTables(), SETTINGS)
    (main,) = owned.served
    assert owned.main is main
    assert (main.contexts.context_length, main.contexts.prediction_length) == (30, 4)
    assert main.sums.steps == [1, 2, 3, 4]
    assert main.pending.max_cutoffs == 3 and main.pending.resolution_ms == HOUR_MS
    assert (main.scorer.contexts, main.scorer.pending) == (main.contexts, main.pending)
    assert main.scorer._segments(["a|north", "b|south"]) == ["north", "south"]
    assert main.scorer._season_length == 12
    assert owned.marks == {0: {}} and owned.marks_of(main) == {0: None}


@pytest.mark.parametrize(("launched", "named"), [(33, ["new|n"]), (34, [])])
def test_cold_items_are_those_on_sale_before_the_horizon_ends(
    launched: int, named: list[str]
) -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new", launched_at=(FIRST + launched) * HOUR_MS))
    owned = owned_of(reader_of(), shop, SETTINGS)
    assert left_at(owned, HEAD_MS) == {"a|n", "young|n", *named}


def test_no_forecast_is_dropped_before_its_last_scored_step_is_final() -> None:
    """Minutes wait for an hour, and then for what may still come late."""
    settings = Settings()
    slack_ms = settings.windows.out_of_order_ms + settings.windows.allowed_lateness_ms
    for served in settings.served:
        late = -(-slack_ms // served.resolution_ms)
        waiting = max(served.score_steps) + late + 1
        assert waiting <= settings.worker.max_pending_cutoffs, served.resolution_ms
