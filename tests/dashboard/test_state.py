"""Records change what the page knows as they should; those that cannot be used change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.dashboard import state
from freshet.dashboard.state import TOUCHES, TopicState
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.schemas import (
    Alert,
    AlertData,
    CatalogEntry,
    ForecastRound,
    Promotion,
    RetrainRequest,
)
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS


def promotion(name: str = "p1", **more: Any) -> Promotion:
    values: dict[str, Any] = {
        "starts_at": 10 * HOUR_MS,
        "ends_at": 20 * HOUR_MS,
        "discount": 0.2,
        "sku": "A",
    }
    return Promotion(promotion_id=name, **values | more)


def alert(subject: str = "s1") -> Alert:
    data = AlertData(
        state="firing", severity="info", title="t", description="d", starts_at_ms=1, updated_at_ms=1
    )
    return Alert(id="1", source="/x", type="io.freshet.drift", subject=subject, time="", data=data)


kinds = st.sampled_from([*TOUCHES])
junk = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"null", b"[]", b"{}", b'{"sku":1}', b"[" * 3000, b"\xff\xfe"]),
)


@given(kinds, junk)
def test_no_bytes_whatever_break_the_view(kind: Any, value: bytes) -> None:
    topics = TopicState(Settings())
    assert not topics.apply(kind, b"k", value, 0)
    assert topics.malformed[kind] == 1 and topics.applied[kind] == 0 and topics.revision == 0


def test_a_score_or_forecast_with_numbers_that_are_none_is_refused(make: Any) -> None:
    topics = make.topics()
    for kind, record, old, new in (
        ("scores", make.score(), b'"actual":10.0', b'"actual":1e999'),
        ("forecasts", make.forecast(), b"[1.0,2.0,3.0]", b"[1.0,2.0,1e999]"),
    ):
        assert not topics.apply(kind, b"k", encode(record).replace(old, new), 0)
    assert topics.revision == 0


def test_each_topic_moves_its_own_sections(make: Any) -> None:
    topics = make.topics(("drift", make.drift()))
    assert topics.revisions == {"items": 0, "errors": 1, "drift": 1, "models": 0, "flash": 0}
    topics.apply("scores", b"k", encode(make.score()), 0)
    assert topics.revisions["errors"] == 2 and topics.revisions["models"] == 1


def test_a_repeat_is_usable_but_changes_nothing(make: Any) -> None:
    topics = make.topics(("drift", make.drift()), ("models", make.model("promoted", "v2", 5)))
    before = topics.revision
    assert topics.apply("drift", b"k", encode(make.drift()), 0)
    assert topics.apply("models", b"k", encode(make.model("promoted", "v2", 5)), 0)
    assert topics.revision == before and len(topics.drift) == len(topics.models) == 1


def test_each_resolution_has_its_own_forecasts_scores_and_rounds(make: Any) -> None:
    day = {"resolution_ms": DAY_MS, "hour": 96}
    done = ForecastRound(
        shard=0,
        num_shards=1,
        resolution_ms=DAY_MS,
        cutoff_ms=96 * HOUR_MS,
        issued_at_ms=96 * HOUR_MS,
        complete=True,
        expected=1,
        published=1,
        weights_version="base",
    )
    topics = make.topics(
        ("forecasts", make.forecast()),
        ("forecasts", make.forecast(**day)),
        ("scores", make.score()),
        ("scores", make.score(**day)),
        ("rounds", done),
    )
    widths = {width_ms: list(book.items) for width_ms, book in topics.books.items()}
    assert widths == {MINUTE_MS: [], HOUR_MS: ["A|north"], DAY_MS: ["A|north"]}
    assert topics.forecasts_seen == 2 and topics.book is topics.books[HOUR_MS]
    assert [known.matured for known in topics.accuracies.values()] == [0, 1, 1]
    assert [known.told() is None for known in topics.rounds.values()] == [True, True, False]


def test_what_is_not_forecast_here_is_usable_and_changes_nothing(make: Any) -> None:
    topics = make.topics()
    odd = {"resolution_ms": 7 * DAY_MS, "hour": 0}
    assert topics.apply("forecasts", b"k", encode(make.forecast(**odd)), 0)
    assert topics.apply("scores", b"k", encode(make.score(**odd)), 0)
    assert topics.revision == 0


def test_the_newest_forecasts_and_the_log_are_one_book_whatever_the_key(make: Any) -> None:
    topics = make.topics()
    newest, older = encode(make.forecast(hour=101)), encode(make.forecast(hour=100))
    assert topics.apply("forecasts_latest", b"A|north@3600000", newest, 0)
    assert topics.apply("forecasts_latest", b"A|north", older, 0), "of a worker of before"
    for value in (older, newest):
        assert topics.apply("forecasts", b"A|north", value, 0)
    assert (topics.book.seen, topics.revisions["items"]) == (2, 2)
    assert topics.book.items["A|north"].newest.cutoff_ms == 101 * HOUR_MS
    assert not topics.apply("forecasts_latest", b"k", b"junk", 0)
    assert topics.apply("forecasts_latest", b"A|north@3600000", None, 0), "a tombstone"


def test_promotions_touch_their_sku_and_their_category_only(make: Any) -> None:
    topics = make.topics(
        ("catalog", CatalogEntry(sku="A", category="Boots")),
        ("promotions", promotion("own")),
        ("promotions", promotion("other", sku="B")),
        ("promotions", promotion("category", sku=None, category="Boots", starts_at=5 * HOUR_MS)),
        ("promotions", promotion("elsewhere", sku=None, category="Tents")),
    )
    found = topics.shop.promotions_of("A", 0, 30 * HOUR_MS)
    assert [known.promotion.promotion_id for known in found] == ["category", "own"]
    assert topics.shop.promotions_of("A", 20 * HOUR_MS, 30 * HOUR_MS) == []
    assert topics.shop.promotions_of("A", 0, 5 * HOUR_MS) == []


def test_times_as_text_are_understood(make: Any) -> None:
    text = promotion(starts_at="1970-01-01T10:00:00Z", ends_at="1970-01-01T20:00:00Z")
    topics = make.topics(("promotions", text))
    assert topics.shop.promotion_times("p1") == (
        10 * HOUR_MS,
        20 * HOUR_MS,
    )


def test_a_promotion_that_ends_before_it_starts_is_refused(make: Any) -> None:
    topics = make.topics()
    assert not topics.apply("promotions", b"p1", encode(promotion(ends_at=0)), 0)
    assert list(topics.shop.promotions()) == []


def test_tombstones_take_promotions_and_alerts_away(make: Any) -> None:
    topics = make.topics()
    topics.apply("promotions", b"p1", encode(promotion()), 0)
    topics.apply("alerts", b"s1", encode(alert()), 0)
    assert topics.apply("promotions", b"p1", None, 0) and topics.apply("alerts", b"s1", None, 0)
    assert list(topics.shop.promotions()) == [] and topics.alerts == {}
    assert topics.apply("models", b"promoted:v2", None, 0)


def test_everything_is_bounded(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_RETRAINS", "MAX_ALERTS"):
        monkeypatch.setattr(state, name, 3)
    topics = make.topics()
    for number in range(600):
        topics.apply("drift", b"k", encode(make.drift(alert_id=str(number))), 0)
        topics.apply("models", b"k", encode(make.model("training", f"v{number}", number)), 0)
    for number in range(5):
        request = RetrainRequest(request_id=str(number), requested_at_ms=0, reason="manual")
        topics.apply("retrain", b"k", encode(request), 0)
        topics.apply("alerts", b"k", encode(alert(str(number))), 0)
    assert len(topics.drift) == state.MAX_DRIFT_ALERTS and topics.drift[-1].alert_id == "599"
    assert len(topics.models) == 600 <= state.MAX_MODEL_EVENTS
    assert list(topics.retrains) == list(topics.alerts) == ["2", "3", "4"]
