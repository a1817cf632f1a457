"""A record that cannot be used is sent, counted and said, and never holds up the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from freshet.stream.config import KafkaSettings
from freshet.stream.events import letters as module
from freshet.stream.events.dead_letter import Source, dead_letter, limit_of
from freshet.stream.events.letters import Letters
from freshet.stream.kafka import Delivery, Outgoing
from freshet.stream.kafka.publisher import Refusal

KAFKA = KafkaSettings(max_record_bytes=70_000)
SOURCE = Source("drift", 3, 17, 1_000, b"k", b"{", [("trace", b"1")])


class Post:
    """A delivery that keeps what it was given, and answers as it is told."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.given: list[tuple[list[Outgoing], bool]] = []

    def deliver(self, records: Sequence[Outgoing], *, may_lose: bool = False) -> bool:
        self.given.append((list(records), may_lose))
        return self.answers


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[Refusal]:
    found: list[Refusal] = []
    monkeypatch.setattr(module, "give_up", found.append)
    return found


def test_a_letter_says_what_was_wrong_in_500_characters_and_work_does_not_wait_for_it(
    given_up: list[Refusal],
) -> None:
    post, registry = Post(answers=True), CollectorRegistry()
    letters = Letters(KAFKA, cast("Delivery", post), registry)
    assert letters.send(SOURCE, "control", ValueError("e" * 501))
    letter = dead_letter(SOURCE, "control", "ValueError", "e" * 500, limit_of(KAFKA))
    assert post.given == [([letter], True)]
    assert given_up == []
    assert letters.send(SOURCE, "control", ValueError("again"))
    assert registry.get_sample_value("freshet_dead_letters_total", {"topic": "drift"}) == 2


def test_a_letter_larger_than_a_record_may_be_is_cut() -> None:
    post = Post(answers=True)
    large = Source("drift", 3, 17, 1_000, b"k", b"v" * 900_000, [])
    Letters(KAFKA, cast("Delivery", post), CollectorRegistry()).send(large, "s", ValueError(""))
    (((letter,), _),) = post.given
    assert letter.value is not None and 0 < len(letter.value) < limit_of(KAFKA) < 900_000


def test_a_letter_that_the_end_of_the_process_overtakes_is_given_up_with_its_bytes(
    given_up: list[Refusal],
) -> None:
    letters = Letters(KAFKA, cast("Delivery", Post(answers=False)), CollectorRegistry())
    assert not letters.send(SOURCE, "control", ValueError("e"))
    reason = "the process ended before the broker answered"
    assert given_up == [Refusal("drift.dlq", b"k", b"{", reason, unfit=False)]
