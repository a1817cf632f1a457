"""`POST /v1/retrain`: who may ask, for what, and what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from freshet.online.control.door import Busy, Door
from freshet.stream.errors import BrokerError
from freshet.stream.schemas import RetrainRequest

TOKEN = "a token of many letters"
BEARER = f"Bearer {TOKEN}"


class Asked:
    """What came through the door."""

    def __init__(self, error: Exception | None = None) -> None:
        self.segments: list[list[str]] = []
        self.error = error

    def __call__(self, segments: list[str]) -> RetrainRequest:
        if self.error is not None:
            raise self.error
        self.segments.append(segments)
        return RetrainRequest(request_id="manual-7", requested_at_ms=5, reason="manual")


def post(
    body: bytes = b"", authorization: str = BEARER, token: str = TOKEN, asked: Asked | None = None
) -> tuple[int, Any]:
    status, answer = Door(token, asked or Asked())(authorization, body)
    return status, json.loads(answer)


def test_who_knows_the_token_asks_for_the_shop_or_for_segments() -> None:
    asked = Asked()
    assert post(asked=asked) == (202, {"request_id": "manual-7"})
    body = b'{"segments": ["shoes", "hats"], "reason": "manual"}'
    assert post(body, BEARER.replace("Bearer", "bearer"), asked=asked)[0] == 202
    assert asked.segments == [[], ["shoes", "hats"]]


@pytest.mark.parametrize(
    ("authorization", "token", "status"),
    [
        ("", TOKEN, 401),
        ("Basic " + TOKEN, TOKEN, 401),
        ("Bearer", TOKEN, 401),
        ("Bearer ", TOKEN, 403),
        ("Bearer " + TOKEN[:-1], TOKEN, 403),
        ("Bearer " + TOKEN + "s", TOKEN, 403),
        ("Bearer \xfc\u20ac", TOKEN, 403),
        (BEARER, "", 403),
        ("Bearer ", "", 403),
    ],
    ids=["none", "basic", "bare", "empty", "short", "long", "foreign", "off", "off and empty"],
)
def test_nobody_else_does(authorization: str, token: str, status: int) -> None:
    asked = Asked()
    found, answer = post(authorization=authorization, token=token, asked=asked)
    assert (found, asked.segments) == (status, [])
    assert TOKEN not in answer["error"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"segments": "shoes"}', "array"),
        (b'{"segments": [""]}', "length"),
        (b'{"segments": [1]}', "str"),
        (b'{"reason": "drift"}', "drift"),
        (b'{"reason": "schedule"}', "schedule"),
        (b'{"segment": "shoes"}', "segment"),
        (b"\xff", "malformed"),
    ],
    ids=["half", "list", "text", "nameless", "number", "drift", "schedule", "unknown", "bytes"],
)
def test_a_body_is_checked_and_the_answer_says_what_is_wrong(body: bytes, told: str) -> None:
    status, answer = post(body)
    assert status == 400 and told in answer["error"]


def test_while_another_request_has_no_answer_it_is_named() -> None:
    other = RetrainRequest(request_id="drift-3", requested_at_ms=1, reason="drift")
    status, answer = post(asked=Asked(Busy(other)))
    assert (status, answer["request_id"]) == (409, "drift-3")


def test_what_is_not_on_the_topic_is_not_accepted() -> None:
    status, answer = post(asked=Asked(BrokerError("away", hint="ask again")))
    assert (status, answer["error"]) == (503, "away; ask again")
