"""The request ledger says the same whatever order and however often its records come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.control.requests import SUPERSEDED, RequestLedger
from freshet.stream.schemas import ModelEvent, RetrainRequest, ServingVersion


def request(number: int, reason: Any = "drift", alert_ids: tuple[str, ...] = ()) -> RetrainRequest:
    return RetrainRequest(
        request_id=f"r{number}", requested_at_ms=number, reason=reason, alert_ids=list(alert_ids)
    )


def event(kind: Any, request_id: str) -> ModelEvent:
    return ModelEvent(kind=kind, version="v1", at_ms=9, request_id=request_id)


def ledger(*records: RetrainRequest | ModelEvent) -> RequestLedger:
    made = RequestLedger()
    for record in records:
        if isinstance(record, RetrainRequest):
            made.take_request(record)
        else:
            made.take_event(record)
    return made


RECORDS = [
    request(1),
    request(2, "rollback"),
    request(3),
    request(4),
    request(5, "rollback"),
    event("training", "r3"),
    event("promoted", "r3"),
    event("training", "r4"),
    event("swapped", "r4"),
]


@given(st.permutations(RECORDS), st.lists(st.sampled_from(RECORDS), max_size=8))
def test_order_and_redelivery_change_nothing(records: list[Any], again: list[Any]) -> None:
    book = ledger(*records, *again)
    assert book.open_training() == request(4)
    assert {one.request_id for one in book.open_trainings()} == {"r1", "r4"}
    assert [one.request_id for one in book.superseded()] == ["r1"]
    assert book.open_rollback() == request(2, "rollback")
    assert book.answer(request(3)) == "promoted"


def test_an_older_request_than_one_that_was_answered_is_superseded() -> None:
    book = ledger(request(1), request(2), event("rejected", "r2"))
    assert book.open_training() is None
    assert book.superseded() == [request(1)]


def test_of_two_requests_of_one_moment_every_process_does_the_same_one() -> None:
    one, other = (
        RetrainRequest(request_id=name, requested_at_ms=1, reason="manual") for name in "ab"
    )
    assert ledger(one, other).open_training() == ledger(other, one).open_training() == other


def test_an_alert_names_the_requests_that_it_led_to() -> None:
    first, second = request(1, alert_ids=("a", "b")), request(2, alert_ids=("b",))
    book = ledger(first, second)
    assert (book.of_alert("a"), book.of_alert("b"), book.of_alert("c")) == (
        [first],
        [first, second],
        [],
    )


def test_the_first_record_of_an_id_counts_and_so_does_its_first_answer() -> None:
    first = request(1, alert_ids=("a",))
    book = ledger(first, request(1, "rollback"), event("rejected", "r1"), event("promoted", "r1"))
    assert book.trainings() == [first]
    assert book.answer(first) == "rejected"


@pytest.mark.parametrize("kind", ["promoted", "rejected", "rolled_back"])
def test_these_events_answer_the_request_that_they_name(kind: str) -> None:
    assert ledger(request(1), event(kind, "r1")).open_training() is None
    assert ledger(request(1), event(kind, "")).answer(request(1)) is None


@pytest.mark.parametrize("kind", ["training", "confirmed", "swapped", "swap_failed"])
def test_other_events_are_no_answers(kind: str) -> None:
    assert ledger(request(1), event(kind, "r1")).open_training() == request(1)


def test_an_event_that_names_no_request_answers_none() -> None:
    unnamed = RetrainRequest(request_id="", requested_at_ms=1, reason="manual")
    assert ledger(unnamed, event("promoted", "")).answer(unnamed) is None


def test_rollbacks_are_done_one_after_the_other_oldest_first() -> None:
    book = ledger(request(5, "rollback"), request(2, "rollback"))
    assert book.open_rollback() == request(2, "rollback")
    book.take_event(event("rolled_back", "r2"))
    assert book.open_rollback() == request(5, "rollback")
    book.take_event(event("rejected", "r5"))
    assert book.open_rollback() is None


def test_every_reason_but_a_rollback_asks_for_training() -> None:
    asked = [request(1, "drift"), request(2, "schedule"), request(3, "manual")]
    book = ledger(*asked, request(4, "rollback"))
    assert book.trainings() == book.open_trainings() == asked
    assert book.superseded() == asked[:2]


@given(st.permutations([request(1, "drift"), request(2, "manual"), request(3, "schedule")]))
def test_the_schedule_makes_no_other_request_needless_and_comes_after_it(
    records: list[Any],
) -> None:
    book = ledger(*records)
    assert book.superseded() == [request(1)]
    assert book.open_training() == request(2, "manual")
    book.take_event(event("rejected", "r2"))
    assert book.open_training() == request(3, "schedule")
    book.take_request(request(4, "schedule"))
    assert book.open_training() == request(4, "schedule")


@given(st.permutations([request(1), request(2, "schedule"), request(3), request(4, "schedule")]))
def test_the_schedule_yields_to_what_was_asked_for_since_and_has_no_answer(
    records: list[Any],
) -> None:
    book = ledger(*records)
    yielding = [book.yields(one) for one in sorted(records, key=lambda one: one.request_id)]
    assert yielding == [False, True, False, False]
    book.take_event(event("rejected", "r3"))
    assert not book.yields(request(2, "schedule"))


def superseded(request_id: str) -> ModelEvent:
    return ModelEvent(
        kind="rejected", version="v", at_ms=9, request_id=request_id, reason=SUPERSEDED
    )


def judged(request_id: str, kind: Any = "rejected") -> ModelEvent:
    return ModelEvent(
        kind=kind, version="v", at_ms=9, request_id=request_id, reason=SUPERSEDED[:3], gate={"x": 1}
    )


def test_a_superseded_request_was_no_attempt_and_one_that_failed_was() -> None:
    asked = [request(number, alert_ids=("a",)) for number in range(4)]
    book = ledger(*asked, superseded("r0"), event("rejected", "r1"), judged("r2"))
    assert book.attempts("a") == asked[1:]
    assert book.answer(asked[0]) == "rejected"


def test_judged_are_those_before_a_verdict_rests_on_for_the_alert_that_has_most() -> None:
    one = request(1, alert_ids=("a",))
    two = request(2, alert_ids=("a", "b"))
    three = request(3, alert_ids=("b", "c"))
    # Training that failed has judged nobody, and who asks for no alert has no attempts.
    book = ledger(one, two, three, request(4), judged("r1"), judged("r2"), event("rejected", "r3"))
    assert [book.judged_before(each) for each in (one, two, three, request(4))] == [1, 1, 1, 0]
    assert book.judged_before(request(9, alert_ids=("a",))) == 2


def trial(request_id: str, at_ms: int, days: float) -> ModelEvent:
    return ModelEvent(
        kind="trial", version="v", at_ms=at_ms, request_id=request_id, gate={"days": days}
    )


@given(st.permutations([trial("r1", 7, 0.5), trial("r1", 9, 1.5), request(1), request(2)]))
def test_a_trial_is_no_answer_and_says_since_when_and_how_far_it_is(records: list[Any]) -> None:
    book = ledger(*records)
    assert book.answer(request(1)) is None
    assert (book.on_trial_ms(request(1)), book.trial_days("r1")) == (7, 1.5)
    assert (book.on_trial_ms(request(2)), book.trial_days("r2")) == (None, 0.0)
    book.take_event(event("promoted", "r1"))
    assert book.on_trial_ms(request(1)) is None


def test_the_scheduled_request_before_one_is_the_newest_of_its_kind() -> None:
    asked = [request(1, "schedule"), request(3), request(2, "schedule"), request(5, "schedule")]
    book = ledger(*asked)
    assert book.scheduled_before(asked[3]) == asked[2]
    assert book.scheduled_before(asked[0]) is None
    # Nobody looked at a challenger for it, so that nothing of its year is spent.
    book.take_event(superseded("r2"))
    assert book.scheduled_before(asked[3]) == asked[0]
    book.take_event(trial("r2", 4, 1.0))
    assert book.scheduled_before(asked[3]) == asked[2]


@given(st.permutations([0, 1, 2, 3]))
def test_what_its_probation_took_back_is_undone_and_what_a_person_took_back_is_not(
    order: list[int],
) -> None:
    def promoted(request_id: str, version: str) -> ModelEvent:
        return ModelEvent(kind="promoted", version=version, at_ms=1, request_id=request_id)

    def taken_back(version: str, gate: dict[str, Any]) -> ModelEvent:
        return ModelEvent(kind="rolled_back", version="base", at_ms=2, parent=version, gate=gate)

    events = [
        promoted("r1", "v1"),
        promoted("r2", "v2"),
        taken_back("v1", {"gain": -0.5}),
        taken_back("v2", {}),
    ]
    book = ledger(request(1), request(2), request(3), *(events[place] for place in order))
    assert [book.undone(request(number)) for number in (1, 2, 3)] == [True, False, False]


def test_what_was_taken_back_for_some_and_serves_others_is_not_undone() -> None:
    promoted = ModelEvent(kind="promoted", version="v1", at_ms=1, request_id="r1")
    back = ModelEvent(
        kind="rolled_back",
        version="base",
        at_ms=2,
        parent="v1",
        gate={"gain": -0.1},
        serves=[ServingVersion(version="v1"), ServingVersion(version="base", segments=["toys"])],
    )
    assert not ledger(request(1), promoted, back).undone(request(1))
