"""Routes, headers, files: what a browser may do, and what it is told when something is wrong."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from freshet.dashboard import web
from freshet.dashboard.page import Page
from freshet.stream.config import Settings

STATIC = sorted(
    path for path in web.STATIC.iterdir() if path.suffix in (".html", ".js", ".css", ".svg")
)


@pytest.fixture
def page(make: Any) -> Page:
    page = Page(Settings())
    page.topics.book.apply(make.forecast("A|north"))
    page.topics.book.apply(make.forecast("sl/ash|north"))
    return page


@pytest.fixture
def get(page: Page) -> Callable[..., httpx.Response]:
    def call(path: str, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=web.build(page))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())

    return call


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/overview", "/api/items/none", "/readyz", "/metrics", "/x"]
)
def test_every_answer_carries_the_security_headers(
    get: Callable[..., httpx.Response], path: str
) -> None:
    headers = get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/api/overview",
        "/api/errors?segment=x",
        "/api/items",
        "/api/flash-sales",
        "/api/drift",
        "/api/models",
    ],
)
def test_every_question_has_a_json_answer_that_is_not_cached(
    get: Callable[..., httpx.Response], path: str
) -> None:
    answer = get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert isinstance(answer.json(), dict)


def test_items_are_found_by_their_id_whatever_is_in_it(get: Callable[..., httpx.Response]) -> None:
    assert get("/api/items/A%7Cnorth").json()["item_id"] == "A|north"
    assert get("/api/items/sl%2Fash%7Cnorth").json()["item_id"] == "sl/ash|north"
    missing = get("/api/items/" + "x" * 5000)
    assert missing.status_code == 404 and missing.json() == {"error": "there is no such item"}


def test_a_wrong_parameter_is_answered_in_words(get: Callable[..., httpx.Response]) -> None:
    answer = get("/api/items?page=minus")
    assert answer.status_code == 400
    assert "page is 'minus'; expected a whole number" in answer.json()["error"]


def test_nothing_outside_the_static_folder_is_served(get: Callable[..., httpx.Response]) -> None:
    for path in (
        "/static/../app.py",
        "/static/..%2Fapp.py",
        "/static/%2e%2e/app.py",
        "/static/.hidden",
        "/static/",
        "/static/" + "x" * 300,
        "/static/a%00b",
        "/static/%ff%fe",
        "/static/%F0%9F%92%A9",
        "/" + "x" * 300,
        "/%00",
        "/%ff",
        "/../../etc/passwd",
        "/api/items/" + "%ff" * 100,
        "/api/items/%00",
    ):
        assert get(path).status_code == 404, path


def test_nothing_but_reading_is_answered(page: Page) -> None:
    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=web.build(page))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = [
                await client.request(method, path)
                for method in ("POST", "PUT", "DELETE", "PATCH")
                for path in ("/", "/api/overview", "/api/items/A%7Cnorth", "/static/app.js")
            ]
        return [answer.status_code for answer in answers]

    assert set(asyncio.run(ask())) == {405}


def test_plotly_comes_from_the_package_is_packed_and_kept_for_a_year(
    get: Callable[..., httpx.Response],
) -> None:
    packed = get("/vendor/plotly.min.js", **{"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert (
        "immutable" in packed.headers["cache-control"]
        and "max-age=31536000" in packed.headers["cache-control"]
    )
    plain = get("/vendor/plotly.min.js", **{"Accept-Encoding": "identity"})
    assert plain.content == packed.content and len(plain.content) > 1_000_000
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(web._plotly(True)) == web._plotly(False)


def test_a_known_file_is_not_sent_again(get: Callable[..., httpx.Response]) -> None:
    first = get("/static/style.css")
    again = get("/static/style.css", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert f"plotly.min.js?v={web.PLOTLY_VERSION}" in get("/").text


def test_readiness_says_what_is_missing(get: Callable[..., httpx.Response], page: Page) -> None:
    answer = get("/readyz")
    assert answer.status_code == 503
    assert "kafka: not connected yet" in answer.text and "redis: not connected yet" in answer.text
    page.feed.problem = page.redis_problem = None
    assert (get("/readyz").status_code, get("/livez").status_code) == (200, 200)


def test_liveness_names_a_task_that_has_not_turned(
    get: Callable[..., httpx.Response], page: Page
) -> None:
    page._turned_s = {"feed": -1e9, "look": time.monotonic()}
    answer = get("/livez")
    assert answer.status_code == 503 and answer.text.startswith("feed has not turned for ")
    page.turned("feed")
    assert get("/livez").status_code == 200


def test_metrics_count_records_and_streams_but_never_name_an_item(
    get: Callable[..., httpx.Response], page: Page
) -> None:
    page.topics.apply("scores", b"k", b"junk", 0)
    text = get("/metrics").text
    assert 'freshet_dashboard_records_total{kind="scores",usable="no"} 1.0' in text
    assert "freshet_dashboard_items 2.0" in text
    assert "north" not in text


@pytest.mark.parametrize("path", STATIC, ids=lambda path: path.name)
def test_pages_load_nothing_from_elsewhere_and_write_no_markup_from_data(path: Any) -> None:
    text = path.read_text("utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ):
        assert way not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "inline scripts are not allowed"
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text), "inline handlers are not allowed"
