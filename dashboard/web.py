"""The HTTP face: routes, security headers, static files, and plotly from the installed package."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Protocol

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freshet.dashboard import api, boards
from freshet.dashboard.actuals import Actuals
from freshet.dashboard.hub import EventStream, Hub
from freshet.dashboard.state import TopicState
from freshet.stream.errors import InvalidInputError

STATIC = Path(__file__).parent / "static"
PLOTLY_VERSION = metadata.version("plotly")
YEAR_S = 31_536_000
MAX_ITEM_ID = 1_024
# Plotly writes style attributes and sheets of its own; nothing else needs more than our own files.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class State(Protocol):
    """What the routes look at."""

    topics: TopicState
    hub: Hub
    registry: CollectorRegistry
    max_points: int

    @property
    def actuals(self) -> Actuals:
        """The newest snapshot of what was sold."""

    def moment(self) -> api.Moment:
        """Time, rates and what is wrong."""

    def summary(self) -> dict[str, Any]:
        """The overview."""

    def not_ready(self) -> str | None:
        """Why the page is not ready; None when it is."""


def build(state: State) -> ASGIApp:
    """The application for a state."""
    return _SecurityHeaders(Starlette(routes=[*_pages(), *_questions(state), *_probes(state)]))


def _questions(state: State) -> list[Route]:
    def answer(path: str, question: Callable[[Request], Any]) -> Route:
        async def respond(request: Request) -> Response:
            try:
                found = question(request)
            except InvalidInputError as error:
                return json_response({"error": str(error)}, 400)
            return (
                json_response(found)
                if found is not None
                else json_response({"error": "there is no such item"}, 404)
            )

        return Route(path, respond)

    def errors(request: Request) -> Any:
        return api.errors(state.topics, request.query_params.get("segment", ""), state.max_points)

    def item(request: Request) -> Any:
        item_id = request.path_params["item_id"]
        return (
            api.item(state.topics, state.actuals, state.moment(), item_id)
            if len(item_id) <= MAX_ITEM_ID
            else None
        )

    async def stream(request: Request) -> Response:
        return EventStream(state.hub, request.headers.get("last-event-id", ""))

    return [
        answer("/api/overview", lambda request: state.summary() | {"errors": errors(request)}),
        answer("/api/errors", errors),
        answer(
            "/api/items",
            lambda r: api.items(state.topics, state.actuals, api.item_query(dict(r.query_params))),
        ),
        answer("/api/items/{item_id:path}", item),
        answer(
            "/api/flash-sales",
            lambda _: boards.flash_sales(state.topics, state.actuals, state.moment().now_ms),
        ),
        answer("/api/drift", lambda _: boards.drift(state.topics)),
        answer("/api/models", lambda _: boards.models(state.topics)),
        Route("/api/stream", stream),
    ]


def _probes(state: State) -> list[Route]:
    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        problem = state.not_ready()
        return PlainTextResponse(f"{problem or 'ok'}\n", 503 if problem else 200)

    async def metrics(_: Request) -> Response:
        return Response(
            generate_latest(state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return [Route("/livez", live), Route("/readyz", ready), Route("/metrics", metrics)]


def json_response(content: Any, status: int = 200) -> Response:
    """JSON that nobody caches."""
    headers = {"Cache-Control": "no-store"}
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY),
        status,
        headers,
        "application/json",
    )


# Files --------------------------------------------------------------------------------------------


def _pages() -> list[Route]:
    async def page(request: Request) -> Response:
        return _file(request, STATIC / "index.html")

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        path = STATIC / name
        known = "/" not in name and not name.startswith(".") and path.is_file()
        return _file(request, path) if known else PlainTextResponse("there is no such file\n", 404)

    async def plotly(request: Request) -> Response:
        packed = "gzip" in request.headers.get("accept-encoding", "")
        body = await asyncio.to_thread(_plotly, packed)
        headers = {
            "Cache-Control": f"public, max-age={YEAR_S}, immutable",
            "Vary": "Accept-Encoding",
        }
        if packed:
            headers["Content-Encoding"] = "gzip"
        return _unless_known(
            request, body, f'"plotly-{PLOTLY_VERSION}"', "text/javascript", headers
        )

    return [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/vendor/plotly.min.js", plotly),
    ]


def _file(request: Request, path: Path) -> Response:
    body = path.read_bytes()
    if path.name == "index.html":
        body = body.replace(b"{plotly_version}", PLOTLY_VERSION.encode())
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return _unless_known(request, body, tag, media_type, {"Cache-Control": "no-cache"})


def _unless_known(
    request: Request, body: bytes, tag: str, media_type: str, headers: dict[str, str]
) -> Response:
    """The body, or 304 when the browser has it already."""
    headers = headers | {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


@lru_cache(maxsize=2)
def _plotly(packed: bool) -> bytes:
    """plotly.js as the plotly package brings it; packed once per process."""
    body = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return gzip.compress(body, 6, mtime=0) if packed else body


class _SecurityHeaders:
    """Adds the security headers to every response, without touching streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
