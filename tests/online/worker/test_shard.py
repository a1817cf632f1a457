"""What belongs to a worker's shards, and what it learns from the topics when it takes them over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.worker import shard
from freshet.online.worker.shard import SPARE_BUCKETS, take_over
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import Delta
from freshet.stream.schemas import CatalogEntry, DriftAlert, Score, ScoredStep
from freshet.stream.units import HOUR_MS
from tests.online.worker.records import records
from tests.online.worker.turns import LiveReader, owned_of, reader_of
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


def alert(alert_id: str, state: str, at_ms: int, segment: str = "n") -> DriftAlert:
    fields = {"kind": "level", "detector": "cusum", "onset_ms": 5, "size": 1.0}
    texts = {"weights_version": "v1", "description": "", "action": "", "segment": segment}
    made = {"alert_id": alert_id, "state": state, "detected_at_ms": at_ms, **fields, **texts}
    return msgspec.convert(made, DriftAlert)


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
        scores=[score("a|n", made[0].forecast_id, 26), score("x|n", made[2].forecast_id, 26)],
        drift=[alert("held", "drift", 5), alert("over", "stable", 6, "s")],
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

    watched: list[tuple[int, list[str], int]] = []
    monkeypatch.setattr(shard, "WindowReader", open_reader)
    monkeypatch.setattr(
        shard.Scorer,
        "watch",
        lambda _, bucket_ms, scores, now_ms: watched.append(
            (bucket_ms, [score.item_id for score in scores], now_ms)
        ),
    )
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new"))
    tell(shop, "catalog", CatalogEntry(sku="x"))
    membership: Any = SimpleNamespace(version=9, owns=lambda item_id: not item_id.startswith("x"))
    client: Any = "redis"
    owned = take_over(SETTINGS, client, shop, membership, device=torch.device("cpu"), now_ms=77)
    (((given, generation, resolution_ms, num_buckets), named),) = asked
    assert (given, generation, resolution_ms) == ("redis", 6, HOUR_MS)
    assert num_buckets == 30 + 4 + SPARE_BUCKETS == 106
    assert named == {"owns": membership.owns, "rules": ReadRules.of(SETTINGS, HOUR_MS)}
    assert owned.membership_version == 9 and owned.reader is reader and owned.shop is shop
    # Of the last round nothing is repeated; what nobody has forecast yet is.
    assert owned.previous_ms == HEAD_MS - 5 * HOUR_MS
    assert owned.unforecast(HEAD_MS - 4 * HOUR_MS) == ([], ["new|n"]), "x belongs to others"
    assert owned.pending.score_steps == (1, 4), "0 is no step, 5 lies beyond the horizon"
    assert [(due.step, due.item_ids) for due in owned.pending.due(HEAD_MS - 4 * HOUR_MS)] == [
        (1, ["young|n"])
    ]
    assert watched == [(HEAD_MS - 4 * HOUR_MS, ["a|n"], 77)]
    assert {name: list(found.active) for name, found in owned.monitor.segments.items()} == {
        "n": ["level"]
    }


@pytest.mark.parametrize("missing", ["forecasts", "scores", "drift"])
def test_shards_are_not_taken_over_while_a_topic_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    held: dict[str, list[Any]] = {"forecasts": [], "scores": [], "drift": []}
    del held[missing]
    Topics(monkeypatch, **held)
    owned = owned_of(reader_of())
    with pytest.raises(BrokerError, match="cannot be read"):
        owned.recover(SETTINGS, SimpleNamespace(owns=lambda _: True), 0)  # type: ignore[arg-type]


def test_the_last_round_is_the_newest_cutoff_that_was_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (made,) = records(["a|n"])
    cutoffs_ms = [HEAD_MS - hours * HOUR_MS for hours in (2, 5, 3)]
    replaced = [
        msgspec.structs.replace(made, cutoff_ms=cutoff_ms, forecast_id=str(cutoff_ms))
        for cutoff_ms in cutoffs_ms
    ]
    Topics(monkeypatch, forecasts=replaced, scores=[], drift=[])
    owned = owned_of(reader_of())
    owned.recover(SETTINGS, SimpleNamespace(owns=lambda _: True), 0)  # type: ignore[arg-type]
    assert owned.previous_ms == HEAD_MS - 3 * HOUR_MS
    assert owned.pending.cutoffs == sorted(cutoffs_ms)


def test_the_parts_of_shards_are_made_by_the_workers_settings() -> None:
    shop = ShopTables()
    owned = owned_of(reader_of(), shop, SETTINGS)
    assert (owned.contexts.context_length, owned.contexts.prediction_length) == (30, 4)
    assert owned.sums.steps == [1, 2, 3, 4]
    assert owned.pending.max_cutoffs == 3 and owned.pending.resolution_ms == HOUR_MS
    assert isinstance(owned.monitor, DriftMonitor)
    assert (owned.scorer.contexts, owned.scorer.pending) == (owned.contexts, owned.pending)
    assert owned.scorer.monitor is owned.monitor
    assert owned.scorer._segments(["a|north", "b|south"]) == ["north", "south"]
    assert owned.scorer._season_length == 12
    assert owned.previous_ms is None


@pytest.mark.parametrize(("launched", "named"), [(33, ["new|n"]), (34, [])])
def test_cold_items_are_those_on_sale_before_the_horizon_ends(
    launched: int, named: list[str]
) -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new", launched_at=(FIRST + launched) * HOUR_MS))
    owned = owned_of(reader_of(), shop, SETTINGS)
    assert owned.unforecast(HEAD_MS) == ([0, 1], named)
