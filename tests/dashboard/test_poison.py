"""Records that mean harm are refused and counted, or shown as they are, and hurt no others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from freshet.dashboard import accuracy, forecasts, web
from freshet.dashboard import page as page_module
from freshet.dashboard.accuracy import Accuracy
from freshet.dashboard.forecasts import ForecastBook
from freshet.dashboard.page import Page
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    LAST_MS,
    Alert,
    AlertData,
    CatalogEntry,
    ForecastRound,
    InventoryLevel,
    Promotion,
    Record,
    RetrainRequest,
)
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS

NOW_HOUR = 1_000
NOW_MS = NOW_HOUR * HOUR_MS
QUESTIONS = (
    *("/api/overview", "/api/errors", "/api/items", "/api/flash-sales", "/api/drift"),
    *("/api/models", "/api/items/A%7Cnorth", "/metrics", "/readyz"),
)
EXTREMES: tuple[Any, ...] = (
    *(-1, 0, 1, 2**63 - 1, 2**63, 10**30, -(10**30), LAST_MS, LAST_MS + 1),
    *(
        1e-300,
        1e15,
        1e38,
        1e308,
        -1e308,
        None,
        True,
        "",
        "x" * 1_024,
        "x" * 20_000,
        "\x00\u202e<b>",
    ),
    *([], [[]], {}, [1e308], [[1e308] * 3] * 24, {"x.ok": "y"}, {".ok": True}, ["x"] * 10_001),
)


@pytest.fixture(autouse=True)
def _nobody_waits_for_a_redis_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "ANSWER_S", 0.0)


def page_at_now() -> Page:
    page = Page(Settings())
    # The clock runs, but so slowly that it stands while a test does.
    page.seen(None, (NOW_MS, 1e-9), time.monotonic())
    return page


def alert(subject: str = "s1", state: Any = "firing", at_ms: int = NOW_MS) -> Alert:
    data = AlertData(
        state=state,
        severity="info",
        title="t",
        description="d",
        starts_at_ms=at_ms,
        updated_at_ms=at_ms,
    )
    return Alert(id="1", source="/x", type="io.freshet.x", subject=subject, time="", data=data)


def good_records(make: Any) -> dict[Any, Record]:
    """One good record of each kind, about things of now."""
    return {
        "catalog": CatalogEntry(sku="A", title="Boot", category="Boots", unit_price=9.0),
        "promotions": Promotion(
            promotion_id="p",
            sku="A",
            starts_at=NOW_MS - HOUR_MS,
            ends_at=NOW_MS + HOUR_MS,
            discount=0.2,
            kind="flash_sale",
        ),
        "inventory": InventoryLevel(sku="A", region="north", on_hand=5.0, as_of=NOW_MS),
        "forecasts": make.forecast(hour=NOW_HOUR),
        "rounds": ForecastRound(
            shard=0,
            num_shards=1,
            resolution_ms=HOUR_MS,
            cutoff_ms=NOW_HOUR * HOUR_MS,
            issued_at_ms=NOW_MS,
            complete=False,
            expected=3,
            published=1,
            weights_version="base",
            skipped=2,
            skipped_from_ms=(NOW_HOUR - 2) * HOUR_MS,
        ),
        "scores": make.score(hour=NOW_HOUR - 3),
        "drift": make.drift(detected_at_ms=NOW_MS - HOUR_MS, onset_ms=NOW_MS - 2 * HOUR_MS),
        "models": make.model("promoted", "v2", NOW_HOUR - 1, gate={"gain": 0.1, "gain.ok": True}),
        "retrain": RetrainRequest(request_id="r", requested_at_ms=NOW_MS, reason="manual"),
        "alerts": alert(),
    }


def poisoned(value: Any) -> Iterator[Any]:
    """The JSON of a record with one field, or one field within, changed."""
    if isinstance(value, dict):
        for name in value:
            for other in (*EXTREMES, *poisoned(value[name])):
                yield value | {name: other}
    elif isinstance(value, list) and value:
        for other in poisoned(value[0]):
            yield [other, *value[1:]]


def answers(page: Page) -> dict[str, httpx.Response]:
    async def ask() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(app=web.build(page))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return {path: await client.get(path) for path in QUESTIONS}

    return asyncio.run(ask())


def no_constants(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize(
    "kind",
    [
        *("catalog", "promotions", "inventory", "forecasts", "rounds", "scores"),
        *("drift", "models", "retrain", "alerts"),
    ],
)
def test_whatever_a_record_says_every_answer_is_json_and_a_good_record_has_its_effect(
    make: Any, kind: Any
) -> None:
    page, good = page_at_now(), good_records(make)
    page.actuals = make.actuals({"A|north": [1.0] * 48}, end_hour=NOW_HOUR)
    for name, record in good.items():
        assert page.topics.apply(name, b"k", encode(record), NOW_MS)
    document, taken, refused = json.loads(encode(good[kind])), 0, 0
    for number, changed in enumerate(poisoned(document)):
        # Nothing is to be taken for a repeat.
        for name, new in (("weights_version", f"v{number}"), ("item_id", f"A|{number}")):
            if kind != "drift" and document.get(name) == changed.get(name) and name in document:
                changed[name] = new
        if kind == "forecasts":
            changed["item_id"] = "A|north"
            if changed["cutoff_ms"] == document["cutoff_ms"]:
                changed["cutoff_ms"] += number + 1
        value = json.dumps(changed).encode()
        if page.topics.apply(kind, b"k", value, NOW_MS):
            taken += 1
            for path, answer in answers(page).items():
                assert answer.status_code in (200, 503), (path, value[:500])
        else:
            refused += 1
    for path, answer in answers(page).items():
        if path.startswith("/api"):
            json.loads(answer.text, parse_constant=no_constants)
    assert refused > 10 and page.topics.malformed[kind] == refused
    print(f"{kind}: {taken} taken, {refused} refused")


# Times --------------------------------------------------------------------------------------------


def test_600_scores_of_the_future_do_not_blind_the_error_chart(make: Any) -> None:
    page = page_at_now()
    for number in range(600):
        future = make.score(f"X{number}|north", hour=NOW_HOUR + 100 + number)
        assert not page.topics.apply("scores", b"k", encode(future), NOW_MS)
    assert page.topics.apply("scores", b"k", encode(make.score(hour=NOW_HOUR - 3)), NOW_MS)
    assert list(page.topics.accuracy.overall) == [(NOW_HOUR - 3) * HOUR_MS]
    assert page.topics.malformed["scores"] == 600


def test_scores_of_starts_between_two_buckets_do_not_blind_the_error_chart(make: Any) -> None:
    page = page_at_now()
    good = make.score(hour=NOW_HOUR - 3)
    for number in range(1, 601):
        odd = msgspec.structs.replace(good, bucket_start_ms=good.bucket_start_ms + number)
        assert not page.topics.apply("scores", b"k", encode(odd), NOW_MS)
    assert page.topics.apply("scores", b"k", encode(good), NOW_MS)
    assert list(page.topics.accuracy.overall) == [(NOW_HOUR - 3) * HOUR_MS]


def test_scores_of_long_ago_push_nothing_out(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "MAX_BUCKETS", 3)
    known = Accuracy(Grid(HOUR_MS))
    for hour in (98, 99, 100):
        known.apply(make.score(hour=hour))
    for hour in range(50):
        assert not known.apply(make.score(f"X{hour}", hour=hour))
    assert sorted(known.overall) == [hour * HOUR_MS for hour in (98, 99, 100)]


@pytest.mark.parametrize(
    ("kind", "field", "margin_ms"),
    [
        ("forecasts", "cutoff_ms", HOUR_MS),
        ("scores", "scored_at_ms", HOUR_MS),
        ("drift", "detected_at_ms", HOUR_MS),
        ("models", "at_ms", HOUR_MS),
        ("retrain", "requested_at_ms", HOUR_MS),
        ("inventory", "as_of", HOUR_MS),
        ("promotions", "ends_at", HOUR_MS + 3_660 * DAY_MS),
    ],
)
def test_a_time_is_taken_up_to_an_hour_past_the_clock_and_not_a_millisecond_further(
    make: Any, kind: Any, field: str, margin_ms: int
) -> None:
    page = page_at_now()
    at_border = msgspec.structs.replace(good_records(make)[kind], **{field: NOW_MS + margin_ms})
    past_it = msgspec.structs.replace(at_border, **{field: NOW_MS + margin_ms + 1})
    assert not page.topics.apply(kind, b"k", encode(past_it), NOW_MS)
    assert page.topics.apply(kind, b"k", encode(at_border), NOW_MS)


def test_the_newest_state_of_a_segment_is_the_one_that_came_last(make: Any) -> None:
    page = page_at_now()
    ahead = make.drift(detected_at_ms=NOW_MS + HOUR_MS)
    after = make.drift(alert_id="a2", state="stable", detected_at_ms=NOW_MS)
    for record in (ahead, after):
        assert page.topics.apply("drift", b"k", encode(record), NOW_MS)
    (card,) = web.boards.drift(page.topics)["cards"]
    assert card["state"] == "stable"
    assert page.summary()["drift"]["active"] == 0


def test_what_is_ahead_of_a_held_clock_is_history_on_its_way(make: Any) -> None:
    page = page_at_now()
    days_ahead = InventoryLevel(sku="A", region="north", on_hand=5.0, as_of=NOW_MS + 3 * DAY_MS)
    assert not page.topics.apply("inventory", b"k", encode(days_ahead), NOW_MS)
    page.seen(None, (NOW_MS, 0.0), time.monotonic())
    assert page.topics.apply("inventory", b"k", encode(days_ahead), NOW_MS)
    microseconds = msgspec.structs.replace(days_ahead, as_of=NOW_MS * 1_000)
    assert not page.topics.apply("inventory", b"k", encode(microseconds), NOW_MS)


# Floods -------------------------------------------------------------------------------------------


def test_a_flood_of_forecasts_keeps_new_items_out_for_two_days_and_no_longer(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "MAX_ITEMS", 3)
    book = ForecastBook(Grid(HOUR_MS))
    for name in ("A|n", "fake1", "fake2"):
        assert book.apply(make.forecast(name, hour=100))
    for hour in range(101, 148):
        assert book.apply(make.forecast("A|n", hour=hour))
        assert not book.apply(make.forecast("B|n", hour=hour))
    assert book.apply(make.forecast("A|n", hour=148))
    assert book.apply(make.forecast("B|n", hour=148))
    assert list(book.items) == ["fake2", "A|n", "B|n"] and book.refused == 47


def test_a_flood_of_scores_keeps_new_items_out_for_two_days_and_no_longer(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MAX_SCORED_ITEMS", 2)
    known = Accuracy(Grid(HOUR_MS))
    for name in ("fake", "A|n"):
        assert known.apply(make.score(name, hour=100))
    for hour in range(101, 148):
        assert known.apply(make.score("A|n", hour=hour))
        assert not known.apply(make.score("B|n", hour=hour))
    assert known.apply(make.score("A|n", hour=148))
    assert known.apply(make.score("B|n", hour=148))
    assert not known.apply(make.score("B|n", hour=148)), "a repeat"
    assert known.apply(make.score("B|n", hour=100)), "what the other item had is not its own"
    assert not known.apply(make.score("A|n", hour=100)), "and A has kept what it had"


def test_a_score_at_no_bucket_is_refused(make: Any) -> None:
    odd = msgspec.structs.replace(make.score(), bucket_start_ms=100 * HOUR_MS + 1)
    with pytest.raises(EventError, match="no bucket of 3600000 ms"):
        Accuracy(Grid(HOUR_MS)).apply(odd)


def test_a_flood_of_alerts_that_are_over_leaves_the_one_that_fires(make: Any) -> None:
    page = page_at_now()
    page.topics.apply("alerts", b"fires", encode(alert("fires")), NOW_MS)
    for number in range(500):
        over = alert(f"over{number}", state="resolved")
        assert page.topics.apply("alerts", b"k", encode(over), NOW_MS)
    assert len(page.topics.alerts) == 400
    assert "fires" in page.topics.alerts and "over499" in page.topics.alerts


def test_an_alert_that_is_told_of_again_is_not_the_oldest(make: Any) -> None:
    page = page_at_now()
    for number in (0, *range(1, 400), 0, 400):
        page.topics.apply("alerts", b"k", encode(alert(f"a{number}")), NOW_MS)
    assert "a0" in page.topics.alerts and "a1" not in page.topics.alerts


# What is said of them -----------------------------------------------------------------------------


def test_what_cannot_be_used_is_counted_and_the_newest_is_told_with_its_reason(make: Any) -> None:
    page = page_at_now()
    page.topics.apply("scores", b"k", b"junk", 0)
    late = make.drift(detected_at_ms=10**13)
    page.topics.apply("drift", b"k", encode(late), 0)
    page.topics.apply("drift", b"k", encode(late), 0)
    told = page.summary()["unusable"]
    assert told["counts"] == {"scores": 1, "drift": 2}
    assert told["newest"] == (
        "EventError: detected_at_ms of this DriftAlert is 10000000000000, a time that the clock "
        "has not reached"
    )


def test_a_fault_that_a_record_finds_in_the_code_is_counted_like_any_other(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_at_now()

    def broken(score: Any) -> bool:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(page.topics.accuracy, "apply", broken)
    assert not page.topics.apply("scores", b"k", encode(make.score()), 0)
    assert page.topics.newest_malformed == "ZeroDivisionError: a fault of ours"
