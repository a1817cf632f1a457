"""The ledger says the same whatever order and however often its records come."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.learn.ledger import Ledger
from freshet.online.weights.assignment import Assignment
from freshet.stream.errors import RegistryError
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest, ServingVersion


def request(number: int, reason: Any = "drift", alert_ids: tuple[str, ...] = ()) -> RetrainRequest:
    return RetrainRequest(
        request_id=f"r{number}", requested_at_ms=number, reason=reason, alert_ids=list(alert_ids)
    )


def event(kind: Any, at_ms: int, version: str = "v1", request_id: str = "") -> ModelEvent:
    return ModelEvent(kind=kind, version=version, at_ms=at_ms, request_id=request_id)


def ledger(*records: RetrainRequest | ModelEvent | DriftAlert) -> Ledger:
    made = Ledger(lambda event: None)
    for record in records:
        if isinstance(record, RetrainRequest):
            made.take_request(record)
        elif isinstance(record, ModelEvent):
            made.take_event(record)
        else:
            made.take_drift(record)
    return made


RECORDS = [
    request(1),
    request(2, "rollback"),
    request(3),
    request(4),
    event("training", 5, request_id="r3"),
    event("promoted", 6, "v1", "r3"),
    event("confirmed", 7, "v1"),
    event("promoted", 8, "v2"),
    event("swapped", 9, "v2"),
]


@given(st.permutations(RECORDS), st.lists(st.sampled_from(RECORDS), max_size=8))
def test_order_and_redelivery_change_nothing(records: list[Any], again: list[Any]) -> None:
    book = ledger(*records, *again)
    assert book.requests.open_training() == request(4)
    assert book.serving == event("promoted", 8, "v2")
    assert book.on_probation() == event("promoted", 8, "v2")


def test_what_was_taken_back_for_some_is_on_probation_where_it_serves_still() -> None:
    promotion = event("promoted", 8, "v2")
    serves = [ServingVersion(version="v2"), ServingVersion(version="v1", segments=["toys"])]
    back = msgspec.structs.replace(event("rolled_back", 9, "v1"), parent="v2", serves=serves)
    older = event("promoted", 1, "v2")
    for records in itertools.permutations([older, promotion, back]):
        assert ledger(*records).on_probation() == promotion
    assert ledger(promotion, back).assignment == Assignment("v2", "v1", ("toys",))
    assert ledger(promotion, back, event("confirmed", 10, "v2")).on_probation() is None
    whole = msgspec.structs.replace(back, serves=[])
    assert ledger(promotion, whole).on_probation() is None
    assert ledger(back).on_probation() is None, "when it was promoted nobody knows"


def test_probation_ends_with_a_confirmation_or_a_rollback() -> None:
    assert ledger(event("promoted", 1)).on_probation() is not None
    assert ledger(event("promoted", 1), event("confirmed", 2)).on_probation() is None
    assert ledger(event("promoted", 1), event("rolled_back", 2, "base")).on_probation() is None


def test_the_onset_of_a_request_is_that_of_its_youngest_drift() -> None:
    alerts = [
        DriftAlert(
            alert_id=name,
            segment=name,
            state="drift",
            kind="level",
            detector="d",
            detected_at_ms=9,
            onset_ms=onset_ms,
            size=1.0,
            weights_version="base",
            description="",
            action="",
        )
        for name, onset_ms in (("a", 3), ("b", 5))
    ]
    book = ledger(*alerts)
    assert book.onset_ms(request(1, alert_ids=("a", "b", "unknown"))) == 5
    assert book.onset_ms(request(1)) is None


def test_of_two_events_of_one_moment_the_one_read_later_serves() -> None:
    first, second = event("promoted", 5, "v1"), event("rolled_back", 5, "base")
    assert ledger(first, second).serving == second
    assert ledger(second, first).serving == first


def test_an_onset_stays_as_it_was_first_told() -> None:
    told = DriftAlert(
        alert_id="a",
        segment="s",
        state="drift",
        kind="level",
        detector="d",
        detected_at_ms=9,
        onset_ms=3,
        size=1.0,
        weights_version="base",
        description="",
        action="",
    )
    book = ledger(told, msgspec.structs.replace(told, onset_ms=8))
    assert book.onset_ms(request(1, alert_ids=("a",))) == 3


def test_the_confirmation_of_another_version_ends_no_probation() -> None:
    book = ledger(event("promoted", 1, "v1"), event("confirmed", 2, "v0"))
    assert book.on_probation() == event("promoted", 1, "v1")


def test_a_ledger_begins_with_nothing_and_is_told_everything() -> None:
    for number in range(1, 4):
        with pytest.raises(TypeError):
            Ledger(but_not_v9, *([None] * number))  # type: ignore[call-arg]
    book = ledger()
    assert (book.serving, book.on_probation(), book.next_refusal()) == (None, None, None)


def test_it_is_counted_what_was_said_of_versions() -> None:
    book = ledger(event("promoted", 1), event("promoted", 2), event("swapped", 3))
    assert book.said == {"promoted": 2, "swapped": 1}


def but_not_v9(event: ModelEvent) -> None:
    """Every announcement counts but that of one version."""
    if event.version == "v9":
        raise RegistryError("no version v9")


def test_what_the_registry_does_not_have_neither_serves_nor_outdates_what_does() -> None:
    book = Ledger(but_not_v9)
    book.take_event(event("promoted", 90, "v9"))
    book.take_event(event("promoted", 10, "v1"))
    assert book.serving == book.on_probation() == event("promoted", 10, "v1")
    refused = book.next_refusal()
    assert refused is not None
    assert (refused.event, refused.reason) == (event("promoted", 90, "v9"), "no version v9")
    assert book.next_refusal() is None


def test_a_confirmation_that_may_not_be_believed_ends_no_probation() -> None:
    """It lacks what proves that it is of this version."""

    def check(told: ModelEvent) -> None:
        if not told.manifest_sha256:
            raise RegistryError("no proof")

    book = Ledger(check)
    promoted = msgspec.structs.replace(event("promoted", 1), manifest_sha256="m")
    book.take_event(promoted)
    book.take_event(event("confirmed", 2))
    assert book.on_probation() == promoted
    book.take_event(msgspec.structs.replace(event("confirmed", 3), manifest_sha256="m"))
    assert book.on_probation() is None


def test_what_was_refused_serves_once_the_registry_has_it() -> None:
    missing = [True]

    def check(told: ModelEvent) -> None:
        if missing[0]:
            raise RegistryError("the registry is away")

    book = Ledger(check)
    book.take_event(event("promoted", 10, "v1"))
    book.reconsider()
    assert book.serving is None
    missing[0] = False
    book.reconsider()
    assert book.serving == event("promoted", 10, "v1")


def test_an_answer_is_taken_into_the_requests() -> None:
    book = ledger(request(3), event("rejected", 4, request_id="r3"))
    assert book.requests.answer(request(3)) == "rejected"
    assert book.serving is None
