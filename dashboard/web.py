"""The HTTP face: routes, security headers, static files, and plotly from the installed package."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import ASGIApp, Scope

from freshet.dashboard import api, boards, sales
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.figures import Json
from freshet.dashboard.guard import Guard
from freshet.dashboard.hub import EventStream
from freshet.dashboard.items import list_items, parse_query, parse_resolution, show_item
from freshet.dashboard.page import Page
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import MINUTE_MS

STATIC = Path(__file__).parent / "static"
OWN_FILES = frozenset(path.name for path in STATIC.iterdir())
PLOTLY_VERSION = metadata.version("plotly")
YEAR_S = 31_536_000
ASK_AGAIN = {"Cache-Control": "no-cache"}
MAX_ITEM_ID = 1_024


def build(page: Page) -> ASGIApp:
    """The application around a page. Every route only reads, but for one that passes on."""
    retrain = Route("/api/retrain", page.retrain.answer, methods=["POST"])
    app = Starlette(routes=[*_files(), *_questions(page), retrain, *_probes(page)])
    return Guard(app, page.settings)


# Questions ----------------------------------------------------------------------------------------


def _questions(page: Page) -> list[Route]:
    def errors(request: Request) -> Json:
        segment = request.query_params.get("segment", "")
        width_ms = parse_resolution(page.topics, request.query_params)
        return api.errors(page.topics, segment, page.max_points, width_ms)

    def overview(request: Request) -> Json:
        return page.summary() | {"errors": errors(request)}

    def items(request: Request) -> Json:
        query = parse_query(dict(request.query_params))
        return list_items(page.topics, page.actuals, query)

    async def item(request: Request) -> Json | None:
        item_id = request.path_params["item_id"]
        if len(item_id) > MAX_ITEM_ID:
            return None
        width_ms = parse_resolution(page.topics, request.query_params)
        actuals = page.actuals
        if width_ms != page.topics.main_ms:
            cells = await page.few(width_ms, [item_id])
            actuals = Actuals.of(cells) if cells else Actuals(width_ms)
        return show_item(page.topics, actuals, page.moment(), item_id, width_ms)

    async def flash_sales(_: Request) -> Json:
        now_ms = page.moment().now_ms
        items = sales.items_on_sale(page.topics, page.actuals, now_ms)
        minutes = await page.few(MINUTE_MS, items) if items else None
        return sales.flash_sales(page.topics, page.actuals, now_ms, minutes)

    async def stream(request: Request) -> Response:
        address = request.client.host if request.client else ""
        return EventStream(page.hub, request.headers.get("last-event-id", ""), address)

    return [
        _question("/api/overview", overview),
        _question("/api/errors", errors),
        _question("/api/items", items),
        _question("/api/items/{item_id:path}", item),
        _question("/api/flash-sales", flash_sales),
        _question("/api/drift", lambda _: boards.drift(page.topics)),
        _question("/api/models", lambda _: boards.models(page.topics)),
        Route("/api/stream", stream),
    ]


Answer = Json | None | Awaitable[Json | None]


def _question(path: str, answer: Callable[[Request], Answer]) -> Route:
    """A route that answers with JSON: 404 for None, 400 for parameters that cannot be used."""

    async def respond(request: Request) -> Response:
        try:
            found = answer(request)
            if isinstance(found, Awaitable):
                found = await found
        except InvalidInputError as error:
            return json_response({"error": str(error)}, 400)
        if found is None:
            return json_response({"error": "there is no such item"}, 404)
        return json_response(found)

    return Route(path, respond)


def _probes(page: Page) -> list[Route]:
    async def live(_: Request) -> Response:
        return _probe(page.stuck())

    async def ready(_: Request) -> Response:
        return _probe(page.not_ready())

    async def metrics(_: Request) -> Response:
        figures = generate_latest(page.registry)
        return Response(figures, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/livez", live), Route("/readyz", ready), Route("/metrics", metrics)]


def _probe(problem: str | None) -> Response:
    return PlainTextResponse(f"{problem or 'ok'}\n", 503 if problem else 200)


def json_response(content: Json, status: int = 200) -> Response:
    """JSON that nobody caches."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")


# Files --------------------------------------------------------------------------------------------


def _files() -> list[BaseRoute]:
    async def index(request: Request) -> Response:
        text = (STATIC / "index.html").read_text("utf-8")
        body = text.replace("{plotly_version}", PLOTLY_VERSION).encode()
        tag = hashlib.sha256(body).hexdigest()[:16]
        return _unless_known(request, tag, HTMLResponse(body, headers=ASK_AGAIN))

    async def plotly(request: Request) -> Response:
        packed = "gzip" in request.headers.get("accept-encoding", "")
        body = await asyncio.to_thread(_plotly, packed)
        # The page asks with the version in the address, so what is kept never goes stale.
        headers = {"Cache-Control": f"public, max-age={YEAR_S}, immutable"}
        headers["Vary"] = "Accept-Encoding"
        if packed:
            headers["Content-Encoding"] = "gzip"
        answer = Response(body, headers=headers, media_type="text/javascript")
        return _unless_known(request, f"plotly-{PLOTLY_VERSION}", answer)

    return [
        Route("/", index),
        Mount("/static", _OwnFiles(directory=STATIC)),
        Route("/vendor/plotly.min.js", plotly),
    ]


class _OwnFiles(StaticFiles):
    """Our few small files: a browser keeps them but asks each time whether they changed.

    Only names that are there reach the disk, so no path is too long, too odd or elsewhere.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path not in OWN_FILES:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return await super().get_response(path, scope)

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(ASK_AGAIN)
        return response


def _unless_known(request: Request, tag: str, answer: Response) -> Response:
    """The answer under a tag, or 304 when the browser has it already."""
    answer.headers["ETag"] = f'"{tag}"'
    if request.headers.get("if-none-match") == answer.headers["ETag"]:
        return NotModifiedResponse(answer.headers)
    return answer


@lru_cache(maxsize=2)
def _plotly(packed: bool) -> bytes:
    """plotly.js as the plotly package brings it; packed once per process."""
    body = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return gzip.compress(body, 6, mtime=0) if packed else body
