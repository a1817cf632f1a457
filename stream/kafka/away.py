"""Why no broker answers, by what its client heard while it waited."""

from __future__ import annotations

import re
from collections.abc import Sequence

from confluent_kafka import KafkaError

from freshet.stream.config import KafkaSettings
from freshet.stream.errors import BrokerError

# How librdkafka names a broker that Kafka told of: by its address and its number.
_BROKER = re.compile(r"(?P<address>\S+:\d+)/\d+: (Connect to|Failed to resolve)")
START_HINT = "start one, or set kafka.bootstrap_servers (FRESHET_KAFKA__BOOTSTRAP_SERVERS)"


def away(kafka: KafkaSettings, reason: str, heard: Sequence[KafkaError]) -> BrokerError:
    """What to say of brokers that gave no answer in time.

    Args:
        kafka: Where they should be.
        reason: What the call said, which is never more than that it took too long.
        heard: What the client said of its connections meanwhile.
    """
    servers = kafka.bootstrap_servers
    named = _named_elsewhere(servers, [error.str() for error in heard])
    if named is not None:
        return named
    for code, say in _KNOWN.items():
        for error in heard:
            if error.code() == code:
                return say(servers, error.str())
    for error in heard:
        if "security.protocol" in error.str():
            return _other_protocol(servers, error.str())
    if heard and all(error.code() == KafkaError._ALL_BROKERS_DOWN for error in heard):
        # A connection that is refused would have been named: this one was taken, and closed.
        return _other_protocol(servers, "it closes the connection")
    why = next((error.str() for error in heard), reason)
    timeout_s = kafka.request_timeout_ms / 1_000
    text = f"no Kafka broker answers at {servers} within {timeout_s:g} s ({why})"
    return BrokerError(text, hint=START_HINT)


def _named_elsewhere(servers: str, heard: Sequence[str]) -> BrokerError | None:
    """Where Kafka answered, and named an address of its own that does not."""
    if any("/bootstrap: " in text for text in heard):
        return None
    own = {server.strip() for server in servers.split(",")}
    for text in heard:
        broker = _BROKER.match(text)
        if broker is not None and broker["address"] not in own:
            return BrokerError(
                f"Kafka at {servers} answers, and says that a broker is at {broker['address']}: "
                f"{text}",
                hint="its advertised.listeners must name an address that this machine can reach",
            )
    return None


def _refused(servers: str, said: str) -> BrokerError:
    return BrokerError(
        f"Kafka at {servers} does not let us in: {said}",
        hint="are kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password its own?",
    )


def _untrusted(servers: str, said: str) -> BrokerError:
    return BrokerError(
        f"no TLS with Kafka at {servers}: {said}",
        hint="is kafka.ssl_ca_location what signed its certificate, does it ask for ours, and does "
        "this port speak TLS (kafka.security_protocol)?",
    )


def _nameless(servers: str, said: str) -> BrokerError:
    return BrokerError(
        f"the address of Kafka, {servers}, leads nowhere: {said}",
        hint="is the name in kafka.bootstrap_servers right, seen from this machine?",
    )


def _other_protocol(servers: str, said: str) -> BrokerError:
    return BrokerError(
        f"what listens at {servers} does not speak as we do: {said}",
        hint="is kafka.security_protocol this listener's, and is it Kafka at all?",
    )


_KNOWN = {
    KafkaError._AUTHENTICATION: _refused,
    KafkaError.SASL_AUTHENTICATION_FAILED: _refused,
    KafkaError._SSL: _untrusted,
    KafkaError._RESOLVE: _nameless,
}
