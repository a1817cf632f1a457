"""How to reach Redis: a server, a cluster, or the master that Sentinels name; how to sign in."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from freshet.stream.section import NotNegative, Positive, Section

Address = Annotated[str, Field(pattern=r"^[^:/@ ]+:\d+$")]
TLS_SCHEME = "rediss://"


class SentinelSettings(Section):
    """Which Sentinels are asked for the master; of redis.url its host and port are not used then.

    They are spoken to as the master is: over TLS where redis.url begins with rediss://.
    """

    addresses: tuple[Address, ...] = Field(
        (), description='Such as ["sentinel-1:26379", "sentinel-2:26379"]; empty: there are none.'
    )
    service: str = Field("mymaster", description="What Sentinels call the master.")
    username: str = Field("", description="Of the Sentinels; the master's is in redis.url.")
    password: SecretStr = SecretStr("")


class RedisSettings(Section):
    """How to reach the window store; docs/security.md says how to sign in."""

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// over TLS, unix://PATH.",
    )
    generation: NotNegative = Field(
        0, description="Which generation of windows is written and read."
    )
    cluster: bool = Field(False, description="The address is one node of a Redis Cluster.")
    timeout_ms: Positive = 5_000
    ssl_ca_location: str = Field(
        "", description="Certificates (PEM) that Redis is checked by; empty: the machine's own."
    )
    ssl_certificate_location: str = Field(
        "", description="Our own certificate (PEM), for a Redis that asks for one."
    )
    ssl_key_location: str = Field("", description="Its private key (PEM).")
    ssl_key_password: SecretStr = SecretStr("")
    sentinel: SentinelSettings = SentinelSettings()

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> Self:
        secured = self.url.get_secret_value().startswith(TLS_SCHEME)
        for name in ("ssl_ca_location", "ssl_certificate_location"):
            if getattr(self, name) and not secured:
                raise ValueError(f"{name} is used where redis.url begins with {TLS_SCHEME} alone")
        if bool(self.ssl_certificate_location) != bool(self.ssl_key_location):
            raise ValueError(
                "ssl_certificate_location and ssl_key_location go together, and one is empty"
            )
        if self.cluster and self.sentinel.addresses:
            raise ValueError("redis.cluster and redis.sentinel.addresses exclude each other")
        return self
