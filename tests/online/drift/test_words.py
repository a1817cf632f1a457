"""What an alarm says is a sentence that a person believes."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.drift.words import ACTIONS, ALL, describe, share_in_words


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "less than a third of"),
        (0.5, "about half of"),
        (0.75, "about a quarter less than"),
        (1.25, "about a quarter more than"),
        (1.6, "about one and a half times"),
        (2.2, "about twice"),
        (3.0, "about three times"),
        (8.99, "more than three times"),
    ],
)
def test_a_factor_is_said_in_words_and_bounded(share: float, words: str) -> None:
    assert share_in_words(share) == words


@pytest.mark.parametrize(
    ("kind", "size", "share", "sentence"),
    [
        ("level", 2.0, 1.6, "b: sales are about one and a half times what was forecast"),
        ("level", -2.0, 0.5, "b: sales are about half of what was forecast"),
        # The pooled departure and the share disagree: then the side alone is said.
        ("level", 2.0, 0.9, "b: sales run above the forecasts"),
        ("level", -2.0, None, "b: sales run below the forecasts"),
        ("spread", 2.0, None, "b: sales scatter more about the forecasts than these say"),
        ("timing", 2.0, None, "b: sales fall at other times of the day than forecast"),
        (
            "data",
            -4.0,
            None,
            "b: nothing was sold in the last 2 buckets, though sales were forecast",
        ),
    ],
)
def test_each_kind_of_alarm_says_what_it_is(
    kind: Any, size: float, share: float | None, sentence: str
) -> None:
    assert describe("b", kind, size, share) == sentence
    assert describe(ALL, kind, size, share) == sentence.replace("b:", "the whole shop:")


def test_broken_data_are_never_trained_on() -> None:
    assert "do not train" in ACTIONS["data"]
    assert all("fine-tune" in ACTIONS[kind] for kind in ("level", "spread", "timing"))
