"""All three clients sign in to a real Kafka: by certificate, by SCRAM, and by a provider's tokens.

librdkafka produces and reads back; the page's client and control's client read the same record.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from freshet.dashboard.feed import consumer_options
from freshet.online.control.process import RAW, _new_app
from freshet.stream.child import free_port
from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Publisher, TableReader, cluster, ensure_topics
from freshet.stream.process import BackOff, wait_until
from tests.certificates import authority, client_certificate, server_certificate
from tests.integration.kafka_image import start_kafka

pytestmark = pytest.mark.slow
TOPIC = "freshet.alerts.v1"
NAMES = ("PLAINTEXT", "CONTROLLER", "MTLS", "SCRAM", "OAUTH")
READ_WITHIN_S = 120.0


def environ_of(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """A node that each listener lets in by another proof."""
    kinds = {"MTLS": "SSL", "SCRAM": "SASL_PLAINTEXT", "OAUTH": "SASL_PLAINTEXT"}
    at = [f"{name}://127.0.0.1:{ports[name]}" for name in NAMES]
    module = "org.apache.kafka.common.security"
    unsecured = f"{module}.oauthbearer.internals.unsecured.OAuthBearerUnsecured"
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": ",".join(at),
        "KAFKA_ADVERTISED_LISTENERS": ",".join(text for text in at if "CONTROLLER" not in text),
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": ",".join(
            f"{name}:{kinds.get(name, 'PLAINTEXT')}" for name in NAMES
        ),
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{ports['CONTROLLER']}",
        "KAFKA_LOG_DIRS": str(folder / "log"),
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_LISTENER_NAME_MTLS_SSL_CLIENT_AUTH": "required",
        "KAFKA_LISTENER_NAME_MTLS_SSL_KEYSTORE_TYPE": "PEM",
        "KAFKA_LISTENER_NAME_MTLS_SSL_KEYSTORE_LOCATION": str(folder / "both.pem"),
        "KAFKA_LISTENER_NAME_MTLS_SSL_TRUSTSTORE_TYPE": "PEM",
        "KAFKA_LISTENER_NAME_MTLS_SSL_TRUSTSTORE_LOCATION": str(folder / "ca.pem"),
        "KAFKA_LISTENER_NAME_SCRAM_SASL_ENABLED_MECHANISMS": "SCRAM-SHA-512",
        "KAFKA_LISTENER_NAME_SCRAM_SCRAM___SHA___512_SASL_JAAS_CONFIG": (
            f"{module}.scram.ScramLoginModule required;"
        ),
        "KAFKA_LISTENER_NAME_OAUTH_SASL_ENABLED_MECHANISMS": "OAUTHBEARER",
        "KAFKA_LISTENER_NAME_OAUTH_OAUTHBEARER_SASL_JAAS_CONFIG": (
            f"{module}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";'
        ),
        "KAFKA_LISTENER_NAME_OAUTH_OAUTHBEARER_SASL_SERVER_CALLBACK_HANDLER_CLASS": (
            f"{unsecured}ValidatorCallbackHandler"
        ),
    }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, KafkaSettings]]:
    """The settings that each listener lets in."""
    home = os.environ.get("KAFKA_HOME", "")
    if not home or not Path(home, "bin").exists() or shutil.which("java") is None:
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka, or there is no Java")
    folder = tmp_path_factory.mktemp("guarded")
    signer = authority(folder)
    server_certificate(folder, signer)
    client_certificate(folder, signer, password="locked")
    both = (folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes()
    (folder / "both.pem").write_bytes(both)
    ports = {name: free_port() for name in NAMES}
    with provider() as endpoint, start_kafka(Path(home), folder, environ_of(folder, ports)):
        found = settings_of(folder, ports, endpoint)
        plain = found.pop("PLAINTEXT")
        assert wait_until(lambda: _answers(plain), 60, BackOff(0.1, 0.1))
        _add_user(plain.bootstrap_servers)
        ensure_topics(Settings(kafka=plain), live=False)
        yield found


def settings_of(folder: Path, ports: Mapping[str, int], endpoint: str) -> dict[str, KafkaSettings]:
    """What a shop would write, one for each listener."""
    how: dict[str, dict[str, Any]] = {
        "PLAINTEXT": {},
        "MTLS": {
            "security_protocol": "SSL",
            "ssl_ca_location": str(folder / "ca.pem"),
            "ssl_certificate_location": str(folder / "client.pem"),
            "ssl_key_location": str(folder / "client.key"),
            "ssl_key_password": "locked",
        },
        "SCRAM": {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "freshet",
            "sasl_password": "secret",
        },
        "OAUTH": {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "oidc": {
                "token_endpoint_url": endpoint,
                "client_id": "freshet",
                "client_secret": "secret",
                "scope": "kafka",
            },
        },
        "TOKEN": {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_password": token(),
        },
    }
    at = {**ports, "TOKEN": ports["OAUTH"]}
    return {
        name: KafkaSettings(bootstrap_servers=f"127.0.0.1:{at[name]}", partitions=1, **rest)
        for name, rest in how.items()
    }


def token() -> str:
    """An unsigned token for the user freshet, which this broker takes."""
    now_s = int(time.time())
    claims = {"sub": "freshet", "iat": now_s - 60, "exp": now_s + 3_600, "scope": "kafka"}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


class Provider(BaseHTTPRequestHandler):
    """Gives a token to whoever knows the secret."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == "Basic ZnJlc2hldDpzZWNyZXQ="
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if known:
            answer = {"access_token": token(), "expires_in": 3_600, "token_type": "Bearer"}
            self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def provider() -> Iterator[str]:
    """The address of a token endpoint."""
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def _answers(kafka: KafkaSettings) -> bool:
    try:
        return bool(cluster(Settings(kafka=kafka.model_copy(update=QUICK))).num_brokers)
    except BrokerError:
        return False


