"""What the page tells of the answer to a drift, rung by rung, from a handful of records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from freshet.dashboard import apart, boards
from freshet.stream.schemas import Adjustments, RetrainRequest, ScoredStep, ServingVersion
from freshet.stream.units import HOUR_MS

HIDDEN = Adjustments(begins_at_ms=105 * HOUR_MS)


def answered(make: Any, hour: int, served: float, shadow: float, **more: Any) -> tuple[str, Any]:
    """A score of a step that was served differently, beside what it would have been."""
    score = make.score(hour=hour, pinball=served, adjusted=True, **more)
    [step] = score.steps
    besides = ScoredStep(
        **{
            name: getattr(step, name)
            for name in step.__struct_fields__
            if name not in ("pinball", "adjusted")
        },
        pinball=shadow,
    )
    return "scores", msgspec.structs.replace(score, unadjusted=[besides])


def asked(request_id: str, hour: float, **more: Any) -> tuple[str, RetrainRequest]:
    values = {"reason": "drift", "segments": ["Boots"]} | more
    at_ms = round(hour * HOUR_MS)
    return "retrain", RetrainRequest(request_id=request_id, requested_at_ms=at_ms, **values)


def told(make: Any, *records: Any) -> dict[str, Any]:
    """The rungs of the one segment that drifts."""
    [card] = boards.drift(make.topics(*records))["cards"]
    found: dict[str, Any] = card["ladder"]
    return found


def test_a_drift_that_nothing_was_done_about_says_so(make: Any) -> None:
    rungs = told(make, ("drift", make.drift()), ("scores", make.score(hour=111)))
    assert rungs == {"found_after_ms": 5 * HOUR_MS, "served": None, "training": []}


def test_it_was_found_when_the_alarm_was_first_told_whatever_was_learnt_since(make: Any) -> None:
    """The kind is told again five hours later; another alarm of the day before is not meant."""
    rungs = told(
        make,
        ("drift", make.drift(alert_id="a0", detected_at_ms=90 * HOUR_MS, onset_ms=80 * HOUR_MS)),
        ("drift", make.drift()),
        ("drift", make.drift(kind="timing", detected_at_ms=115 * HOUR_MS)),
    )
    assert rungs["found_after_ms"] == 5 * HOUR_MS


def test_the_gain_is_over_the_same_weights_on_the_same_buckets(make: Any) -> None:
    """Two steps that lost 1 and 2 where 4 and 2 were: 3 of 6. What was served as ever is no part,
    nor are other segments, other resolutions, repeats and what came before the onset."""
    first, second = answered(make, 111, 1.0, 4.0), answered(make, 113, 2.0, 2.0)
    rungs = told(
        make,
        ("drift", make.drift()),
        first,
        second,
        second,
        ("scores", make.score("B|north", hour=111, pinball=50.0)),
        answered(make, 104, 9.0, 1.0),
        answered(make, 112, 9.0, 1.0, segment="Tents"),
        answered(make, 120, 9.0, 1.0, resolution_ms=24 * HOUR_MS),
        ("forecasts", make.forecast(hour=114, adjustments=HIDDEN)),
    )
    assert rungs["served"] == {
        "since_ms": 111 * HOUR_MS,
        "until_ms": None,
        "steps": 2,
        "gain": 0.5,
        "how": {"begins_at_ms": 105 * HOUR_MS, "before": "hidden"},
    }


def test_what_is_served_as_ever_again_says_until_when(make: Any) -> None:
    rungs = told(
        make,
        ("drift", make.drift()),
        answered(make, 111, 1.0, 4.0),
        ("scores", make.score(hour=112)),
        ("forecasts", make.forecast(hour=113)),
    )
    served = rungs["served"]
    assert (served["since_ms"], served["until_ms"]) == (111 * HOUR_MS, 112 * HOUR_MS)
    assert served["how"] is None


def test_training_is_told_newest_first_with_its_newest_word(make: Any) -> None:
    gate = {"gain": 0.07, "days": 2.0}
    rungs = told(
        make,
        ("drift", make.drift()),
        asked("r1", 111),
        asked("r2", 130),
        asked("r3", 140, segments=["Tents"]),
        asked("r4", 100),
        asked("r5", 150, reason="rollback"),
        ("models", make.model("training", "candidate-r1", 112, request_id="r1")),
        ("models", make.model("trial", "v2", 113, request_id="r1", gate=gate)),
        ("models", make.model("rejected", "v2", 129, request_id="r1", reason="no", gate=gate)),
        ("models", make.model("swapped", "v2", 129.5)),
    )
    assert rungs["training"] == [
        {
            "asked": "drift",
            "asked_at_ms": 130 * HOUR_MS,
            "status": "waiting",
            "at_ms": None,
            "version": "",
            "segments": [],
            "reason": "",
            "gain": None,
        },
        {
            "asked": "drift",
            "asked_at_ms": 111 * HOUR_MS,
            "status": "rejected",
            "at_ms": 129 * HOUR_MS,
            "version": "v2",
            "segments": [],
            "reason": "no",
            "gain": 0.07,
        },
    ]


def test_training_says_for_whom_the_new_weights_serve(make: Any) -> None:
    serves = [ServingVersion(version="base"), ServingVersion(version="v2", segments=["Boots"])]
    promoted = make.model("promoted", "v2", 129, request_id="r1", serves=serves)
    rungs = told(make, ("drift", make.drift()), asked("r1", 111), ("models", promoted))
    [answer] = rungs["training"]
    assert (answer["status"], answer["segments"]) == ("promoted", ["Boots"])


def test_segments_beyond_the_limit_push_out_the_one_that_was_answered_longest_ago(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(apart, "MAX_BUCKETS", 2)
    kept = apart.ServedApart()
    for hour, segment in ((1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "c")):
        kept.take(answered(make, hour, 1.0, 2.0, segment=segment)[1])
    assert list(kept.since("a", 0)) == [3 * HOUR_MS, 4 * HOUR_MS]
    assert (kept.since("b", 0), kept.newest_item("b")) == ({}, "")
    assert list(kept.since("c", 0)) == [5 * HOUR_MS]
