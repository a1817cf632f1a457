"""Who may ask: names of ours only, and who knows the token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from freshet.dashboard import web
from freshet.dashboard.page import Page
from freshet.stream.config import DashboardSettings, Settings

TOKEN = "correct horse battery"

Ask = Callable[..., httpx.Response]


def asking(**settings: Any) -> Ask:
    """Asks a page of these settings; `cookies` are kept as a browser does."""
    page = Page(Settings(dashboard=DashboardSettings(**settings)))
    app = web.build(page)
    kept: dict[str, str] = {}

    def call(path: str = "/api/overview", *, host: str = "localhost", **more: Any) -> Any:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", cookies=kept
            ) as client:
                answer = await client.get(path, headers={"Host": host, **more})
                kept.update(client.cookies)
                return answer

        return asyncio.run(ask())

    return call


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8321", "127.0.0.1:8321", "[::1]:8321", "LOCALHOST.", "10.0.0.7:8321"],
)
def test_our_own_names_are_answered(host: str) -> None:
    assert asking(host="10.0.0.7")(host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "evil.example:8321", "127.0.0.1.evil.example"),
        *("", ":8321", "[::2]", "localhost@evil.example", "x" * 300, "10.0.0.8"),
    ],
)
def test_another_name_is_refused_with_what_to_set(host: str) -> None:
    ask = asking(host="10.0.0.7")
    answer = ask(host=host)
    assert answer.status_code == 421 and "dashboard.allowed_hosts" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.text) < 250
    assert ask("/static/app.js", host=host).status_code == 421
    for probe in ("/livez", "/readyz", "/metrics"):
        assert ask(probe, host=host).status_code in (200, 503)


def test_names_can_be_added_or_all_allowed() -> None:
    ask = asking(allowed_hosts=("Shop.example", "fd00::1"))
    assert [ask(host=host).status_code for host in ("shop.example:443", "[fd00::1]:80", "x")] == [
        *(200, 200),
        421,
    ]
    assert asking(allowed_hosts=("*",))(host="whatever.example").status_code == 200


def test_without_a_token_everybody_reads() -> None:
    assert asking()().status_code == 200


def test_with_a_token_nothing_but_probes_is_answered_to_who_does_not_know_it() -> None:
    ask = asking(read_token=TOKEN)
    for path in ("/", "/api/overview", "/api/stream", "/static/app.js", "/vendor/plotly.min.js"):
        answer = ask(path)
        assert answer.status_code == 401 and "dashboard.read_token" in answer.text, path
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "é"):
        assert ask(Authorization=f"Bearer {wrong}".encode()).status_code == 401
        assert ask(f"/?token={wrong}").status_code == 401
        assert ask(Cookie=f"freshet_read={wrong}".encode()).status_code == 401
    assert ask(Authorization=TOKEN).status_code == 401
    assert ask(Cookie=f"freshet_read={TOKEN}").status_code == 401, "the cookie is not the token"
    assert [ask(probe).status_code for probe in ("/livez", "/readyz", "/metrics")] == [
        200,
        503,
        200,
    ]


def test_the_token_is_taken_in_a_header() -> None:
    ask = asking(read_token=TOKEN)
    assert ask(Authorization=f"Bearer {TOKEN}").status_code == 200
    assert ask(Authorization=f"bearer {TOKEN}").status_code == 200


def test_the_token_in_the_address_is_changed_for_a_cookie_and_leaves_the_address() -> None:
    ask = asking(read_token=TOKEN)
    first = ask(f"/?a=1&token={TOKEN}&b=%26")
    assert (first.status_code, first.headers["location"]) == (303, "/?a=1&b=%26")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and TOKEN not in cookie
    assert [ask(path).status_code for path in ("/", "/api/overview", "/static/app.js")] == [200] * 3


@pytest.mark.parametrize("path", ["//evil.example/", "/%5Cevil.example", "///evil.example"])
def test_the_way_back_from_the_token_leads_nowhere_else(path: str) -> None:
    ask = asking(read_token=TOKEN)
    to = ask(f"http://localhost{path}?token={TOKEN}").headers["location"]
    assert to.startswith("/evil.example")


def test_a_token_that_a_guess_would_find_is_refused() -> None:
    with pytest.raises(ValidationError, match="use 16 letters or more"):
        DashboardSettings(read_token="short")
    assert TOKEN not in repr(DashboardSettings(read_token=TOKEN))
