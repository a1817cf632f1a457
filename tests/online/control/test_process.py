"""How the agents sign in."""

from __future__ import annotations

import pytest

from freshet.online.control.process import credentials
from freshet.stream.config import KafkaSettings
from freshet.stream.errors import ConfigError


def test_settings_become_credentials() -> None:
    assert credentials(KafkaSettings()) is None
    secured = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password="p",
    )
    found = credentials(secured)
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert credentials(KafkaSettings(security_protocol="SSL")).protocol.value == "SSL"
    with pytest.raises(ConfigError, match="OAUTHBEARER"):
        credentials(KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER"))
