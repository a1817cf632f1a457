"""Who may ask: the `Host` header is one of ours, and where a token is set, it is known."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freshet.stream.config import DashboardSettings

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ANY = "*"
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by address, by machines without a token; they name no item and no sale."""

COOKIE = "freshet_read"
COOKIE_AGE_S = 30 * 86_400
PARAMETER = "token"
BEARER = "bearer "
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
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Stands before the application, and adds the security headers to every response.

    * A name that is not ours means that some page elsewhere had its own name point to us (DNS
      rebinding): 421.
    * The token comes as `Authorization: Bearer ...`, or once as `?token=...`: the answer to that
      leads to the same address without it and sets a cookie, made from the token, not the token.
      Without it: 401.

    Args:
        app: What answers.
        settings: Names and token.
    """

    def __init__(self, app: ASGIApp, settings: DashboardSettings) -> None:
        self._app = app
        self._names = {plain_name(name) for name in (*LOCAL_NAMES, settings.host)}
        self._names |= {plain_name(name) for name in settings.allowed_hosts}
        self._token = settings.read_token.get_secret_value()
        self._cookie = hmac.new(self._token.encode(), b"cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What to answer instead of what was asked for; None where nothing is wrong."""
        if request.scope["path"] in PROBES:
            return None
        named = request.headers.get("host", "")
        if ANY not in self._names and plain_name(named) not in self._names:
            return PlainTextResponse(
                f"this page has no name {named[:100]!r}; dashboard.allowed_hosts lists its names\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        return None if not self._token or self._knows_token(request) else self._asked(request)

    def _knows_token(self, request: Request) -> bool:
        header = request.headers.get("authorization", "")
        bearer = header[len(BEARER) :] if header.lower().startswith(BEARER) else ""
        return same(bearer, self._token) or same(request.cookies.get(COOKIE, ""), self._cookie)

    def _asked(self, request: Request) -> Response:
        """Who brings the token in the address gets the cookie; who does not is told how to."""
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == PARAMETER and same(value, self._token) for name, value in query):
            return PlainTextResponse(
                "this page wants its read token (dashboard.read_token): open /?token=... once, or "
                "send Authorization: Bearer ...\n",
                HTTPStatus.UNAUTHORIZED,
                {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"},
            )
        rest = urlencode([(name, value) for name, value in query if name != PARAMETER])
        # One leading slash only: two would lead to another host.
        path = "/" + quote(request.scope["path"].lstrip("/\\"))
        answer = RedirectResponse(
            f"{path}?{rest}" if rest else path,
            HTTPStatus.SEE_OTHER,
            {"Cache-Control": "no-store"},
        )
        answer.set_cookie(
            COOKIE,
            self._cookie,
            max_age=COOKIE_AGE_S,
            httponly=True,
            samesite="lax",
            secure=request.scope["scheme"] == "https",
        )
        return answer


def plain_name(host: str) -> str:
    """A host's name as it is compared: without port, brackets, last dot and capitals.

    >>> [plain_name(host) for host in ("Shop.example.:80", "[::1]:8321", "::1", "127.0.0.1:1")]
    ['shop.example', '::1', '::1', '127.0.0.1']
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.partition(":")[0].removesuffix(".")


def same(found: str, wanted: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing."""
    return hmac.compare_digest(found.encode(), wanted.encode())
