"""What breaks into a round: finer steps that are due, other shards, another owner, a stop."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from freshet.model.batch import Batch
from freshet.online.worker import loop
from freshet.online.worker.marks import LAST, Mark
from freshet.online.worker.scorer import ScoredBucket
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.kafka import NotTheOwnerError
from freshet.stream.schemas import Promotion
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.worker.turns import (
    CUTOFF_MS,
    SETTINGS,
    LiveReader,
    Sent,
    Turns,
    notice_of,
    owned_of,
    reader_of,
)
from tests.online.worker.windows import FIRST, UNITS, tell

MINUTE = CUTOFF_MS // MINUTE_MS
BY_MINUTE = {"resolution_ms": MINUTE_MS, "flash_sales_only": True}
BY_HOUR = {"resolution_ms": HOUR_MS}
COMMON = {"context_length": 30, "prediction_length": 4, "season_length": 12, "score_steps": (1, 4)}
TWO = Settings.model_validate(
    {"worker": {"micro_batch": 1, "resolutions": [COMMON | BY_HOUR, COMMON | BY_MINUTE]}}
)


def two_of(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """A worker of seven items by the hour; two of them are on sale and forecast by the minute."""
    shop = ShopTables()
    for sku in ("s0", "s1"):
        sale = Promotion(
            promotion_id=sku,
            sku=sku,
            starts_at=CUTOFF_MS - DAY_MS,
            ends_at=CUTOFF_MS + DAY_MS,
            discount=0.5,
            kind="flash_sale",
        )
        tell(shop, "promotions", sale)
    hours = reader_of()
    minutes = LiveReader(
        resolution_ms=MINUTE_MS, first=FIRST * 60, reached=MINUTE, clicked=MINUTE, head=MINUTE
    )
    for sku in ("s0", "s1"):
        minutes.add(f"{sku}|n", MINUTE - 1, UNITS, 1_000)
        hours.add(f"{sku}|n", FIRST + 29, UNITS, 1_000)
    for number in range(3):
        hours.add(f"h{number}|n", FIRST + 29, UNITS, 1_000)
    owned = owned_of({HOUR_MS: hours, MINUTE_MS: minutes}, shop, TWO)
    return Turns(monkeypatch, owned, settings=TWO)


def batches_of(
    turns: Turns, lasting_s: float, then: Callable[[], None] = lambda: None
) -> list[str]:
    """What the network will be asked for, by width; each batch takes so long."""
    asked: list[str] = []

    def before(batch: Batch) -> None:
        asked.append("m" if batch.resolution_ms == MINUTE_MS else "h")
        turns.monotonic_s += lasting_s
        then()

    turns.weights.forecaster.before = before
    return asked


def test_finer_steps_go_first_and_then_take_at_most_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = two_of(monkeypatch)
    minutes, hours = turns.owned.served
    assert (minutes.resolution_ms, hours.resolution_ms) == (MINUTE_MS, HOUR_MS)
    assert turns.owned.main is hours
    monkeypatch.setattr(minutes.sums, "learn", lambda *_: False)
    monkeypatch.setattr(hours.sums, "learn", lambda *_: False)

    def another_minute() -> None:
        minutes.reader.head += 1  # type: ignore[attr-defined]

    asked = batches_of(turns, 1.0, another_minute)
    done = turns.turn()
    # Each of the two batches of a minute takes a second, so two of hours come in between.
    assert "".join(asked) == "mm" + "hhmm" * 3 + "h"
    assert [step for step in done if step.startswith("commit")] == ["commit forecasts+rounds"] * 5
    made = [(f.resolution_ms, f.cutoff_ms) for f in turns.forecasts()]
    by_hour = [(HOUR_MS, CUTOFF_MS)] * 7
    by_minute = [(MINUTE_MS, (MINUTE + late) * MINUTE_MS) for late in (0, 4, 8, 12)]
    assert made == [cutoff for cutoff in by_minute for _ in range(2)] + by_hour
    assert len({f.item_id for f in turns.forecasts() if f.resolution_ms == HOUR_MS}) == 7
    # What was passed over in between is named.
    rounds = {(over.resolution_ms, over.cutoff_ms): over.skipped for over in turns.rounds()}
    assert rounds == {(HOUR_MS, CUTOFF_MS): 0, by_minute[0]: 0} | dict.fromkeys(by_minute[1:], 3)
    assert turns.owned.marks == {
        0: {
            MINUTE_MS: Mark((MINUTE + 12) * MINUTE_MS, LAST, 2, 2, 3),
            HOUR_MS: Mark(CUTOFF_MS, LAST, 7, 7),
        }
    }
    assert turns.commits.moved[-1] == turns.owned.marks, "no width forgets the other's mark"


@pytest.mark.parametrize(("noticed", "order"), [(True, "mmhmmhhhhhh"), (False, "mmhhhhhhh")])
def test_a_notice_that_comes_within_a_round_lets_a_minute_break_into_it(
    monkeypatch: pytest.MonkeyPatch, noticed: bool, order: str
) -> None:
    turns = two_of(monkeypatch)
    minutes, hours = turns.owned.served
    monkeypatch.setattr(minutes.sums, "learn", lambda *_: False)
    monkeypatch.setattr(hours.sums, "learn", lambda *_: False)
    # Less than a second passes in all: Redis is not looked at without being told.
    asked = batches_of(turns, 0.0)

    def polled(_: int) -> None:
        turns.monotonic_s += 0.11
        if "".join(asked) == "mmh":
            minutes.reader.head += 1  # type: ignore[attr-defined]
            turns.membership.notices = [notice_of(CUTOFF_MS + MINUTE_MS, 2)] if noticed else []

    turns.membership.polled = polled
    minutes._rests_until_s = 0.0
    monkeypatch.setattr(minutes, "rests_after", lambda _: None)
    turns.turn()
    assert "".join(asked) == order


def test_a_minute_need_not_wait_until_all_hours_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = two_of(monkeypatch)
    minutes, hours = turns.owned.served
    monkeypatch.setattr(minutes.sums, "learn", lambda *_: False)
    monkeypatch.setattr(hours.sums, "learn", lambda *_: False)
    monkeypatch.setattr(hours.pending, "due_buckets", lambda _: [1, 2])
    asked = batches_of(turns, 1.0)

    def score(bucket_ms: int, now_ms: int) -> ScoredBucket:
        asked.append("s")
        turns.monotonic_s += 5.0
        minutes.reader.head += 1  # type: ignore[attr-defined]
        return ScoredBucket(bucket_ms, [], 0)

    monkeypatch.setattr(hours.scorer, "score", score)
    turns.turn()
    assert "".join(asked) == "mm" + "h" * 7 + "smm" * 2


def test_a_round_that_breaks_into_another_breaks_into_none_of_its_own_width_or_coarser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = two_of(monkeypatch)
    minutes, hours = turns.owned.served

    def all_move_on() -> None:
        minutes.reader.head += 1  # type: ignore[attr-defined]
        hours.reader.head += 1  # type: ignore[attr-defined]

    asked = batches_of(turns, 1.0, all_move_on)
    monkeypatch.setattr(minutes.sums, "learn", lambda *_: False)
    monkeypatch.setattr(hours.sums, "learn", lambda *_: False)
    turns.turn()
    assert "".join(asked) == "mm" + "hhmm" * 3 + "h"


# Other shards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("polls", [2, 3])
def test_when_shards_change_within_a_round_nothing_more_of_it_is_committed(
    monkeypatch: pytest.MonkeyPatch, polls: int
) -> None:
    """Kafka would take it: a member's offsets are not held against what it was assigned."""
    monkeypatch.setattr(loop, "PORTION", 1)
    turns = Turns(monkeypatch, owned_of(reader_of()))
    seen: list[int] = []

    def polled(max_wait_ms: int) -> None:
        seen.append(max_wait_ms)
        turns.membership.version += len(seen) == polls

    turns.membership.polled = polled
    with pytest.raises(NotTheOwnerError, match="shards changed"):
        turns.turn()
    assert len(turns.forecasts()) == polls - 2
    assert len(turns.main.pending.items_at(CUTOFF_MS)) == polls - 2


