"""How to reach Kafka: servers, how to sign in, topics, and the client library's own settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, SecretStr, field_validator, model_validator

from freshet.stream.section import Positive, Section
from freshet.stream.units import DAY_MS

Kind = TypeVar("Kind", bound=str)
TOKEN_MECHANISMS = ("OAUTHBEARER", "AWS_MSK_IAM")


class Topics(Section):
    """Names of the topics, so that a shop can keep its own."""

    orders: str = "freshet.orders.v1"
    clicks: str = "freshet.clicks.v1"
    catalog: str = "freshet.catalog.v1"
    promotions: str = "freshet.promotions.v1"
    inventory: str = "freshet.inventory.v1"
    covariates: str = "freshet.covariates.v1"
    late: str = "freshet.late.v1"
    windows: str = "freshet.windows.v1"
    forecasts: str = "freshet.forecasts.v1"
    rounds: str = "freshet.rounds.v1"
    forecasts_latest: str = Field("freshet.forecasts.latest.v1", description="Empty turns it off.")
    shadow: str = "freshet.shadow.v1"
    scores: str = "freshet.scores.v1"
    scored: str = "freshet.scored.v1"
    drift: str = "freshet.drift.v1"
    retrain: str = "freshet.retrain.v1"
    models: str = "freshet.models.v1"
    effects: str = "freshet.effects.v1"
    owner: str = "freshet.owner.v1"
    decisions: str = "freshet.decisions.v1"
    alerts: str = "freshet.alerts.v1"

    def of(self, *kinds: Kind) -> dict[str, Kind]:
        """What each of these topics holds, by the topic's name.

        >>> Topics(catalog="shop.items").of("catalog", "models")
        {'shop.items': 'catalog', 'freshet.models.v1': 'models'}
        """
        return {getattr(self, kind): kind for kind in kinds}


class RegistrySettings(Section):
    """How to reach a Schema Registry: Confluent's, or one that answers as it does."""

    url: str = Field("", description="Such as http://registry:8081; empty: there is none.")
    username: str = ""
    password: SecretStr = SecretStr("")
    ca_location: str = ""
    timeout_ms: Positive = 5_000


class OidcSettings(Section):
    """Where OAUTHBEARER tokens come from: an OpenID provider, by client credentials."""

    token_endpoint_url: str = Field(
        "", description="Such as https://sso.example.com/token; empty: there is none."
    )
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scope: str = ""
    extensions: dict[str, str] = Field(
        {}, description="Name = value sent beside the token, such as logicalCluster."
    )
    ca_location: str = Field("", description="Certificates that the token endpoint is checked by.")


OF_ITS_OWN: Mapping[str, str] = {
    "bootstrap.servers": "kafka.bootstrap_servers",
    "metadata.broker.list": "kafka.bootstrap_servers",
    "security.protocol": "kafka.security_protocol",
    "sasl.mechanism": "kafka.sasl_mechanism",
    "sasl.mechanisms": "kafka.sasl_mechanism",
    "sasl.username": "kafka.sasl_username",
    "sasl.password": "kafka.sasl_password",
    "ssl.ca.location": "kafka.ssl_ca_location",
    "ssl.certificate.location": "kafka.ssl_certificate_location",
    "ssl.key.location": "kafka.ssl_key_location",
    "ssl.key.password": "kafka.ssl_key_password",
    "sasl.kerberos.service.name": "kafka.sasl_kerberos_service_name",
    "sasl.kerberos.principal": "kafka.sasl_kerberos_principal",
    "sasl.kerberos.keytab": "kafka.sasl_kerberos_keytab",
    "sasl.oauthbearer.client.id": "kafka.oidc.client_id",
    "sasl.oauthbearer.client.secret": "kafka.oidc.client_secret",
    "sasl.oauthbearer.token.endpoint.url": "kafka.oidc.token_endpoint_url",
    "sasl.oauthbearer.scope": "kafka.oidc.scope",
    "sasl.oauthbearer.extensions": "kafka.oidc.extensions",
    "https.ca.location": "kafka.oidc.ca_location",
    "group.id": "kafka.group_prefix",
    "group.instance.id": "kafka.group_instance_id",
    "session.timeout.ms": "kafka.session_timeout_ms",
    "socket.timeout.ms": "kafka.request_timeout_ms",
    "message.max.bytes": "kafka.max_record_bytes",
}
"""The client library's settings that have a name of their own here, which all clients follow."""

UNTOUCHABLE = frozenset(
    {
        "acks",
        "request.required.acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "auto.commit.enable",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "enable.partition.eof",
        "group.protocol",
        "isolation.level",
        "partition.assignment.strategy",
        "partitioner",
        "transactional.id",
    }
)
"""What exactly once, and the place of each item, rest on."""


