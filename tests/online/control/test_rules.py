"""Requests for training: when, how often, and the same id for the same cause."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.control.requests import SUPERSEDED
from freshet.online.control.rules import MAX_ATTEMPTS, MAX_OUTSTANDING_COOLDOWNS, RetrainRules
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.units import DAY_MS, HOUR_MS


def alert(
    segment: str = "shoes", state: Any = "drift", at: int = 10, alert_id: str = ""
) -> DriftAlert:
    return DriftAlert(
        alert_id=alert_id or f"{segment}-{at}",
        segment=segment,
        state=state,
        kind="level",
        detector="adwin",
        detected_at_ms=at * HOUR_MS,
        onset_ms=(at - 4) * HOUR_MS,
        size=1.0,
        weights_version="base",
        description="",
        action="",
    )


def answer(request: RetrainRequest, kind: Any) -> ModelEvent:
    return ModelEvent(kind=kind, version="v", at_ms=0, request_id=request.request_id)


def rules(**over: int) -> RetrainRules:
    usual = {"cooldown_ms": 12 * HOUR_MS, "min_new_data_ms": 6 * HOUR_MS, "schedule_ms": 0}
    return RetrainRules(**(usual | over))


def asked(state: RetrainRules, now: int) -> RetrainRequest:
    request = state.due(now * HOUR_MS)
    assert request is not None
    state.take_request(request)
    return request


def test_a_drift_asks_once_there_is_data_enough_since_its_onset() -> None:
    state = rules()
    state.take_drift(alert(at=10))
    assert state.due(11 * HOUR_MS) is None
    request = asked(state, 12)
    assert (request.reason, request.segments, request.alert_ids) == (
        "drift",
        ["shoes"],
        ["shoes-10"],
    )


def hashed(*parts: str) -> str:
    return xxhash.xxh3_64_hexdigest("\x1f".join(parts).encode())


def test_a_request_says_why_when_and_for_whom_under_a_name_that_follows_from_the_alerts() -> None:
    state = rules()
    state.take_drift(alert("hats", alert_id="z1"))
    state.take_drift(alert("shoes", alert_id="a9"))
    request = RetrainRequest(
        request_id="drift-" + hashed("a9", "z1", "0"),
        requested_at_ms=12 * HOUR_MS + 1,
        reason="drift",
        segments=["hats", "shoes"],
        alert_ids=["a9", "z1"],
    )
    assert state.due(12 * HOUR_MS + 1) == request
    state.take_request(request)
    state.take_event(answer(request, "rejected"))
    # A newer drift goes along with the second attempt of the others.
    state.take_drift(alert("caps", at=11, alert_id="b5"))
    again = state.due(24 * HOUR_MS + 1)
    assert again is not None
    assert again.request_id == "drift-" + hashed("a9", "b5", "z1", "1")
    assert again.segments == ["caps", "hats", "shoes"]


def test_a_scheduled_request_is_named_by_its_slot_and_is_about_no_segment() -> None:
    state = rules(cooldown_ms=1, schedule_ms=DAY_MS)
    assert state.due(7 * DAY_MS + 5) is None, "the schedule begins when it is first looked at"
    assert state.due(8 * DAY_MS + 3) == RetrainRequest(
        request_id="schedule-" + hashed("8"), requested_at_ms=8 * DAY_MS + 3, reason="schedule"
    )


def test_a_warning_asks_for_nothing_and_a_drift_that_is_over_neither() -> None:
    state = rules()
    state.take_drift(alert(state="warning"))
    assert state.due(20 * HOUR_MS) is None
    state.take_drift(alert(at=11))
    state.take_drift(alert(state="stable", at=12))
    assert state.due(20 * HOUR_MS) is None


def test_a_feed_that_broke_is_nothing_to_train_on() -> None:
    state = rules()
    state.take_drift(msgspec.structs.replace(alert(), kind="data"))
    assert state.due(20 * HOUR_MS) is None


def test_a_redelivered_alert_does_not_reopen_a_drift_that_is_over() -> None:
    state = rules()
    # The end was noticed at 12, and says that it began at 8: before the alert of 10.
    for record in (alert(at=10), alert(state="stable", at=12), alert(at=10)):
        state.take_drift(record)
    assert state.due(30 * HOUR_MS) is None


def test_each_segment_has_a_newest_alert_of_its_own() -> None:
    state = rules()
    for record in (alert("hats", state="stable", at=20), alert("shoes", at=10), alert("caps")):
        state.take_drift(record)
    state.take_drift(alert("caps", state="stable", at=11))
    assert asked(state, 30).segments == ["shoes"]


def test_only_one_request_is_outstanding_and_the_cooldown_holds_after_its_answer() -> None:
    state = rules()
    state.take_drift(alert())
    request = asked(state, 12)
    state.take_drift(alert("hats", at=13))
    assert state.due(30 * HOUR_MS) is None, "the first is not answered"
    state.take_event(answer(request, "promoted"))
    assert state.due(23 * HOUR_MS) is None, "the cool-down"
    assert asked(state, 24).segments == ["hats"], "the shoes were trained for"


def test_an_unanswered_request_does_not_stop_training_for_ever() -> None:
    state = rules()
    state.take_drift(alert())
    asked(state, 12)
    state.take_drift(alert("hats", at=13))
    late = 12 + 12 * MAX_OUTSTANDING_COOLDOWNS
    assert state.due((late - 1) * HOUR_MS) is None
    assert state.due(late * HOUR_MS) is not None


def test_a_rejected_challenger_is_tried_again_under_another_id_and_not_for_ever() -> None:
    state = rules()
    state.take_drift(alert())
    ids = []
    for attempt in range(MAX_ATTEMPTS):
        request = asked(state, 12 + 12 * attempt)
        state.take_event(answer(request, "rejected"))
        ids.append(request.request_id)
    assert len(set(ids)) == MAX_ATTEMPTS
    assert state.due(500 * HOUR_MS) is None


def test_the_schedule_asks_once_a_slot_and_does_not_make_up_for_the_past() -> None:
    state = rules(cooldown_ms=1, schedule_ms=DAY_MS, started_at_ms=1_000 * DAY_MS + 5)
    assert state.due(1_000 * DAY_MS + 6) is None
    request = asked(state, 1_001 * 24)
    assert request.reason == "schedule"
    state.take_event(answer(request, "rejected"))
    assert state.due((1_001 * 24 + 23) * HOUR_MS) is None
    assert asked(state, 1_002 * 24).request_id != request.request_id


def test_a_rollback_by_hand_neither_blocks_nor_cools_down() -> None:
    state = rules()
    state.take_request(
        RetrainRequest(request_id="r", requested_at_ms=11 * HOUR_MS, reason="rollback")
    )
    state.take_drift(alert())
    assert state.due(12 * HOUR_MS) is not None


@given(st.lists(st.integers(0, 5), max_size=12), st.randoms(use_true_random=False))
def test_redelivery_leads_to_the_same_request(again: list[int], random: Any) -> None:
    records = [alert(name, at=10) for name in ("a", "b", "c", "d", "e", "f")]
    once, often = rules(), rules()
    for record in records:
        once.take_drift(record)
    repeated = [*records, *(records[i] for i in again)]
    random.shuffle(repeated)
    for record in repeated:
        often.take_drift(record)
    assert once.due(40 * HOUR_MS) == often.due(40 * HOUR_MS) is not None


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 30), st.booleans()), max_size=60)
)
def test_requests_keep_the_cooldown_whatever_comes(events: list[tuple[str, int, bool]]) -> None:
    state, now, times = rules(), 100, []
    for segment, hours, answered in events:
        now += hours
        state.take_drift(alert(segment, at=now))
        if (request := state.due(now * HOUR_MS)) is not None:
            times.append(now)
            state.take_request(request)
            if answered:
                state.take_event(answer(request, "rejected"))
    assert all(later - earlier >= 12 for earlier, later in itertools.pairwise(times))


def test_a_restart_that_reads_the_topics_asks_for_nothing_twice() -> None:
    first = rules()
    first.take_drift(alert())
    request = asked(first, 12)
    second = rules()
    second.take_event(answer(request, "promoted"))
    second.take_drift(alert())
    second.take_request(request)
    assert second.due(100 * HOUR_MS) is None


def test_a_drift_of_too_little_data_goes_along_with_one_that_has_enough() -> None:
    state = rules()
    state.take_drift(alert("shoes", at=10))
    state.take_drift(alert("hats", at=13))
    # The shoes drift since hour 6, the hats since hour 9: six hours after it is 12 and 15.
    assert state.due(12 * HOUR_MS - 1) is None
    request = asked(state, 12)
    assert request.segments == ["hats", "shoes"]
    assert request.alert_ids == ["hats-13", "shoes-10"]


def test_the_cooldown_ends_on_the_dot() -> None:
    state = rules()
    state.take_drift(alert())
    state.take_event(answer(asked(state, 12), "rejected"))
    assert state.due(24 * HOUR_MS - 1) is None
    assert state.due(24 * HOUR_MS) is not None


def test_an_unanswered_request_stops_the_next_one_for_four_cooldowns_on_the_dot() -> None:
    state = rules()
    state.take_drift(alert())
    asked(state, 12)
    assert state.due((12 + 4 * 12) * HOUR_MS - 1) is None
    assert state.due((12 + 4 * 12) * HOUR_MS) is not None


def test_a_drift_is_trained_for_in_vain_three_times() -> None:
    state = rules()
    state.take_drift(alert())
    for number in range(3):
        state.take_event(answer(asked(state, 12 + 12 * number), "rejected"))
    assert state.due(500 * HOUR_MS) is None


def test_a_superseded_request_is_no_attempt() -> None:
    state = rules()
    state.take_drift(alert())
    for number in range(3):
        told = answer(asked(state, 12 + 12 * number), "rejected")
        state.take_event(msgspec.structs.replace(told, reason=SUPERSEDED))
    assert state.due(500 * HOUR_MS) is not None


def test_a_drift_whose_version_failed_its_probation_is_trained_for_again() -> None:
    state = rules()
    state.take_drift(alert())
    request = asked(state, 12)
    state.take_event(msgspec.structs.replace(answer(request, "promoted"), version="v7"))
    assert state.due(100 * HOUR_MS) is None
    failed = ModelEvent(kind="rolled_back", version="base", at_ms=0, parent="v7", gate={"x": 1.0})
    state.take_event(failed)
    again = state.due(100 * HOUR_MS)
    assert again is not None and again.request_id != request.request_id


def test_while_a_challenger_is_watched_nothing_more_is_asked_for_two_weeks_at_most() -> None:
    state = rules()
    state.take_drift(alert())
    request = asked(state, 12)
    told = msgspec.structs.replace(answer(request, "trial"), at_ms=20 * HOUR_MS)
    state.take_event(told)
    assert state.due((20 + 14 * 24) * HOUR_MS - 1) is None
    assert state.due((20 + 14 * 24) * HOUR_MS) is not None
    state.take_event(answer(request, "rejected"))
    assert state.due(100 * HOUR_MS) is not None


def test_a_drift_comes_before_the_schedule_and_the_schedule_counts_from_it() -> None:
    state = rules(cooldown_ms=1, schedule_ms=DAY_MS, started_at_ms=0)
    state.take_drift(alert())
    request = asked(state, 30)
    assert request.reason == "drift"
    state.take_event(answer(request, "promoted"))
    assert state.due(47 * HOUR_MS) is None, "this day has been trained for"
    assert asked(state, 48).reason == "schedule"


def test_without_a_schedule_and_without_a_drift_nothing_is_due() -> None:
    assert rules().due(10**15) is None


def test_a_slot_has_one_id_whenever_in_it_the_clock_is_read() -> None:
    early, late = (
        rules(cooldown_ms=1, schedule_ms=DAY_MS, started_at_ms=0).due(5 * DAY_MS + more)
        for more in (0, 7)
    )
    assert early is not None and late is not None
    assert early.request_id == late.request_id


def test_a_clock_that_was_set_back_begins_the_schedule_again() -> None:
    state = rules(cooldown_ms=1, schedule_ms=DAY_MS, started_at_ms=1_000 * DAY_MS)
    assert state.due(10 * DAY_MS) is None
    assert asked(state, 11 * 24).reason == "schedule"


def test_a_slot_that_passed_while_nobody_asked_is_due_at_once() -> None:
    state = rules(cooldown_ms=1, schedule_ms=DAY_MS, started_at_ms=9 * DAY_MS)
    old = RetrainRequest(request_id="old", requested_at_ms=5 * DAY_MS, reason="schedule")
    state.take_request(old)
    state.take_event(answer(old, "rejected"))
    assert asked(state, 9 * 24).reason == "schedule"


def test_alerts_of_one_moment_count_as_they_come() -> None:
    state = rules()
    state.take_drift(alert(at=10))
    state.take_drift(alert(state="stable", at=10))
    assert state.due(30 * HOUR_MS) is None
    state.take_drift(alert(at=10))
    assert state.due(30 * HOUR_MS) is not None


def test_a_warning_after_a_drift_does_not_end_it() -> None:
    state = rules()
    state.take_drift(alert(at=10))
    state.take_drift(alert(state="warning", at=11))
    assert asked(state, 20).alert_ids == ["shoes-10"]


def test_a_drift_waits_neither_for_the_schedules_cool_down_nor_for_its_challenger() -> None:
    state = rules(schedule_ms=7 * DAY_MS, started_at_ms=0)
    scheduled = asked(state, 7 * 24)
    told = msgspec.structs.replace(answer(scheduled, "trial"), at_ms=7 * DAY_MS)
    state.take_event(told)
    state.take_drift(alert(at=7 * 24 - 2))
    assert asked(state, 7 * 24 + 1).reason == "drift"


def test_the_schedule_waits_for_a_drifts_cool_down_and_for_its_challenger() -> None:
    state = rules(schedule_ms=DAY_MS, started_at_ms=0)
    state.take_drift(alert(at=40))
    request = asked(state, 47)
    assert state.due(49 * HOUR_MS) is None, "it is outstanding"
    state.take_event(msgspec.structs.replace(answer(request, "trial"), at_ms=48 * HOUR_MS))
    assert state.due(8 * DAY_MS) is None, "its challenger is watched"
    state.take_event(answer(request, "rejected"))
    state.take_drift(alert(state="stable", at=60))
    assert state.due(8 * DAY_MS).reason == "schedule"  # type: ignore[union-attr]


@given(st.integers(1, 40), st.integers(0, 200))
def test_two_controls_and_one_that_begins_anew_name_a_slots_request_alike(
    days: int, later: int
) -> None:
    state, other = (rules(cooldown_ms=1, schedule_ms=7 * DAY_MS, started_at_ms=0) for _ in "ab")
    once = state.due((7 + days) * DAY_MS)
    again = other.due((7 + days) * DAY_MS + later)
    assert once is not None and again is not None and once.request_id == again.request_id
    reborn = rules(cooldown_ms=1, schedule_ms=7 * DAY_MS)
    reborn.take_request(once)
    reborn.take_request(again)
    reborn.take_event(answer(once, "rejected"))
    end_of_slot = ((7 + days) // 7 + 1) * 7 * DAY_MS
    assert reborn.due(end_of_slot - 1) is None