QUICK = {"request_timeout_ms": 1_000}


def _add_user(bootstrap_servers: str) -> None:
    secret = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
    user = UserScramCredentialUpsertion("freshet", secret, b"secret")
    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    for done in client.alter_user_scram_credentials([user]).values():
        done.result(30)


def by_librdkafka(kafka: KafkaSettings, value: bytes) -> list[bytes | None]:
    """Look at the topics, write a record and read the topic."""
    settings = Settings(kafka=kafka)
    assert {report.state for report in ensure_topics(settings, live=False)} == {"exists"}
    with Publisher(settings) as publisher:
        publisher.produce(TOPIC, value, key="key")
        publisher.flush()
    with TableReader(settings, [TOPIC]) as reader:
        return [record.value for record in reader.read_to_end()]


async def by_aiokafka(kafka: KafkaSettings, value: bytes) -> bool:
    """Whether the page's client comes to the record."""
    consumer = AIOKafkaConsumer(TOPIC, **consumer_options(kafka))
    await consumer.start()
    try:
        async for record in consumer:
            if record.value == value:
                return True
    finally:
        await consumer.stop()
    return False


async def by_faust(kafka: KafkaSettings, value: bytes, folder: Path) -> bool:
    """Whether control's client comes to the record."""
    found = asyncio.Event()
    app = _new_app(kafka, str(folder))

    @app.agent(app.topic(TOPIC, **RAW))  # type: ignore[untyped-decorator]
    async def read(stream: Any) -> None:
        async for event in stream.events():
            if event.message.value == value:
                found.set()

    starting = asyncio.ensure_future(app.start())
    try:
        await found.wait()
    finally:
        starting.cancel()
        await app.stop()
    return True


@pytest.mark.parametrize("listener", ["MTLS", "SCRAM", "OAUTH", "TOKEN"])
def test_all_three_clients_are_let_in(
    guarded: dict[str, KafkaSettings], listener: str, tmp_path: Path
) -> None:
    kafka = guarded[listener].model_copy(update={"group_prefix": f"shop-{listener.lower()}"})
    value = f"by {listener}".encode()
    assert value in by_librdkafka(kafka, value)

    async def scenario() -> None:
        assert await asyncio.wait_for(by_aiokafka(kafka, value), READ_WITHIN_S)
        assert await asyncio.wait_for(by_faust(kafka, value, tmp_path), READ_WITHIN_S)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("listener", "over"),
    [
        ("MTLS", {"ssl_certificate_location": "", "ssl_key_location": ""}),
        ("SCRAM", {"sasl_password": SecretStr("wrong")}),
    ],
)
def test_nobody_else_is_let_in(
    guarded: dict[str, KafkaSettings], listener: str, over: dict[str, Any]
) -> None:
    kafka = guarded[listener].model_copy(update={**over, "request_timeout_ms": 2_000})
    with pytest.raises(BrokerError) as caught:
        cluster(Settings(kafka=kafka))
    assert "wrong" not in str(caught.value) and "locked" not in str(caught.value)
    with pytest.raises(KafkaError):
        asyncio.run(asyncio.wait_for(by_aiokafka(kafka, b""), READ_WITHIN_S))
