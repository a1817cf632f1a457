"""The loop and its shards with servers made up: what is forecast, and what it is called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from freshet.online.drift.pending import Issued
from freshet.online.forecast import publish
from freshet.online.forecast.publish import issued_of
from freshet.online.weights.loaded import Serving
from freshet.online.worker import loop, shard, whose
from freshet.online.worker.marks import LAST, Mark, Marks, place_of
from freshet.online.worker.outgoing import outgoing_forecasts
from freshet.online.worker.pace import Pace
from freshet.online.worker.served import SPARE_BUCKETS
from freshet.online.worker.shard import OwnedShards
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import MAX_TIME_MS, decode, encode
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError, FreshetError, StoreError, StoreUnavailableError
from freshet.stream.kafka import NotTheOwnerError
from freshet.stream.read.progress import Loading
from freshet.stream.schemas import (
    WIRE_LEVELS,
    CatalogEntry,
    DriftAlert,
    Forecast,
    ModelEvent,
    Score,
    ShardScored,
)
from freshet.stream.units import HOUR_MS
from tests.online.worker.turns import (
    CUTOFF_MS,
    SETTINGS,
    FakeMembership,
    Sent,
    Turns,
    done_at,
    effects_known,
    left_at,
    notice_of,
    owned_of,
    reader_of,
)
from tests.online.worker.windows import FIRST, UNITS, tell


def forecasts_of(
    monkeypatch: pytest.MonkeyPatch, owned: OwnedShards, *, fallback: str = ""
) -> dict[str, Forecast]:
    """One round of a worker of these shards."""
    turns = Turns(monkeypatch, owned, fallback=fallback)
    turns.turn()
    return {forecast.item_id: forecast for forecast in turns.forecasts()}


@pytest.mark.parametrize(
    ("fallback", "lost", "status"),
    [
        ("", (), "ok"),
        ("weights v4 could not be loaded", (), "degraded"),
        ("", (("orders", 0),), "degraded"),
    ],
)
def test_forecasts_of_fallback_weights_or_of_windows_that_lost_something_are_not_called_ok(
    monkeypatch: pytest.MonkeyPatch, fallback: str, lost: tuple[Any, ...], status: str
) -> None:
    owned = owned_of(reader_of(lost=lost))
    found = forecasts_of(monkeypatch, owned, fallback=fallback)
    statuses = {item_id: forecast.status for item_id, forecast in found.items()}
    assert statuses == {"a|n": status, "young|n": "short_history"}


def test_a_round_forecasts_windows_and_cold_items_at_one_cutoff_by_the_weights_in_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = ShopTables()
    for sku in ("new", "x"):
        tell(shop, "catalog", CatalogEntry(sku=sku, title="Lamp"))
    found = forecasts_of(monkeypatch, owned_of(reader_of(), shop, effects=effects_known()))
    assert set(found) == {"a|n", "young|n", "new|n"}, "x belongs to others"
    for forecast in found.values():
        assert (forecast.cutoff_ms, forecast.issued_at_ms) == (CUTOFF_MS, CUTOFF_MS + 5)
        assert (forecast.weights_version, forecast.weights_sha256) == ("v3", "ab")
        assert forecast.offsets == {"orders:0": 7, "catalog:0": 4} and len(forecast.quantiles) == 4


def test_items_with_a_forecast_of_the_cutoff_are_not_forecast_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = ShopTables()
    tell(shop, "catalog", CatalogEntry(sku="new"))
    made = forecasts_of(monkeypatch, owned_of(reader_of(), shop, effects=effects_known()))
    owned = owned_of(reader_of(), shop)
    assert left_at(owned, CUTOFF_MS) == {"a|n", "young|n", "new|n"}
    assert owned.main.pending.score_steps == (1, 4), "24 lies beyond the horizon"
    # A worker that knew of no marks published them.
    owned.main.pending.add(*issued_of([made["a|n"], made["new|n"]], (1, 4)))
    assert left_at(owned, CUTOFF_MS) == {"young|n"}
    assert left_at(owned, CUTOFF_MS + HOUR_MS) == {"a|n", "young|n", "new|n"}


def recovered_of(
    monkeypatch: pytest.MonkeyPatch,
    forecasts: list[Forecast],
    scores: list[Score],
    latest_ms: int = MAX_TIME_MS,
    said: Mapping[int, Marks] = MappingProxyType({}),
) -> OwnedShards:
    topics = SETTINGS.kafka.topics
    values: dict[str, list[Any]] = {topics.forecasts: forecasts, topics.scores: scores}

    class FakeTail(list[tuple[int, bytes]]):
        cut: frozenset[int] = frozenset()

        def __init__(self, _: Settings, topic: str) -> None:
            super().__init__((0, encode(record)) for record in values.get(topic, []))

    monkeypatch.setattr(shard, "Tail", FakeTail)
    owned = owned_of(reader_of())
    membership: Any = FakeMembership(said=dict(said))
    owned.recover(SETTINGS, membership, latest_ms)
    return owned


def test_after_a_restart_a_round_goes_on_behind_the_last_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # `a|n` stands before `young|n`.
    begun: dict[int, Marks] = {0: {HOUR_MS: Mark(CUTOFF_MS, place_of("a|n"), 1, 2)}}
    owned = recovered_of(monkeypatch, [], [], said=begun)
    assert left_at(owned, CUTOFF_MS) == {"young|n"}
    turns = Turns(monkeypatch, owned)
    turns.turn()
    assert [made.item_id for made in turns.forecasts()] == ["young|n"]
    (over,) = turns.rounds()
    assert (over.complete, over.expected, over.published) == (True, 2, 2)


def test_after_a_restart_from_before_there_were_marks_the_last_round_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = forecasts_of(monkeypatch, owned_of(reader_of()))
    turns = Turns(monkeypatch, recovered_of(monkeypatch, [made["young|n"]], []))
    turns.turn()
    assert [forecast.item_id for forecast in turns.forecasts()] == ["a|n"]
    (over,) = turns.rounds()
    assert (over.complete, over.expected, over.published) == (True, 1, 1)


@pytest.mark.parametrize("hours_ahead", [1, 24 * 365])
def test_a_foreign_forecast_of_a_cutoff_to_come_holds_up_no_round(
    monkeypatch: pytest.MonkeyPatch, hours_ahead: int
) -> None:
    made = forecasts_of(monkeypatch, owned_of(reader_of()))["a|n"]
    foreign = msgspec.structs.replace(
        made, item_id="other|n", cutoff_ms=CUTOFF_MS + hours_ahead * HOUR_MS
    )
    owned = recovered_of(monkeypatch, [made, foreign], [], latest_ms=CUTOFF_MS + 2 * HOUR_MS)
    assert len(owned.main.pending.cutoffs) == (2 if hours_ahead == 1 else 1)
    turns = Turns(monkeypatch, owned)
    turns.turn()
    assert {(f.item_id, f.cutoff_ms) for f in turns.forecasts()} == {("young|n", CUTOFF_MS)}


def test_forecasts_whose_buckets_are_no_longer_held_do_not_wait_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (made, *_) = forecasts_of(monkeypatch, owned_of(reader_of())).values()
    # Final is two hours before the head; step 4 is the furthest that is scored.
    oldest_ms = CUTOFF_MS - 2 * HOUR_MS - (4 + SPARE_BUCKETS) * HOUR_MS
    aged = [
        msgspec.structs.replace(
            made, forecast_id=f"f{hours}", cutoff_ms=oldest_ms + hours * HOUR_MS
        )
        for hours in (-1, 0)
    ]
    assert recovered_of(monkeypatch, aged, []).main.pending.cutoffs == [oldest_ms]


# Turns --------------------------------------------------------------------------------------------


def turns_of(monkeypatch: pytest.MonkeyPatch, *, micro_batch: int = 256, cold: int = 0) -> Turns:
    """A worker of two items with windows, and of so many cold ones."""
    shop = ShopTables()
    for number in range(cold):
        tell(shop, "catalog", CatalogEntry(sku=f"c{number}"))
    worker = SETTINGS.worker.model_copy(update={"micro_batch": micro_batch})
    settings = SETTINGS.model_copy(update={"worker": worker})
    return Turns(
        monkeypatch,
        owned_of(reader_of(), shop, settings, effects=effects_known()),
        settings=settings,
    )


def wait_for_scores(owned: OwnedShards, *hours: int) -> None:
    """Forecasts of `a|n` that were made so many hours after the first event."""
    for hour in hours:
        quantiles_IKQ = np.full((1, 2, len(WIRE_LEVELS)), 2.0, np.float32)
        cutoff_ms = (FIRST + hour) * HOUR_MS
        made = Issued(cutoff_ms, "v2", WIRE_LEVELS, ["a|n"], [f"f{hour}"], quantiles_IKQ)
        owned.main.pending.add(made)


def test_a_turn_reads_publishes_looks_back_and_scores_in_that_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 20)
    monkeypatch.setattr(
        turns.main.sums, "learn", lambda *asked: turns.journal.append(f"learn {asked[2]}")
    )
    assert turns.turn() == [
        "group",
        "inputs 0",
        "settle 5",
        "group",
        "commit forecasts+rounds",
        f"learn {CUTOFF_MS}",
        "deliver scores",
        "group",
        "deliver scores",
        "group",
        "deliver scored",
    ]
    # Steps 1 and 4 of the forecast of hour 20 are its hours 20 and 23; today's wait.
    assert [score.bucket_start_ms // HOUR_MS - FIRST for score in turns.scores()] == [20, 23]
    assert turns.main.pending.cutoffs == [CUTOFF_MS]
    assert turns.worker.published_ms == CUTOFF_MS
    assert turns.owned.marks == {0: {HOUR_MS: Mark(CUTOFF_MS, LAST, 2, 2)}}
    assert turns.turn() == ["group", "inputs 0", "settle 5"], "nothing new: no round, no look"


def test_each_forecast_goes_to_the_log_and_to_the_table_of_the_newest_of_its_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    topics = SETTINGS.kafka.topics
    log, latest = topics.forecasts, topics.forecasts_latest
    (lot,) = turns.commits.lots
    assert lot == [
        (log, "a|n"),
        (latest, "a|n@3600000"),
        (log, "young|n"),
        (latest, "young|n@3600000"),
        (topics.rounds, "0@3600000"),
    ]
    values = [value for _, _, value in turns.commits.sent]
    assert values[0] == values[1] != values[2] == values[3]
    without = topics.model_copy(update={"forecasts_latest": ""})
    outgoing = outgoing_forecasts(without, turns.forecasts())
    assert [record.topic for record in outgoing] == [log, log]


def test_a_round_that_is_over_is_said_of_each_shard_with_its_last_forecasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    membership = FakeMembership(shards=frozenset({0, 1, 2}), num_shards=4)
    # Of the five items shard 0 has `a|n`, `c1|n` and `c2|n`, 1 has `young|n`, 2 has `c0|n`.
    shop = ShopTables()
    for number in range(3):
        tell(shop, "catalog", CatalogEntry(sku=f"c{number}"))
    owned = owned_of(reader_of(), shop, membership=membership)
    turns = Turns(monkeypatch, owned, membership=membership)
    turns.turn()
    found = {over.shard: over for over in turns.rounds()}
    assert {shard: (one.expected, one.published) for shard, one in found.items()} == {
        0: (3, 3),
        1: (1, 1),
        2: (1, 1),
    }
    for over in found.values():
        assert (over.num_shards, over.resolution_ms, over.cutoff_ms) == (4, HOUR_MS, CUTOFF_MS)
        assert (over.issued_at_ms, over.weights_version) == (CUTOFF_MS + 5, "v3")
        assert over.complete and (over.skipped, over.skipped_from_ms) == (0, None)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 5, 256])
def test_however_a_round_is_cut_each_item_is_forecast_once_in_the_order_of_places(
    monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    turns = turns_of(monkeypatch, micro_batch=micro_batch, cold=3)
    done = turns.turn()
    ordered = ["c2|n", "a|n", "young|n", "c0|n", "c1|n"]
    assert ordered == sorted(ordered, key=place_of)
    expected = []
    for start in range(0, 5, micro_batch):
        few = ordered[start : start + micro_batch]
        # Those with windows come first in each batch.
        expected += sorted(few, key=lambda item_id: item_id.startswith("c"))
    assert [forecast.item_id for forecast in turns.forecasts()] == expected
    assert done.count("commit forecasts+rounds") == 1, "few forecasts go out together"
    assert done.count("group") == 1 + math.ceil(5 / micro_batch), "the group hears of each batch"
    assert turns.measured("items") == 5
    assert turns.measured("forecasts_total", status="ok") == 1
    assert turns.measured("forecasts_total", status="cold_start") == 3
    assert turns.measured("forecasts_total", status="short_history") == 1


def test_forecasts_wait_to_be_scored_and_marks_move_only_once_they_are_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "PORTION", 2)
    turns = turns_of(monkeypatch, micro_batch=1, cold=3)
    waiting: list[set[str]] = []
    marks: list[Mark | None] = []

    def acknowledge(_: Sent) -> bool:
        waiting.append(turns.main.pending.items_at(CUTOFF_MS))
        marks.append(turns.owned.marks[0].get(HOUR_MS))
        return len(waiting) < 3

    turns.commits.before = acknowledge
    turns.turn()
    assert waiting == [set(), {"c2|n", "a|n"}, {"c2|n", "a|n", "young|n", "c0|n"}]
    assert marks == [
        None,
        Mark(CUTOFF_MS, place_of("a|n"), 2, 5),
        Mark(CUTOFF_MS, place_of("c0|n"), 4, 5),
    ]
    assert left_at(turns.owned, CUTOFF_MS) == {"c1|n"}
    assert turns.worker.published_ms is None, "the round is not complete"
    turns.commits.before = lambda _: True
    turns.turn()
    assert [forecast.item_id for forecast in turns.forecasts()][4:] == ["c1|n"]
    assert turns.owned.marks[0][HOUR_MS] == Mark(CUTOFF_MS, LAST, 5, 5)
    (over,) = turns.rounds()
    assert (over.expected, over.published, over.complete) == (5, 5, True)


def test_a_round_that_was_stopped_is_not_noted_and_the_next_worker_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "PORTION", 1)
    turns = turns_of(monkeypatch, micro_batch=1)
    looked: list[int] = []
    monkeypatch.setattr(turns.main.sums, "learn", lambda *asked: looked.append(asked[2]))

    def stop(_: Sent) -> bool:
        turns.worker.stop()
        return True

    turns.commits.before = stop
    turns.turn()
    assert [forecast.item_id for forecast in turns.forecasts()] == ["a|n"]
    begun: dict[int, Marks] = {0: {HOUR_MS: Mark(CUTOFF_MS, place_of("a|n"), 1, 2)}}
    assert turns.commits.moved == [begun] and turns.owned.marks == begun
    assert turns.rounds() == [] and turns.worker.published_ms is None
    assert looked == []
    turns.worker.run()
    assert turns.commits.closed is False and len(turns.forecasts()) == 1, "it turns no more"
    successor = Turns(monkeypatch, recovered_of(monkeypatch, [], [], said=begun))
    successor.turn()
    assert [forecast.item_id for forecast in successor.forecasts()] == ["young|n"]


def test_a_bucket_is_closed_only_once_its_scores_are_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 10, 20)
    done_at(turns.owned, CUTOFF_MS)
    open_before: list[list[int]] = []

    def acknowledge(_: object) -> bool:
        due = turns.main.pending.due_buckets((FIRST + 28) * HOUR_MS)
        if not due:
            return True  # how far they are scored
        open_before.append([bucket_ms // HOUR_MS - FIRST for bucket_ms in due])
        return len(open_before) != 2

    turns.delivery.before = acknowledge
    turns.turn()
    assert open_before == [[10, 13, 20, 23], [13, 20, 23]]
    turns.turn()
    assert open_before[2:] == [[13, 20, 23], [20, 23], [23]], "oldest first, one after another"
    assert turns.main.pending.cutoffs == []
    assert turns.measured("scores_total") == 4 and turns.measured("unscored_steps_total") == 0
    (step,) = turns.scores()[0].steps
    assert (step.forecast_id, step.step, turns.scores()[0].actual) == ("f10", 1, 3.0)
    assert turns.scores()[0].scored_at_ms == CUTOFF_MS + 5


def test_what_is_not_final_yet_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 24, 25)
    done_at(turns.owned, CUTOFF_MS)
    turns.turn()
    # Final is what ended two hours before the head: hours 24, 25 and 27, not 28.
    assert [score.bucket_start_ms // HOUR_MS - FIRST for score in turns.scores()] == [24, 25, 27]


def test_a_long_backlog_of_buckets_is_scored_in_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "MAX_BUCKETS_A_TURN", 3)
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 2, 11)
    done_at(turns.owned, CUTOFF_MS)
    turns.turn()
    assert len(turns.scores()) == 3
    turns.turn()
    assert [score.bucket_start_ms // HOUR_MS - FIRST for score in turns.scores()] == [2, 5, 11, 14]


def scored_until(turns: Turns) -> list[tuple[int, int]]:
    """Shard and hour of each word on how far shards are scored, in order."""
    topic = SETTINGS.kafka.topics.scored
    told = [decode(ShardScored, value) for name, _, value in turns.delivery.sent if name == topic]
    return [(one.shard, one.scored_until_ms // HOUR_MS - FIRST) for one in told]


def test_how_far_shards_are_scored_is_said_of_each_behind_its_last_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    membership = FakeMembership(shards=frozenset({0, 2}), num_shards=3)
    owned = owned_of(reader_of(), membership=membership)
    turns = Turns(monkeypatch, owned, membership=membership)
    wait_for_scores(turns.owned, 20)
    turns.turn()
    topic = SETTINGS.kafka.topics.scored
    # All that ends by hour 28 is final, and scored where anything was forecast of it.
    assert turns.delivery.lots[-1] == [(topic, "0@3600000"), (topic, "2@3600000")]
    assert scored_until(turns) == [(0, 28), (2, 28)]
    told = decode(ShardScored, turns.delivery.sent[-1][2])
    assert (told.num_shards, told.resolution_ms, told.scored_at_ms) == (3, HOUR_MS, CUTOFF_MS + 5)
    assert told.begun_ms == FIRST * HOUR_MS
    turns.turn()
    turns.main.reader.head += 1  # type: ignore[attr-defined]
    turns.turn(later_s=9.0)
    assert scored_until(turns)[2:] == [(0, 29), (2, 29)], "once for each hour"


def test_where_scores_wait_for_the_next_turn_only_what_lies_before_them_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "MAX_BUCKETS_A_TURN", 3)
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 2, 11)
    done_at(turns.owned, CUTOFF_MS)
    turns.turn()
    assert scored_until(turns) == [(0, 14)]
    turns.turn()
    assert scored_until(turns) == [(0, 14), (0, 28)]


def test_what_was_not_acknowledged_is_neither_scored_nor_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    wait_for_scores(turns.owned, 20)
    done_at(turns.owned, CUTOFF_MS)
    turns.delivery.before = lambda _: False
    turns.turn()
    assert scored_until(turns) == [] and turns.journal.count("deliver scored") == 0


def test_of_other_resolutions_nobody_asks_how_far_they_are_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {one.resolution_ms: reader_of() for one in Settings().served}
    turns = Turns(monkeypatch, owned_of(made, settings=Settings()), settings=Settings())
    for _ in range(3):
        turns.turn()
    sent = turns.delivery.sent
    assert {key for name, key, _ in sent if name.endswith("scored.v1")} == {"0@3600000"}


def test_what_the_owner_says_of_drift_is_counted__once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alert = msgspec.convert(
        {
            "alert_id": "i",
            "segment": "shoes",
            "state": "drift",
            "kind": "level",
            "detector": "scan",
            "detected_at_ms": 0,
            "onset_ms": 7,
            "size": 1.0,
            "weights_version": "v2",
            "description": "",
            "action": "",
        },
        DriftAlert,
    )
    turns = turns_of(monkeypatch)
    turns.side_inputs.alarms.take(alert)
    # What was said before this worker began is no news.
    turns.turn()
    assert turns.measured("drift_alerts_total", state="drift", kind="level") is None
    turns.side_inputs.alarms.take(msgspec.structs.replace(alert, alert_id="j"))
    turns.turn()
    assert turns.measured("drift_alerts_total", state="drift", kind="level") == 1


def test_steps_whose_sales_are_not_known_are_counted_and_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.main.reader.reached = FIRST + 12  # type: ignore[attr-defined]
    wait_for_scores(turns.owned, 11)
    done_at(turns.owned, CUTOFF_MS)
    turns.turn()
    assert [score.bucket_start_ms // HOUR_MS - FIRST for score in turns.scores()] == [11]
    assert turns.measured("unscored_steps_total") == 1
    assert turns.main.pending.cutoffs == []


def test_a_round_that_is_out_is_said_with_what_it_forecast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    log = SimpleNamespace(info=lambda name, **fields: said.append((name, fields)))
    monkeypatch.setattr(loop, "log", log)
    turns = turns_of(monkeypatch, cold=3)
    done_at(turns.owned, CUTOFF_MS - 4 * HOUR_MS)
    monkeypatch.setattr(turns.main.sums, "learn", lambda *_: False)
    turns.turn()
    fields = {"cutoff_ms": CUTOFF_MS, "items": 5, "skipped": 3, "s": 0.0, "version": "v3"}
    assert said == [("forecast", {"resolution_ms": HOUR_MS, **fields})]
    assert (turns.rounds()[0].skipped, turns.rounds()[0].skipped_from_ms) == (
        3,
        CUTOFF_MS - 3 * HOUR_MS,
    )


def test_skipped_cutoffs_and_ages_are_measured_from_the_cutoff_that_is_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    assert math.isnan(turns.measured("forecast_age_seconds") or 0.0)
    assert turns.measured("degraded") == 1
    turns.turn()
    assert turns.measured("coalesced_cutoffs_total") == 0
    turns.main.reader.head += 3  # type: ignore[attr-defined]
    turns.now_ms = CUTOFF_MS + 4 * HOUR_MS
    turns.turn()
    assert turns.measured("coalesced_cutoffs_total") == 2
    assert turns.measured("lag_seconds") == turns.measured("forecast_age_seconds") == 3_600
    assert turns.measured("latency_seconds_count") == 2
    assert turns.measured("degraded") == 0
    assert turns.worker.ready() is None


# Receive ------------------------------------------------------------------------------------------


def test_nothing_is_forecast_before_the_catalogue_is_read_and_shards_are_assigned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.side_inputs.caught_up = False
    turns.side_inputs.waits_for = "no catalogue yet"
    assert turns.turn() == ["group", "inputs 200"]
    assert "no catalogue yet" in (turns.worker.ready() or "")
    turns.side_inputs.caught_up, turns.membership.shards = True, frozenset()
    assert turns.turn() == ["group", "inputs 0", "settle 5"]
    assert turns.membership.waits_ms == [200, 200]
    assert turns.taken == [] and turns.worker.ready() is not None
    turns.membership.shards = frozenset({0})
    turns.turn()
    assert len(turns.taken) == 1 and turns.worker.ready() is None


def test_a_worker_that_has_no_shards_for_half_a_minute_says_so_until_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    turns.membership.shards = frozenset()
    turns.turn()
    turns.monotonic_s += 20.0
    turns.turn()
    assert turns.worker.ready() is None
    turns.monotonic_s += 15.0
    turns.turn()
    number = turns.membership.num_shards
    assert (turns.worker.ready() or "").startswith(f"none of the {number} shards is this worker's")
    turns.membership.shards = frozenset({0})
    turns.turn()
    assert turns.worker.ready() is None


def test_shards_are_taken_over_anew_exactly_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    turns.turn()
    settings, client, shop, membership, named = turns.taken[0]
    assert (client, shop, membership) == ("redis", turns.owned.shop, turns.membership)
    now_ms = CUTOFF_MS + 5
    # An hour of margin, and half a minute of a clock that may not have been read.
    latest_ms = now_ms + HOUR_MS + 30_000
    device = turns.weights.forecaster.device
    assert named == {
        "device": device,
        "now_ms": now_ms,
        "latest_ms": latest_ms,
        "effects": None,
        "decisions": turns.side_inputs.decisions,
    }
    assert settings.worker.micro_batch == 256 and len(turns.taken) == 1
    turns.membership.version = 2
    turns.turn()
    assert len(turns.taken) == 2


@pytest.mark.parametrize(
    ("notice", "later_s", "looks"),
    [
        # The hour before the head is final once all have come 905 s further.
        (notice_of(CUTOFF_MS + 905_000, 2), 0.2, 1),
        (notice_of(CUTOFF_MS + 905_000 - 1, 2), 0.2, 0),
        (b"?", 0.2, 0),
        (None, 0.99, 0),
        (None, 1.0, 1),
    ],
)
def test_redis_is_looked_at_when_a_bucket_may_have_ended_and_every_second(
    monkeypatch: pytest.MonkeyPatch, notice: bytes | None, later_s: float, looks: int
) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    turns.membership.notices = [notice]
    turns.main.reader.head += 1  # type: ignore[attr-defined]
    turns.turn(later_s)
    assert len(turns.forecasts()) == 2 + 2 * looks


def test_a_look_is_waited_for_no_longer_than_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)
    turns.turn()
    turns.turn(0.98)
    turns.turn(0.02)
    # Nothing is held before the first turn; at the third, 20 ms were left until the next look.
    assert [ms for ms in turns.membership.waits_ms if ms] == [200, 20]


def test_a_swap_is_told_on_the_models_topic_under_its_kind_version_and_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    turns.swap = ModelEvent(kind="swapped", version="v4", at_ms=7, worker="w1", pause_ms=250.0)
    turns.turn()
    topic, key, value = turns.delivery.sent[0]
    assert (topic, key) == (SETTINGS.kafka.topics.models, "swapped:v4:w1")
    assert decode(ModelEvent, value).pause_ms == 250.0
    assert turns.measured("swaps_total", outcome="swapped") == 1
    assert turns.measured("swap_pause_seconds_sum") == 0.25
    turns.swap = ModelEvent(kind="swap_failed", version="v5", at_ms=8, worker="w1")
    turns.turn()
    assert turns.measured("swaps_total", outcome="swap_failed") == 1
    assert turns.measured("swap_pause_seconds_count") == 1, "what failed paused nothing"


def test_a_round_is_made_by_the_weights_that_served_when_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch, micro_batch=1)
    other = Serving(replace(turns.weights, version="v4", sha256="cd"))

    def swap(max_wait_ms: int) -> None:
        turns.switch.current = other if max_wait_ms == 0 else turns.switch.current

    turns.membership.polled = swap
    turns.turn()
    made = [(f.weights_version, f.weights_sha256) for f in turns.forecasts()]
    assert made == [("v3", "ab"), ("v3", "ab")]
    assert [over.weights_version for over in turns.rounds()] == ["v3"]


# Servers that are away ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "what"),
    [(StoreUnavailableError("no redis"), "redis"), (BrokerError("no broker"), "broker")],
)
def test_a_server_that_is_away_is_waited_for_and_what_is_amiss_is_told_until_a_whole_turn(
    monkeypatch: pytest.MonkeyPatch, error: FreshetError, what: str
) -> None:
    turns = turns_of(monkeypatch)
    told: list[str | None] = []

    def refresh() -> None:
        monkeypatch.undo()
        raise error

    def commit(_: object) -> bool:
        told.append(turns.worker.ready())
        turns.worker.stop()
        return True

    turns.worker._owned = turns.owned
    monkeypatch.setattr(turns.main.contexts, "refresh", refresh)
    turns.commits.before = commit
    turns.worker.run()
    assert told == [f"reading the catalogue and joining the worker group; {error}"]
    assert turns.measured("troubles_total", what=what) == 1 and turns.waits_s == [0.1]
    assert turns.worker.ready() is None, "forecasts are out again"


def test_probes_and_back_off_are_told_of_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)
    for name in ("beat", "answered", "turned"):
        monkeypatch.setattr(turns.health, name, lambda name=name: turns.journal.append(name))
    monkeypatch.setattr(turns.main.sums, "learn", lambda *_: turns.worker.stop())
    turns.worker.run()
    assert turns.journal == [
        "beat",
        "group",
        "inputs 0",
        "settle 5",
        "group",
        "beat",
        "commit forecasts+rounds",
        "deliver scored",
        "turned",
        "answered",
    ]


def test_probes_say_that_history_is_being_loaded_until_all_of_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = reader_of()
    turns = Turns(monkeypatch, owned_of(reader))
    reader.of_history = Loading(complete=1, partitions=8)
    turns.turn()
    text = "history is being loaded: 1 of 8 partitions have it"
    assert turns.health.trouble("history") == text
    reader.of_history = None
    turns.owned.main.pace = Pace(reader.rules)
    turns.turn()
    assert turns.health.trouble("history") is None


def test_windows_that_are_whole_again_make_forecasts_that_are_ok_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = reader_of(lost=(("orders", 0),))
    turns = Turns(monkeypatch, owned_of(reader))
    turns.turn()
    reader.lost = ()
    reader.head += 1
    turns.turn()
    assert [f.status for f in turns.forecasts() if f.item_id == "a|n"] == ["degraded", "ok"]


def test_a_cold_item_that_begins_to_sell_is_forecast_once_from_its_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch, cold=1)
    turns.turn()
    turns.main.reader.add("c0|n", FIRST + 30, UNITS, 1_000)  # type: ignore[attr-defined]
    turns.main.reader.head += 1  # type: ignore[attr-defined]
    turns.turn()
    made = [forecast.item_id for forecast in turns.forecasts()]
    assert made == ["a|n", "young|n", "c0|n"] * 2
    assert turns.measured("items") == 3


@pytest.mark.parametrize("asked", [False, True])
def test_units_per_view_are_forecast_where_the_settings_ask_for_them(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    rates = lambda forecaster, batch: forecaster.forecast(batch) / 1e4  # noqa: E731
    monkeypatch.setattr(publish, "conversion", rates)
    worker = SETTINGS.worker.model_copy(update={"conversion": asked})
    settings = SETTINGS.model_copy(update={"worker": worker})
    turns = Turns(monkeypatch, owned_of(reader_of()), settings=settings)
    turns.turn()
    assert [forecast.conversion is not None for forecast in turns.forecasts()] == [asked] * 2


def test_a_worker_dies_where_it_is_told_on_either_side_of_each_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch)
    monkeypatch.setattr(loop, "failpoint", turns.journal.append)
    wait_for_scores(turns.owned, 25)
    done = [
        step for step in turns.turn() if step.startswith(("commit", "deliver", "before", "after"))
    ]
    assert done == [
        "before_forecasts",
        "commit forecasts+rounds",
        "after_forecasts",
        "before_scores",
        "deliver scores",
        "after_scores",
        "deliver scored",
    ]


def test_a_worker_that_ends_sends_what_is_queued_before_it_leaves_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, closed = turns_of(monkeypatch), list[str]()
    for name in ("commits", "delivery", "side_inputs", "membership"):
        part = getattr(turns, name)
        monkeypatch.setattr(part, "close", lambda name=name: closed.append(name), raising=False)
    turns.worker.close()
    assert closed == ["commits", "delivery", "side_inputs", "membership"]


def test_what_cannot_be_waited_out_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch)

    def refresh() -> None:
        raise StoreError("another layout")

    monkeypatch.setattr(turns.main.contexts, "refresh", refresh)
    with pytest.raises(StoreError, match="another layout"):
        turns.worker.run()


def test_a_portion_made_for_shards_that_were_given_up_meanwhile_is_not_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch, owned_of(reader_of()))
    turns.turn()
    before = len(turns.forecasts())
    turns.owned.main.reader.head += 1
    made = whose.forecast_items

    def revoked(*args: Any, **named: Any) -> Any:
        turns.membership.version += 1
        return made(*args, **named)

    monkeypatch.setattr(whose, "forecast_items", revoked)
    turns.monotonic_s += 10.0
    with pytest.raises(NotTheOwnerError, match="shards changed"):
        turns.turn()
    assert len(turns.forecasts()) == before
