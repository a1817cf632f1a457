"""Drift of a shop is found once, whoever scores what, in whatever order it is read or told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache

import pytest
from msgspec.structs import replace

from freshet.online.owner import watch as module
from freshet.online.owner.watch import DriftWatch
from freshet.stream.codec import decode, encode
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import TableRecord
from freshet.stream.schemas import DriftAlert, OwnerState, Score
from freshet.stream.units import HOUR_MS
from tests.online.owner.drifting import (
    BACK,
    DRIFT,
    FIRST,
    LAST,
    SETTINGS,
    SHARDS,
    TOPICS,
    Log,
    expected,
    scores_of,
    settle,
    watch_of,
)

ONE, TWO, THREE = [range(4)], [[0, 2], [1, 3]], [[3], [0, 1], [2]]
known = cache(expected)


def test_the_oracle_finds_the_planted_drift_and_its_end() -> None:
    begun, *_, over = [alert for alert in known() if alert.segment == "b"]
    assert begun.state == "drift" and begun.description.startswith("b: sales are about")
    assert DRIFT < begun.detected_at_ms / HOUR_MS - 2 < DRIFT + 8
    assert over.state == "stable" and BACK < over.detected_at_ms / HOUR_MS - 2 < LAST
    assert {alert.segment for alert in known()} == {"b"}


@pytest.mark.parametrize("workers", [ONE, TWO, THREE])
@pytest.mark.parametrize("seed", [1, 2])
def test_any_number_of_workers_in_any_order_of_arrival_lead_to_the_same_alerts(
    monkeypatch: pytest.MonkeyPatch, workers: Sequence[Sequence[int]], seed: int
) -> None:
    log = Log(seed)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, workers)
        for _ in range(int(log.rng.integers(3))):
            watch.turn()
    settle(watch)
    assert log.alerts() == known()


def test_a_log_that_is_read_at_once_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(3)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, THREE)
    settle(watch_of(monkeypatch, log))
    assert log.alerts() == known()


def test_nothing_is_decided_while_one_shard_is_behind_and_all_of_it_once_it_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(4)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, LAST):
        for shards in TWO:
            # The worker of shards 1 and 3 stands still when the drift begins.
            if shards != TWO[1] or hour < DRIFT:
                log.pass_hour(hour, [shards])
        settle(watch)
    assert log.alerts() == []
    for hour in range(DRIFT, LAST):
        log.pass_hour(hour, [TWO[1]])
        settle(watch)
    assert log.alerts() == known()


@pytest.mark.parametrize("fails", ["before", "after"])
@pytest.mark.parametrize("at", [0, 1])
def test_what_could_not_be_told_is_told_again_and_the_readers_of_it_know_it_once(
    monkeypatch: pytest.MonkeyPatch, fails: str, at: int
) -> None:
    log = Log(5)
    watch = watch_of(monkeypatch, log)
    failed = 0
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, TWO)
        if hour == (DRIFT, 70)[at]:
            log.fails = [fails] * 3
        while log.fails:
            with pytest.raises(BrokerError):
                settle(watch)
            failed += 1
        settle(watch)
    assert failed == 3
    found = dict.fromkeys(map(encode, log.alerts()))
    assert [decode(DriftAlert, value) for value in found] == known()


@pytest.mark.parametrize("lost", ["before", "after"])
def test_an_owner_that_dies_at_any_hour_on_either_side_of_its_write_leaves_each_alert_once(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    log = Log(6)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, THREE)
        if not DRIFT + 4 <= hour < BACK + 6:
            continue
        # Each hour another owner begins, goes on from the topics, and dies in its first write.
        log.fails = [lost]
        died(watch_of(monkeypatch, log), log)
        log.fails = []
        if hour % 3 == 0:
            settle(watch_of(monkeypatch, log))
    settle(watch_of(monkeypatch, log))
    assert log.alerts() == known()


def died(watch: DriftWatch, log: Log) -> None:
    while log.fails:
        try:
            if not watch.turn():
                return
        except BrokerError:
            return


def test_scores_that_wait_for_their_bucket_are_read_again_by_the_next_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(7)
    for hour in range(FIRST, LAST):
        # An owner that has read the scores of one worker ends before those of the other come.
        for shards in TWO:
            log.pass_hour(hour, [shards])
            if hour % 5 == 0:
                settle(watch_of(monkeypatch, log))
    settle(watch_of(monkeypatch, log))
    assert log.alerts() == known()


def test_repeated_scores_and_words_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(8)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, TWO)
        log.pass_hour(hour, THREE)
        settle(watch)
        log.pass_hour(hour, TWO)
        log.mark(1, hour - 5)
    settle(watch)
    assert log.alerts() == known()


@pytest.mark.parametrize("kept_from", [FIRST, 71])
def test_a_state_that_is_lost_is_learnt_anew_without_telling_old_alarms_again(
    monkeypatch: pytest.MonkeyPatch, kept_from: int
) -> None:
    log = Log(9)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, 72):
        log.pass_hour(hour, TWO)
        settle(watch)
    before = log.alerts()
    assert [alert.state for alert in before] == ["drift"]
    for held in log.records.values():
        held[:] = [lost(one, kept_from) for one in held if one.topic != TOPICS.owner]
    for _ in range(2):
        settle(watch_of(monkeypatch, log))
    assert log.alerts() == before
    watch = watch_of(monkeypatch, log)
    for hour in range(72, LAST):
        log.pass_hour(hour, TWO)
        settle(watch)
    # The alarm that was told ends under its own name.
    assert [(one.alert_id, one.state) for one in log.alerts()] == [
        (before[0].alert_id, state) for state in ("drift", "stable")
    ]


def lost(record: TableRecord, kept_from: int) -> TableRecord:
    """A record of a log whose old scores are gone."""
    if record.topic != TOPICS.scores or record.value is None:
        return record
    gone = decode(Score, record.value).bucket_start_ms < kept_from * HOUR_MS
    return dataclasses.replace(record, value=None) if gone else record


def test_a_shop_younger_than_two_seasons_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(10)
    looked: list[int] = []
    watch = watch_of(monkeypatch, log)
    monitor = watch._parts.monitor
    update = monitor.update
    monkeypatch.setattr(
        monitor,
        "update",
        lambda at_ms, *_, **told: looked.append(at_ms) or update(at_ms, *_, **told),
    )
    for hour in range(45, 51):
        log.pass_hour(hour, ONE)
    settle(watch)
    assert [at_ms // HOUR_MS for at_ms in looked] == [48, 49, 50]


def test_what_was_promoted_says_nothing_and_adjusted_steps_are_seen_as_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(11)
    watch = watch_of(monkeypatch, log)
    seen: list[tuple[list[str], set[str]]] = []

    def update(_: int, scores: list[Score], **told: object) -> list[DriftAlert]:
        steps = [step.forecast_id for score in scores for step in score.steps]
        seen.append((steps, set(told["left_out"])))  # type: ignore[call-overload]
        return []

    monkeypatch.setattr(watch._parts.monitor, "update", update)
    one, two, three = scores_of(FIRST)[:3]
    adjusted = [replace(step, adjusted=True) for step in two.steps]
    beside = [replace(step, forecast_id="beside") for step in two.steps]
    log.append(TOPICS.scores, b"1", encode(replace(one, promoted=True)))
    log.append(TOPICS.scores, b"2", encode(replace(two, steps=adjusted, unadjusted=beside)))
    log.append(TOPICS.scores, b"3", encode(replace(three, steps=adjusted)))
    for shard in range(SHARDS):
        log.mark(shard, FIRST + 1)
    settle(watch)
    ((steps, left_out),) = seen
    assert sorted(steps) == sorted([one.steps[0].forecast_id, "beside"])
    assert left_out == {one.item_id}


def states(log: Log) -> list[OwnerState]:
    return [decode(OwnerState, value) for value in log.values(TOPICS.owner)]


def test_a_small_state_is_written_each_hour_and_a_large_one_seldom_and_with_every_alert(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(12)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, FIRST + 4):
        log.pass_hour(hour, ONE)
        settle(watch)
    assert [one.decided_until_ms // HOUR_MS for one in states(log)] == [49, 50, 51, 52]
    assert set(states(log)[-1].tensions) == {"a", "b", "c", "all"}

    monkeypatch.setattr(module, "BYTES_A_BUCKET", 1)
    for hour in range(FIRST + 4, LAST):
        log.pass_hour(hour, ONE)
        settle(watch)
    told = {alert.detected_at_ms // HOUR_MS - 1 for alert in known()}
    assert {one.decided_until_ms // HOUR_MS for one in states(log)[4:]} == told
    # Whoever goes on from there comes to the same.
    settle(watch_of(monkeypatch, log))
    assert log.alerts() == known()


def test_records_that_cannot_be_read_and_foreign_ones_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(13)
    watch = watch_of(monkeypatch, log)
    for hour in range(FIRST, LAST):
        for topic in (TOPICS.scores, TOPICS.scored):
            log.append(topic, b"x", b"{")
            log.append(topic, b"x", None)
        stray = scores_of(hour)[0]
        for over in ({"resolution_ms": 60_000}, {"bucket_start_ms": hour * HOUR_MS + 1}):
            log.append(TOPICS.scores, b"a0|n", encode(replace(stray, **over)))
        log.pass_hour(hour, TWO)
        settle(watch)
    assert log.alerts() == known()


def test_who_lost_the_lease_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(14)
    watch = watch_of(monkeypatch, log)
    held = [True]
    object.__setattr__(watch._parts, "holds", lambda: held[0])
    for hour in range(FIRST, 72):
        held[0] = hour < DRIFT
        log.pass_hour(hour, ONE)
        settle(watch)
    assert log.alerts() == [] and states(log)[-1].decided_until_ms == DRIFT * HOUR_MS
    settle(watch_of(monkeypatch, log))
    assert log.alerts() == [one for one in known() if one.state == "drift"]


def test_segments_of_another_kind_are_learnt_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(15)
    for hour in range(FIRST, FIRST + 4):
        log.pass_hour(hour, ONE)
    settle(watch_of(monkeypatch, log))
    by_region = SETTINGS.model_copy(
        update={"drift": SETTINGS.drift.model_copy(update={"segment_by": "region"})}
    )
    assert watch_of(monkeypatch, log, by_region)._parts.monitor.segments.names == []
    assert watch_of(monkeypatch, log)._parts.monitor.segments.names == ["a", "b", "c"]
