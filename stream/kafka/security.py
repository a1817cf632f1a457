"""The one translation of our settings of Kafka into what each client library is told."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from freshet.stream.config import KafkaSettings
from freshet.stream.errors import ConfigError
from freshet.stream.kafka.tokens import TokenProvider, Tokens, ask_of
from freshet.stream.kafka_settings import TOKEN_MECHANISMS
from freshet.stream.telemetry import get_logger

OF_TRUST: Final = ("enable.sasl.", "enable.ssl.", "https.", "sasl.", "security.", "ssl.")
"""How names of librdkafka begin that say who one is and whom one trusts."""

AIOKAFKA: Final = "freshet dashboard (aiokafka)"
FAUST: Final = "freshet control (Faust)"
"""What errors call the Python clients."""

CHECKS_NAMES: Final = "ssl.endpoint.identification.algorithm"
CHECKS_CERTIFICATES: Final = "enable.ssl.certificate.verification"
CA_TEXT: Final = "ssl.ca.pem"
UNDERSTOOD: Final = frozenset({CHECKS_NAMES, CHECKS_CERTIFICATES, CA_TEXT})
"""What the Python clients can be told besides what has a setting of its own."""

Made = TypeVar("Made")

log = get_logger(__name__)


def mechanism_of(kafka: KafkaSettings) -> str:
    """The mechanism as the brokers know it; empty without SASL."""
    if not kafka.security_protocol.startswith("SASL"):
        return ""
    if kafka.sasl_mechanism in TOKEN_MECHANISMS:
        return "OAUTHBEARER"
    return kafka.sasl_mechanism or "PLAIN"


def own_settings(kafka: KafkaSettings) -> dict[str, str]:
    """The table `kafka.client` as librdkafka takes it."""
    return {name: value.get_secret_value() for name, value in kafka.client.items()}


# librdkafka ---------------------------------------------------------------------------------------


def librdkafka(kafka: KafkaSettings) -> dict[str, Any]:
    """What confluent-kafka is told of who we are and whom we trust.

    Raises:
        ConfigError: A library that the mechanism needs is not installed.
    """
    config: dict[str, Any] = {"security.protocol": kafka.security_protocol}
    mechanism = mechanism_of(kafka)
    if mechanism:
        config["sasl.mechanism"] = mechanism
        config |= _as_whom(kafka, mechanism)
    config |= {
        "ssl.ca.location": kafka.ssl_ca_location,
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
        "ssl.key.password": kafka.ssl_key_password.get_secret_value(),
    }
    return {name: value for name, value in config.items() if value != ""}


def _as_whom(kafka: KafkaSettings, mechanism: str) -> dict[str, Any]:
    if mechanism == "GSSAPI":
        return {
            "sasl.kerberos.service.name": kafka.sasl_kerberos_service_name,
            "sasl.kerberos.principal": kafka.sasl_kerberos_principal,
            "sasl.kerberos.keytab": kafka.sasl_kerberos_keytab,
        }
    if mechanism != "OAUTHBEARER":
        return {
            "sasl.username": kafka.sasl_username,
            "sasl.password": kafka.sasl_password.get_secret_value(),
        }
    if "sasl.oauthbearer.method" in kafka.client:
        return {}
    if kafka.oidc.token_endpoint_url:
        return _oidc(kafka)
    ask = ask_of(kafka)

    def give(_: str) -> tuple[str, float]:
        token = ask()
        return token.value, token.expires_s

    return {"oauth_cb": give}


def _oidc(kafka: KafkaSettings) -> dict[str, Any]:
    oidc = kafka.oidc
    return {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": oidc.token_endpoint_url,
        "sasl.oauthbearer.client.id": oidc.client_id,
        "sasl.oauthbearer.client.secret": oidc.client_secret.get_secret_value(),
        "sasl.oauthbearer.scope": oidc.scope,
        "sasl.oauthbearer.extensions": ",".join(
            f"{name}={value}" for name, value in oidc.extensions.items()
        ),
        "https.ca.location": oidc.ca_location,
    }


# The Python clients -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignIn:
    """What aiokafka and Faust are told, each in its own words.

    `mechanism` is empty without SASL, `context` None without TLS, `tokens` None where the mechanism
    asks for none.
    """

    protocol: str
    mechanism: str
    username: str
    password: str = field(repr=False)
    service_name: str
    context: ssl.SSLContext | None
    tokens: TokenProvider | None


def sign_in(kafka: KafkaSettings, client: str) -> SignIn:
    """How a Python client signs in.

    Args:
        kafka: As whom.
        client: What errors call it: `AIOKAFKA` or `FAUST`.

    Raises:
        ConfigError: A file cannot be used, or the client cannot do what a setting asks for.
    """
    mechanism = mechanism_of(kafka)
    _check_can(kafka, client, mechanism)
    return SignIn(
        protocol=kafka.security_protocol,
        mechanism=mechanism,
        username=kafka.sasl_username,
        password=kafka.sasl_password.get_secret_value(),
        service_name=kafka.sasl_kerberos_service_name,
        context=_context(kafka) if kafka.security_protocol.endswith("SSL") else None,
        tokens=_tokens(kafka) if mechanism == "OAUTHBEARER" else None,
    )


def _tokens(kafka: KafkaSettings) -> TokenProvider:
    return TokenProvider(Tokens(ask_of(kafka)), kafka.oidc.extensions)


def _check_can(kafka: KafkaSettings, client: str, mechanism: str) -> None:
    for name in sorted(kafka.client):
        if name.startswith(OF_TRUST) and name not in UNDERSTOOD:
            raise ConfigError(
                f"{client} cannot follow kafka.client {name}, only librdkafka can",
                hint="docs/security.md says which settings all clients follow",
            )
    if mechanism == "GSSAPI":
        _check_kerberos(kafka, client)
    tuned = sorted(name for name in kafka.client if not name.startswith(OF_TRUST))
    if tuned:
        log.warning("kafka_client_settings_unused", client=client, settings=tuned)


def _check_kerberos(kafka: KafkaSettings, client: str) -> None:
    for name in ("sasl_kerberos_keytab", "sasl_kerberos_principal"):
        if getattr(kafka, name):
            raise ConfigError(
                f"{client} cannot follow kafka.{name}, only librdkafka can",
                hint="leave it empty and name the keytab in KRB5_CLIENT_KTNAME, which all follow",
            )
    if importlib.util.find_spec("gssapi") is None:
        raise ConfigError(
            f"{client} cannot sign in with GSSAPI: a library is not installed",
            hint="pip install 'freshet[kerberos]'",
        )


def _context(kafka: KafkaSettings) -> ssl.SSLContext:
    own = own_settings(kafka)
    location, text = kafka.ssl_ca_location or None, own.get(CA_TEXT)
    context = _from_files(
        lambda: ssl.create_default_context(cafile=location, cadata=text),
        f"kafka.ssl_ca_location {kafka.ssl_ca_location!r}",
    )
    if own.get(CHECKS_NAMES, "https") == "none":
        context.check_hostname = False
    if own.get(CHECKS_CERTIFICATES, "true") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if kafka.ssl_certificate_location:
        _from_files(
            lambda: context.load_cert_chain(
                kafka.ssl_certificate_location,
                kafka.ssl_key_location,
                # Without one OpenSSL would ask on the terminal, and wait.
                kafka.ssl_key_password.get_secret_value,
            ),
            f"kafka.ssl_certificate_location {kafka.ssl_certificate_location!r} with "
            f"kafka.ssl_key_location {kafka.ssl_key_location!r}",
        )
    return context


def _from_files(make: Callable[[], Made], named: str) -> Made:
    try:
        return make()
    except OSError as error:  # ssl.SSLError among them.
        raise ConfigError(f"{named} cannot be used: {error}") from None
