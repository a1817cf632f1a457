"""Plain words: who is blamed for what, and in which unit."""

from __future__ import annotations

from freshet.online.demo import story
from freshet.stream.schemas import ModelEvent, Promotion


def event(kind: str, **more: object) -> ModelEvent:
    return ModelEvent(kind=kind, version="v2", at_ms=0, **more)  # type: ignore[arg-type]


def test_the_gate_is_named_only_when_it_looked() -> None:
    assert story.of_model(event("rejected", reason="superseded")) == "no training: superseded"
    judged = event("rejected", reason="gain_low -0.1 against 0.01", gate={"gain_low": -0.1})
    assert story.of_model(judged) == "the gate keeps the old weights: gain_low -0.1 against 0.01"


def test_a_pause_is_told_in_a_unit_that_shows_it() -> None:
    assert "0.4 µs" in story.of_model(event("swapped", pause_ms=0.0004))


def test_a_sale_begins_and_ends() -> None:
    sale = Promotion(
        promotion_id="p", starts_at=0, ends_at=1, discount=0.3, kind="flash_sale", category="toys"
    )
    assert story.of_promotion(sale, started=True) == "a flash sale on all of toys starts, 30% off"
    assert story.of_promotion(sale, started=False) == "a flash sale on all of toys is over"


def test_each_resolution_has_a_sentence_with_what_it_was_worth_where_that_is_known() -> None:
    hours = {"published": 1_200, "cutoffs": 12, "repeated": 0, "skipped": 3}
    minutes = {"published": 7, "cutoffs": 7, "repeated": 1, "skipped": 0}
    summary = {
        "forecasts": {"by_resolution": {"60000": minutes, "3600000": hours}},
        "scores": {"by_resolution": {"3600000": {"wql": 0.25, "seasonal_naive_wql": 0.5}}},
    }
    assert list(story.of_resolutions(summary)) == [
        "minutes: 7 forecasts at 7 cutoffs, 1 of them repeated, 0 cutoffs skipped",
        "hours: 1,200 forecasts at 12 cutoffs, 0 of them repeated, 3 cutoffs skipped; "
        "WQL 0.250, seasonal naive 0.500",
    ]
