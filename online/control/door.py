"""`POST /v1/retrain`: who knows the token asks for training, as anybody may on the retrain topic.

    401  no token came          403  it is another one, or `control.retrain_token` is not set
    400  the body is none       409  a drift's or a person's request has no answer yet
    202  it is on the topic     503  it could not be put there: ask again

Learn answers on the models topic: `training`, `trial` with each day, then `promoted` or `rejected`,
all with the request's id.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from freshet.stream.errors import FreshetError
from freshet.stream.schemas import RetrainRequest
from freshet.stream.telemetry import get_logger

PATH = "/v1/retrain"
BEARER = "bearer "
MAX_SEGMENTS = 1_000

log = get_logger(__name__)

Segment = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said; nothing need be.

    Attributes:
        segments: Whose windows come first in training and whose gain is tested; none is the shop.
        reason: What a drift or the schedule asks for has a budget of errors of its own.
    """

    segments: Annotated[list[Segment], msgspec.Meta(max_length=MAX_SEGMENTS)] = []
    reason: Literal["manual"] = "manual"


class Busy(Exception):
    """Another request has no answer yet."""

    def __init__(self, request: RetrainRequest) -> None:
        super().__init__(request.request_id)
        self.request = request


@dataclass(frozen=True, slots=True)
class Door:
    """Answers one POST.

    Args:
        token: Who knows it may ask; empty lets nobody.
        ask: Puts a request for some segments on the topic and returns once that is acknowledged;
            raises `Busy`, or a FreshetError where it cannot.
    """

    token: str
    ask: Callable[[list[str]], RetrainRequest]

    def __call__(self, authorization: str, body: bytes) -> tuple[int, bytes]:
        """Status and JSON."""
        refused = self._refusal(authorization)
        if refused is not None:
            return refused
        try:
            wanted = msgspec.json.decode(body or b"{}", type=Body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _said(HTTPStatus.BAD_REQUEST, error=str(error))
        try:
            request = self.ask(wanted.segments)
        except Busy as busy:
            told = "another request has no answer yet"
            return _said(HTTPStatus.CONFLICT, error=told, request_id=busy.request.request_id)
        except FreshetError as error:
            return _said(HTTPStatus.SERVICE_UNAVAILABLE, error=str(error))
        log.info("retrain_asked", request_id=request.request_id, segments=request.segments)
        return _said(HTTPStatus.ACCEPTED, request_id=request.request_id)

    def _refusal(self, authorization: str) -> tuple[int, bytes] | None:
        if not self.token:
            return _said(HTTPStatus.FORBIDDEN, error="off: control.retrain_token is not set")
        if not authorization.lower().startswith(BEARER):
            return _said(HTTPStatus.UNAUTHORIZED, error="send Authorization: Bearer <token>")
        # In constant time: how long a comparison takes would tell how much of a guess is right.
        given = authorization[len(BEARER) :].strip().encode("latin-1", "replace")
        if not hmac.compare_digest(given, self.token.encode()):
            return _said(HTTPStatus.FORBIDDEN, error="that is not control.retrain_token")
        return None


def _said(status: HTTPStatus, **facts: str) -> tuple[int, bytes]:
    return int(status), msgspec.json.encode(facts)
