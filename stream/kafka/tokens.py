"""Tokens to sign in with: one that was given, an OpenID provider's, or one for Amazon MSK."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from freshet.stream.config import KafkaSettings
from freshet.stream.errors import BrokerError, ConfigError

GIVEN_LIFE_S = 3_600.0
DEFAULT_LIFE_S = 300.0
USED_SHARE = 0.8
"""A token is asked for anew after this share of its life, as librdkafka does."""

MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Token:
    """What a broker is shown; `expires_s` counts from 1970."""

    value: str = field(repr=False)
    expires_s: float


Ask = Callable[[], Token]


class Tokens:
    """The token of now: asked for when it is first wanted, and again before it expires."""

    def __init__(self, ask: Ask, now_s: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._now_s = now_s
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._renew_s = 0.0

    def current(self) -> Token:
        """Blocks while a provider is asked.

        Raises:
            BrokerError: The provider gives none.
        """
        with self._lock:
            now_s = self._now_s()
            if self._token is None or now_s >= self._renew_s:
                self._token = self._ask()
                self._renew_s = now_s + USED_SHARE * (self._token.expires_s - now_s)
            return self._token


class TokenProvider:
    """Tokens as the Python clients ask for them."""

    def __init__(self, tokens: Tokens, extensions: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._extensions = dict(extensions)

    async def token(self) -> str:
        """The token of now, without holding up the event loop."""
        found = await asyncio.to_thread(self._tokens.current)
        return found.value

    def extensions(self) -> dict[str, str]:
        """What is sent beside it."""
        return self._extensions


def ask_of(kafka: KafkaSettings) -> Ask:
    """How a token is got, for a mechanism that needs one.

    Raises:
        ConfigError: Amazon's library is not installed, or the certificates cannot be read.
    """
    if kafka.sasl_mechanism == "AWS_MSK_IAM":
        return _amazon(kafka.aws_region)
    if kafka.oidc.token_endpoint_url:
        return _client_credentials(kafka)
    return lambda: Token(kafka.sasl_password.get_secret_value(), time.time() + GIVEN_LIFE_S)


def _amazon(region: str) -> Ask:
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ImportError:
        raise ConfigError(
            "kafka.sasl_mechanism AWS_MSK_IAM needs Amazon's library, which is not installed",
            hint="pip install 'freshet[msk]'",
        ) from None

    def ask() -> Token:
        value, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return Token(value, expires_ms / 1_000)

    return ask


def _client_credentials(kafka: KafkaSettings) -> Ask:
    """RFC 6749, section 4.4; the secret goes in the header, as librdkafka sends it."""
    oidc = kafka.oidc
    scheme = urllib.parse.urlsplit(oidc.token_endpoint_url).scheme
    if scheme not in ("http", "https"):
        raise ConfigError("kafka.oidc.token_endpoint_url does not begin with https://")
    secret = oidc.client_secret.get_secret_value()
    basic = base64.b64encode(f"{oidc.client_id}:{secret}".encode()).decode()
    body = {"grant_type": "client_credentials"}
    if oidc.scope:
        body["scope"] = oidc.scope
    request = urllib.request.Request(
        oidc.token_endpoint_url,
        urllib.parse.urlencode(body).encode(),
        {"Authorization": f"Basic {basic}", "Accept": "application/json"},
    )
    context = https_context(oidc.ca_location) if scheme == "https" else None
    timeout_s = kafka.request_timeout_ms / 1_000
    return lambda: _fetch(request, timeout_s, context)


def https_context(ca_location: str) -> ssl.SSLContext:
    """Checks the provider's certificate.

    Raises:
        ConfigError: The file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_location or None)
    except OSError as error:
        raise ConfigError(f"kafka.oidc.ca_location {ca_location!r}: {error}") from None


def _fetch(
    request: urllib.request.Request, timeout_s: float, context: ssl.SSLContext | None
) -> Token:
    where = f"the token endpoint {request.full_url}"
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as response:
            answer = json.loads(response.read(MAX_ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise BrokerError(
            f"{where} gives no token: {error}",
            hint="are kafka.oidc.client_id and kafka.oidc.client_secret right?",
        ) from None
    return _read(answer, where)


def _read(answer: Any, where: str) -> Token:
    value = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(value, str):
        raise BrokerError(f"{where} answers without an access_token")
    life_s = answer.get("expires_in", DEFAULT_LIFE_S)
    return Token(value, time.time() + float(life_s))
