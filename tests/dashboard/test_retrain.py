"""The page passes a visitor's wish for training on to control, and says what control says."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from freshet.dashboard import web
from freshet.dashboard.page import Page
from freshet.stream.config import DashboardSettings, Settings
from freshet.stream.telemetry import serve_http

BEARER = "Bearer a token of many letters"


class Control:
    """Stands at `POST /v1/retrain` and notes what comes."""

    def __init__(self, status: int = 202) -> None:
        self.status = status
        self.heard: list[tuple[str, bytes]] = []
        posts = {"/v1/retrain": self}
        self.url = f"http://127.0.0.1:{serve_http(0, lambda: None, lambda: None, posts=posts)}"

    def __call__(self, authorization: str, body: bytes) -> tuple[int, bytes]:
        self.heard.append((authorization, body))
        return self.status, b'{"request_id": "manual-7"}'


def ask(control_url: str, body: bytes = b"{}", **headers: str) -> httpx.Response:
    page = Page(Settings(dashboard=DashboardSettings(control_url=control_url)))

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=web.build(page))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/api/retrain", content=body, headers=headers)

    return asyncio.run(post())


@pytest.mark.parametrize("slash", ["", "/"])
def test_token_and_body_reach_control_and_its_answer_the_visitor(slash: str) -> None:
    control = Control()
    wish = b'{"segments": ["shoes"]}'
    answer = ask(control.url + slash, wish, authorization=BEARER)
    assert (answer.status_code, answer.json()) == (202, {"request_id": "manual-7"})
    assert control.heard == [(BEARER, wish)]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("status", [400, 401, 403, 409, 503])
def test_a_refusal_of_control_is_the_page_s(status: int) -> None:
    control = Control(status)
    answer = ask(control.url)
    assert (answer.status_code, answer.json()) == (status, {"request_id": "manual-7"})
    assert control.heard == [("", b"{}")]


def test_without_an_address_of_control_nobody_asks() -> None:
    answer = ask("", authorization=BEARER)
    assert answer.status_code == 404
    assert answer.json() == {"error": "off: dashboard.control_url is not set"}
    told: list[Any] = [
        Page(Settings(dashboard=DashboardSettings(control_url=url))).summary()["may_retrain"]
        for url in ("", "http://control:9103")
    ]
    assert told == [False, True]


def test_a_control_that_is_away_is_told_with_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answer = ask(url, authorization=BEARER)
    assert answer.status_code == 502
    said = json.loads(answer.content)["error"]
    assert said.startswith(f"control does not answer at {url}/v1/retrain: ")


def test_a_wish_that_is_too_long_is_not_passed_on() -> None:
    control = Control()
    assert ask(control.url, b"x" * 100_001, authorization=BEARER).status_code == 413
    assert control.heard == []


@pytest.mark.parametrize("url", ["control:9103", "file:///etc/passwd", "http://", "ftp://control"])
def test_an_address_that_is_none_of_http_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="control_url"):
        DashboardSettings(control_url=url)