class KafkaSettings(Section):
    """How to reach Kafka; docs/security.md says how to sign in."""

    bootstrap_servers: str = "localhost:9092"
    group_prefix: str = Field(
        "freshet", description="Consumer groups are named <prefix>.<process>."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal[
        "",
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
        "GSSAPI",
        "OAUTHBEARER",
        "AWS_MSK_IAM",
    ] = Field("", description="Empty is PLAIN where the protocol has SASL.")
    sasl_username: str = ""
    sasl_password: SecretStr = Field(
        SecretStr(""),
        description="Of PLAIN and SCRAM; of OAUTHBEARER without kafka.oidc, the token itself.",
    )
    sasl_kerberos_service_name: str = Field(
        "kafka", description="Of GSSAPI: the brokers' principal before the slash."
    )
    sasl_kerberos_principal: str = Field(
        "", description="Of GSSAPI, of librdkafka alone; see docs/security.md."
    )
    sasl_kerberos_keytab: str = Field(
        "", description="Of GSSAPI, of librdkafka alone; see docs/security.md."
    )
    aws_region: str = Field("", description="Of AWS_MSK_IAM, such as eu-central-1.")
    ssl_ca_location: str = Field(
        "", description="Certificates (PEM) that brokers are checked by; empty: the machine's own."
    )
    ssl_certificate_location: str = Field(
        "", description="Our own certificate and its chain (PEM), for brokers that ask for one."
    )
    ssl_key_location: str = Field("", description="Its private key (PEM).")
    ssl_key_password: SecretStr = SecretStr("")
    partitions: Positive = Field(4, description="Partitions of the topics that freshet creates.")
    replication_factor: Positive = 1
    request_timeout_ms: Positive = 10_000
    session_timeout_ms: Positive = 10_000
    group_instance_id: str = Field(
        "",
        description="A name of this ingest process alone that survives its restart: it then has "
        "its partitions back at once, not after session_timeout_ms.",
    )
    max_record_bytes: Positive = 1_000_000
    dead_letter_retention_ms: Positive = Field(
        14 * DAY_MS, description="How long dead letters and late records, raw as they came, stay."
    )
    client: dict[str, SecretStr] = Field(
        {},
        description="Any setting of librdkafka by its own name, such as "
        '"socket.keepalive.enable" = true; never shown, for it may be a secret.',
    )
    topics: Topics = Topics()
    registry: RegistrySettings = RegistrySettings()
    oidc: OidcSettings = OidcSettings()

    @field_validator("client", mode="before")
    @classmethod
    def _is_flat_text(cls, table: Any) -> Any:
        return dict(_flat(table)) if isinstance(table, dict) else table

    @field_validator("client")
    @classmethod
    def _leaves_alone_what_is_ours(cls, table: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name in table:
            if name in OF_ITS_OWN:
                raise ValueError(f"{name} has a setting of its own, {OF_ITS_OWN[name]}")
            if name in UNTOUCHABLE:
                raise ValueError(f"{name} cannot be set: exactly once rests on it")
            if name.endswith(("_cb", "logger")):
                raise ValueError(f"{name} is no setting of librdkafka's that text can say")
        return table

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> Self:
        _check_protocol(self)
        if self.sasl_mechanism == "AWS_MSK_IAM" and not self.aws_region:
            raise ValueError("sasl_mechanism AWS_MSK_IAM needs kafka.aws_region")
        if self.sasl_mechanism == "OAUTHBEARER" and not _gives_tokens(self):
            raise ValueError(
                "sasl_mechanism OAUTHBEARER needs kafka.oidc.token_endpoint_url, or a token in "
                "kafka.sasl_password"
            )
        if bool(self.ssl_certificate_location) != bool(self.ssl_key_location):
            raise ValueError(
                "ssl_certificate_location and ssl_key_location go together, and one is empty"
            )
        return self


def _check_protocol(kafka: KafkaSettings) -> None:
    """A mechanism or certificate that the protocol does not use would be dropped silently."""
    protocol = kafka.security_protocol
    if kafka.sasl_mechanism and not protocol.startswith("SASL"):
        raise ValueError(
            f"sasl_mechanism {kafka.sasl_mechanism} is not used by security_protocol {protocol}; "
            "SASL_SSL is meant"
        )
    if kafka.oidc.token_endpoint_url and kafka.sasl_mechanism != "OAUTHBEARER":
        raise ValueError("oidc.token_endpoint_url is used by sasl_mechanism OAUTHBEARER alone")
    for name in ("ssl_ca_location", "ssl_certificate_location"):
        if getattr(kafka, name) and not protocol.endswith("SSL"):
            raise ValueError(f"{name} is not used by security_protocol {protocol}")


def _gives_tokens(kafka: KafkaSettings) -> bool:
    return bool(
        kafka.oidc.token_endpoint_url
        or kafka.sasl_password.get_secret_value()
        or "sasl.oauthbearer.method" in kafka.client
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots, which TOML reads as tables where they are not quoted; values as text.

    >>> dict(_flat({"socket": {"keepalive.enable": True}, "linger.ms": 5}))
    {'socket.keepalive.enable': 'true', 'linger.ms': '5'}
    """
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}", str(value).lower()
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", str(value)
        else:
            yield f"{prefix}{name}", value
