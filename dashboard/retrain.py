"""A visitor's wish for training, passed on to control with the token that he brings.

The page itself may write nothing to Kafka, and knows no token: who may ask is control's to say.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response

PATH = "/v1/retrain"
MAX_BODY = 100_000
ANSWER_S = 15.0
JSON = "application/json"


class Retrain:
    """Answers `POST /api/retrain` as control answers `POST /v1/retrain`.

    Args:
        control_url: Where control's probes answer, such as `http://control:9103`; empty: nowhere.
    """

    def __init__(self, control_url: str) -> None:
        self._url = control_url.rstrip("/") + PATH
        self.offered = bool(control_url)
        """Whether the page shows that one may ask."""

    async def answer(self, request: Request) -> Response:
        """Control's status and JSON; 404 where the page may not ask, 502 where nobody answers."""
        if not self.offered:
            return _said(HTTPStatus.NOT_FOUND, "off: dashboard.control_url is not set")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _said(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {MAX_BODY} bytes")
        authorization = request.headers.get("authorization", "")
        return await asyncio.to_thread(self._pass_on, authorization, body)

    def _pass_on(self, authorization: str, body: bytes) -> Response:
        headers = {"Authorization": authorization, "Content-Type": JSON}
        asked = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=ANSWER_S) as answer:
                return Response(answer.read(MAX_BODY), answer.status, media_type=JSON)
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.read(MAX_BODY), error.code, media_type=JSON)
        except (OSError, http.client.HTTPException) as error:
            return _said(HTTPStatus.BAD_GATEWAY, f"control does not answer at {self._url}: {error}")


def _said(status: HTTPStatus, error: str) -> Response:
    return Response(orjson.dumps({"error": error}), status, media_type=JSON)