def test_when_shards_change_while_buckets_are_scored_the_others_are_left_to_their_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch, owned_of(reader_of()))
    turns.turn()
    turns.main.reader.head += 6  # type: ignore[attr-defined]
    turns.main.reader.reached += 6  # type: ignore[attr-defined]
    seen: list[int] = []

    def polled(_: int) -> None:
        seen.append(len(turns.scores()))
        turns.membership.version += seen[-1] > 0

    turns.membership.polled = polled
    with pytest.raises(NotTheOwnerError):
        turns.turn()
    # Two items of the first final bucket; the second of step 4 is another's by now.
    assert {score.bucket_start_ms for score in turns.scores()} == {CUTOFF_MS}


@pytest.mark.parametrize("breaks", ["commit", "poll"])
def test_a_worker_that_lost_its_shards_takes_over_what_it_is_given_without_waiting(
    monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    tell_of = lambda name, **fields: said.append((name, fields))  # noqa: E731
    monkeypatch.setattr(loop, "log", SimpleNamespace(info=lambda *_, **__: None, warning=tell_of))
    turns = Turns(monkeypatch, owned_of(reader_of()))
    monkeypatch.setattr(turns.main.sums, "learn", lambda *_: turns.worker.stop())
    broken: list[bool] = []

    def commit(_: Sent) -> bool:
        if not broken and breaks == "commit":
            broken.append(True)
            raise NotTheOwnerError("another member by now")
        return True

    def polled(max_wait_ms: int) -> None:
        turns.monotonic_s += 1.0
        if not broken and breaks == "poll" and not max_wait_ms:
            broken.append(True)
            turns.membership.version += 1

    turns.commits.before, turns.membership.polled = commit, polled
    turns.worker.run()
    (lost,) = said
    error = {
        "commit": "another member by now",
        "poll": "the shards changed in the middle of a round",
    }[breaks]
    assert lost == ("shards_lost", {"error": error})
    assert len(turns.taken) == 2, "what the group and the topics tell is read anew"
    assert turns.waits_s == [], "no server is away"
    assert [f.item_id for f in turns.forecasts()] == ["a|n", "young|n"]
    assert turns.worker.ready() is None


def test_what_was_not_committed_waits_for_no_scores_and_moves_no_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch, owned_of(reader_of()))

    def refuse(_: Sent) -> bool:
        raise NotTheOwnerError("another member by now")

    turns.commits.before = refuse
    with pytest.raises(NotTheOwnerError):
        turns.turn()
    assert turns.owned.marks == {0: {}} and turns.main.pending.cutoffs == []
    assert turns.measured("forecasts_total", status="ok") is None
    assert turns.worker.published_ms is None


# A stop -------------------------------------------------------------------------------------------


def test_a_stop_within_a_portion_commits_nothing_of_it_and_leaves_the_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = SETTINGS.worker.model_copy(update={"micro_batch": 1})
    settings = SETTINGS.model_copy(update={"worker": worker})
    turns = Turns(monkeypatch, owned_of(reader_of(), settings=settings), settings=settings)
    turns.weights.forecaster.before = lambda _: turns.worker.stop()
    done = turns.turn()
    assert not any(step.startswith("commit") for step in done)
    assert turns.owned.marks == {0: {}} and turns.commits.moved == []
    assert turns.main.pending.cutoffs == [] and turns.worker.published_ms is None


def test_a_commit_that_is_told_to_stop_while_it_waits_leaves_the_round_to_the_next_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(monkeypatch, owned_of(reader_of()))
    turns.commits.before = lambda _: False
    turns.turn()
    assert turns.owned.marks == {0: {}} and turns.worker.published_ms is None
    assert turns.main.pending.cutoffs == []
