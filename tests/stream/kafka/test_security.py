"""One set of settings, three clients: what each is told, and what none drops silently."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from freshet.stream.config import KafkaSettings, Settings, load, shown
from freshet.stream.errors import BrokerError, ConfigError
from freshet.stream.kafka import consumer, producer
from freshet.stream.kafka.security import librdkafka, sign_in
from freshet.stream.kafka.tokens import Token, Tokens, ask_of
from tests.certificates import authority, client_certificate

PAGE = "the page"
OIDC = {
    "token_endpoint_url": "https://sso.example.com/token",
    "client_id": "freshet",
    "client_secret": "s3cret",
    "scope": "kafka",
    "extensions": {"logicalCluster": "lkc-1", "identityPoolId": "pool-2"},
    "ca_location": "/etc/ca.pem",
}


def sasl(mechanism: str, **over: Any) -> KafkaSettings:
    return KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism=mechanism, **over)


# librdkafka ---------------------------------------------------------------------------------------


def test_a_plain_connection_says_so_and_no_more() -> None:
    assert librdkafka(KafkaSettings()) == {"security.protocol": "PLAINTEXT"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_user_and_password_reach_librdkafka(mechanism: str) -> None:
    assert librdkafka(sasl(mechanism, sasl_username="u", sasl_password="p")) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
        "sasl.username": "u",
        "sasl.password": "p",
    }


def test_a_protocol_with_sasl_and_no_mechanism_is_plain_for_every_client() -> None:
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="p")
    assert librdkafka(kafka)["sasl.mechanism"] == "PLAIN"
    assert sign_in(kafka, PAGE).mechanism == "PLAIN"


def test_a_client_certificate_reaches_librdkafka() -> None:
    kafka = KafkaSettings(
        security_protocol="SSL",
        ssl_ca_location="ca.pem",
        ssl_certificate_location="me.pem",
        ssl_key_location="me.key",
        ssl_key_password="pw",
    )
    assert librdkafka(kafka) == {
        "security.protocol": "SSL",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "me.pem",
        "ssl.key.location": "me.key",
        "ssl.key.password": "pw",
    }


def test_kerberos_reaches_librdkafka() -> None:
    kafka = sasl(
        "GSSAPI",
        sasl_kerberos_service_name="bus",
        sasl_kerberos_principal="freshet@SHOP",
        sasl_kerberos_keytab="/etc/freshet.keytab",
    )
    assert librdkafka(kafka) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "GSSAPI",
        "sasl.kerberos.service.name": "bus",
        "sasl.kerberos.principal": "freshet@SHOP",
        "sasl.kerberos.keytab": "/etc/freshet.keytab",
    }


def test_an_openid_provider_reaches_librdkafka() -> None:
    assert librdkafka(sasl("OAUTHBEARER", oidc=OIDC)) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://sso.example.com/token",
        "sasl.oauthbearer.client.id": "freshet",
        "sasl.oauthbearer.client.secret": "s3cret",
        "sasl.oauthbearer.scope": "kafka",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,identityPoolId=pool-2",
        "https.ca.location": "/etc/ca.pem",
    }


def test_librdkafka_has_every_setting_that_it_is_given(tmp_path: Path) -> None:
    """It refuses a name that it does not know when a client is made."""
    authority(tmp_path)
    oidc = {**OIDC, "ca_location": str(tmp_path / "ca.pem")}
    settings = Settings(kafka=sasl("OAUTHBEARER", oidc=oidc))
    producer(settings)


def test_a_wheel_without_kerberos_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"GSSAPI.*--no-binary confluent-kafka"):
        producer(Settings(kafka=sasl("GSSAPI")))


# Tokens -------------------------------------------------------------------------------------------


def test_a_given_token_is_handed_to_every_client() -> None:
    kafka = sasl("OAUTHBEARER", sasl_password="token")
    value, expires_s = librdkafka(kafka)["oauth_cb"]("")
    assert value == "token" and expires_s > 1_700_000_000
    tokens = sign_in(kafka, PAGE).tokens
    assert tokens is not None and asyncio.run(tokens.token()) == "token"


def test_a_token_is_asked_for_again_after_four_fifths_of_its_life() -> None:
    now_s, made = [1_000.0], []

    def ask() -> Token:
        made.append(now_s[0])
        return Token(f"t{len(made)}", now_s[0] + 100)

    tokens = Tokens(ask, lambda: now_s[0])
    found = []
    for now_s[0] in (1_000.0, 1_079.0, 1_080.0, 1_159.0, 1_160.0):
        found.append(tokens.current().value)
    assert found == ["t1", "t1", "t2", "t2", "t3"]


def test_amazon_signs_for_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = SimpleNamespace(
        generate_auth_token=lambda region: (f"signed for {region}", 1_900_000_000_000)
    )
    library = SimpleNamespace(MSKAuthTokenProvider=signer)
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", library)
    kafka = sasl("AWS_MSK_IAM", aws_region="eu-central-1")
    config = librdkafka(kafka)
    assert config["sasl.mechanism"] == "OAUTHBEARER"
    assert config["oauth_cb"]("") == ("signed for eu-central-1", 1_900_000_000.0)
    found = sign_in(kafka, PAGE)
    assert found.mechanism == "OAUTHBEARER" and found.tokens is not None
    assert asyncio.run(found.tokens.token()) == "signed for eu-central-1"


def test_without_amazons_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    kafka = sasl("AWS_MSK_IAM", aws_region="eu-central-1")
    for ask in (librdkafka, lambda kafka: sign_in(kafka, PAGE)):
        with pytest.raises(ConfigError, match=r"pip install 'freshet\[msk\]'"):
            ask(kafka)


class Provider(BaseHTTPRequestHandler):
    """An OpenID provider that gives tokens for the one client that it knows."""

    answer: ClassVar[Any] = {"access_token": "abc", "expires_in": 600}
    asked: ClassVar[tuple[str, dict[str, list[str]]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).asked = self.headers["Authorization"], parse_qs(body)
        self.send_response(200 if self.answer else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def from_provider(url: str) -> Any:
    oidc = {"token_endpoint_url": url, "client_id": "me", "client_secret": "pw", "scope": "k"}
    found = sign_in(KafkaSettings(**PLAIN_OAUTH, oidc=oidc), PAGE)
    assert found.tokens is not None
    return found.tokens


PLAIN_OAUTH: Any = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}


def test_a_python_client_gets_its_token_by_client_credentials(provider: str) -> None:
    assert asyncio.run(from_provider(provider).token()) == "abc"
    header, body = Provider.asked
    # base64 of "me:pw"
    assert header == "Basic bWU6cHc="
    assert body == {"grant_type": ["client_credentials"], "scope": ["k"]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "401"),
        ({"error": "no"}, "access_token"),
        ([1], "access_token"),
        ({"access_token": "a" * 1_100_000}, "gives no token"),  # over a mebibyte
    ],
)
def test_a_provider_that_gives_no_token_is_named_and_no_secret_is(
    provider: str, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    monkeypatch.setattr(Provider, "answer", answer)
    with pytest.raises(BrokerError, match=rf"token endpoint {provider}.*{said}") as caught:
        asyncio.run(from_provider(provider).token())
    assert "pw" not in str(caught.value)


def test_a_token_lives_as_long_as_its_provider_says_or_five_minutes(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    oidc = {"token_endpoint_url": provider, "client_id": "me", "client_secret": "pw"}
    ask = ask_of(KafkaSettings(**PLAIN_OAUTH, oidc=oidc))
    before_s = time.time()
    assert 600 <= ask().expires_s - before_s < 660
    monkeypatch.setattr(Provider, "answer", {"access_token": "abc"})
    before_s = time.time()
    assert 300 <= ask().expires_s - before_s < 360
    assert "scope" not in Provider.asked[1]


def test_a_provider_that_is_away_is_a_broker_error() -> None:
    with pytest.raises(BrokerError, match="gives no token"):
        asyncio.run(from_provider("http://127.0.0.1:1/token").token())


def test_extensions_go_beside_the_token() -> None:
    oidc = {**OIDC, "ca_location": ""}
    tokens = sign_in(sasl("OAUTHBEARER", oidc=oidc), PAGE).tokens
    assert tokens is not None
    assert tokens.extensions() == {"logicalCluster": "lkc-1", "identityPoolId": "pool-2"}


# The Python clients -------------------------------------------------------------------------------


def test_a_plain_connection_needs_no_context_and_no_user() -> None:
    found = sign_in(KafkaSettings(), PAGE)
    assert (found.protocol, found.mechanism, found.context, found.tokens) == (
        "PLAINTEXT",
        "",
        None,
        None,
    )


def test_user_and_password_reach_the_python_clients() -> None:
    found = sign_in(sasl("SCRAM-SHA-256", sasl_username="u", sasl_password="p"), PAGE)
    assert (found.mechanism, found.username, found.password) == ("SCRAM-SHA-256", "u", "p")
    assert found.context is not None and found.context.verify_mode == ssl.CERT_REQUIRED
    assert "'p'" not in repr(found)


def test_a_client_certificate_with_a_locked_key_is_opened(tmp_path: Path) -> None:
    client_certificate(tmp_path, authority(tmp_path), password="pw")
    files = {
        "security_protocol": "SSL",
        "ssl_ca_location": str(tmp_path / "ca.pem"),
        "ssl_certificate_location": str(tmp_path / "client.pem"),
        "ssl_key_location": str(tmp_path / "client.key"),
    }
    found = sign_in(KafkaSettings(**files, ssl_key_password="pw"), PAGE)
    assert found.context is not None
    assert len(found.context.get_ca_certs()) == 1
    named = r"kafka.ssl_certificate_location '.*client.pem' with kafka.ssl_key_location"
    for wrong in ("", "other"):
        with pytest.raises(ConfigError, match=named):
            sign_in(KafkaSettings(**files, ssl_key_password=wrong), PAGE)


def test_trust_that_the_table_of_the_library_names_is_followed(tmp_path: Path) -> None:
    authority(tmp_path)
    client = {
        "ssl.endpoint.identification.algorithm": "none",
        "ssl.ca.pem": (tmp_path / "ca.pem").read_text("utf-8"),
    }
    found = sign_in(KafkaSettings(security_protocol="SSL", client=client), PAGE).context
    assert found is not None and not found.check_hostname
    assert found.verify_mode == ssl.CERT_REQUIRED and len(found.get_ca_certs()) == 1
    client = {"enable.ssl.certificate.verification": "false"}
    found = sign_in(KafkaSettings(security_protocol="SSL", client=client), PAGE).context
    assert found is not None and found.verify_mode == ssl.CERT_NONE


def test_trust_that_a_client_cannot_follow_is_an_error_that_names_both() -> None:
    kafka = KafkaSettings(security_protocol="SSL", client={"ssl.keystore.location": "me.p12"})
    with pytest.raises(ConfigError, match=r"the page cannot follow kafka.client ssl.keystore.loc"):
        sign_in(kafka, PAGE)
    kafka = sasl("GSSAPI", sasl_kerberos_keytab="/etc/freshet.keytab")
    with pytest.raises(ConfigError, match=r"page cannot follow kafka.sasl_kerberos_keytab.*KRB5"):
        sign_in(kafka, PAGE)


def test_what_only_tunes_librdkafka_is_said_by_name_and_not_by_value() -> None:
    kafka = KafkaSettings(client={"linger.ms": 31337, "debug": "31337"})
    with capture_logs() as said:
        assert sign_in(kafka, PAGE).protocol == "PLAINTEXT"
    (line,) = said
    assert line["event"] == "kafka_client_settings_unused" and line["log_level"] == "warning"
    assert (line["client"], line["settings"]) == (PAGE, ["debug", "linger.ms"])
    assert "31337" not in repr(said)


@pytest.mark.parametrize(
    ("oidc", "said"),
    [
        ({**OIDC, "ca_location": "/nowhere.pem"}, r"kafka.oidc.ca_location '/nowhere.pem'"),
        ({**OIDC, "token_endpoint_url": "file:///etc/passwd"}, "begin with https://"),
    ],
)
def test_a_provider_that_cannot_be_asked_is_refused_at_the_start(oidc: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sign_in(sasl("OAUTHBEARER", oidc=oidc), PAGE)


def test_kerberos_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"the page.*pip install 'freshet\[kerberos\]'"):
        sign_in(sasl("GSSAPI"), PAGE)


def test_kerberos_with_its_library_is_told_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    found = sign_in(sasl("GSSAPI", sasl_kerberos_service_name="bus"), PAGE)
    assert (found.mechanism, found.service_name) == ("GSSAPI", "bus")


# The table of the library -------------------------------------------------------------------------


def test_a_setting_of_the_library_goes_before_ours_and_behind_what_a_call_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr("freshet.stream.kafka.client.Producer", made.append)
    monkeypatch.setattr("freshet.stream.kafka.client.Consumer", made.append)
    client = {"linger.ms": 50, "fetch.wait.max.ms": 7, "socket.keepalive.enable": True}
    settings = Settings(kafka=KafkaSettings(client=client))
    producer(settings, linger_ms=1)
    producer(settings)
    consumer(settings, "x")
    assert [made[0]["linger.ms"], made[1]["linger.ms"]] == [1, "50"]
    assert made[2]["fetch.wait.max.ms"] == "7"
    assert {config["socket.keepalive.enable"] for config in made} == {"true"}


def test_toml_may_quote_names_with_dots_or_not(tmp_path: Path) -> None:
    text = '[kafka.client]\nsocket.keepalive.enable = true\n"linger.ms" = 50\n'
    (tmp_path / "freshet.toml").write_text(text, "utf-8")
    found = load(tmp_path / "freshet.toml", {}).settings.kafka.client
    assert {name: value.get_secret_value() for name, value in found.items()} == {
        "socket.keepalive.enable": "true",
        "linger.ms": "50",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ssl.key.password", r"kafka\.ssl_key_password"),
        ("enable.auto.commit", "exactly once"),
        ("transactional.id", "exactly once"),
        ("error_cb", "no setting"),
    ],
)
def test_what_is_ours_to_set_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"kafka.client: {name} .*{said}"):
        load(None, {"FRESHET_KAFKA__CLIENT": json.dumps({name: "s3cret"})})


# What would be dropped silently -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sasl_mechanism": "SCRAM-SHA-512"}, "SASL_SSL is meant"),
        ({"ssl_ca_location": "ca.pem"}, "ssl_ca_location is not used"),
        ({"ssl_certificate_location": "a", "ssl_key_location": "b"}, "is not used by"),
        ({"security_protocol": "SSL", "ssl_key_location": "b"}, "go together"),
        ({"security_protocol": "SSL", "ssl_certificate_location": "b"}, "go together"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs kafka.oidc"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}, "kafka.aws_region"),
        ({"security_protocol": "SASL_SSL", "oidc": OIDC}, "OAUTHBEARER alone"),
    ],
)
def test_a_setting_that_nothing_would_follow_is_refused(settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KafkaSettings(**settings)


# Secrets ------------------------------------------------------------------------------------------


def test_no_secret_is_shown() -> None:
    secrets = {
        "FRESHET_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "FRESHET_KAFKA__SASL_MECHANISM": "OAUTHBEARER",
        "FRESHET_KAFKA__OIDC__TOKEN_ENDPOINT_URL": "https://sso/token",
        "FRESHET_KAFKA__OIDC__CLIENT_SECRET": "s3cret",
        "FRESHET_KAFKA__SASL_PASSWORD": "s3cret",
        "FRESHET_KAFKA__SSL_KEY_PASSWORD": "s3cret",
        "FRESHET_KAFKA__CLIENT": '{"ssl.key.pem": "s3cret"}',
    }
    loaded = load(None, secrets)
    rows = {name: text for name, text, _ in shown(loaded.settings, loaded.sources)}
    assert "ssl.key.pem" in rows["kafka.client"] and "**" in rows["kafka.sasl_password"]
    assert "s3cret" not in repr(rows) + repr(loaded)


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("[kafka]\nsasl_password = 31337", "sasl_password"),
        ("[kafka]\nclient = 31337", "client"),
        ("[kafka.client]\nssl.key.pem = [31337]", "client"),
        ("[redis]\nurl = 31337", "redis.url"),
    ],
)
def test_a_secret_of_the_wrong_kind_is_refused_without_being_shown(
    tmp_path: Path, toml: str, name: str
) -> None:
    (tmp_path / "freshet.toml").write_text(toml, "utf-8")
    with pytest.raises(ConfigError, match=name) as caught:
        load(tmp_path / "freshet.toml", {})
    assert "31337" not in str(caught.value)


def test_a_table_in_the_environment_that_is_no_json_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="must be JSON") as caught:
        load(None, {"FRESHET_KAFKA__CLIENT": '{"ssl.key.pem": s3cret'})
    assert "s3cret" not in str(caught.value)
