"""Logs, probes and metrics."""

from __future__ import annotations

import json
import logging
import urllib.request
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.error import HTTPError

import pytest

from freshet.stream.config import TelemetrySettings
from freshet.stream.errors import ConfigError
from freshet.stream.telemetry import configure_logging, get_logger, new_registry, serve_http


def test_lines_are_json_events_with_fields_ours_and_the_libraries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = get_logger("stream.some")
    configure_logging(TelemetrySettings(log_format="json"))
    log.info("claimed", partition=3)
    logging.getLogger("library").warning("it %s", "broke")
    log.debug("not shown")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"], line["logger"]) for line in said] == [
        ("claimed", "info", "stream.some"),
        ("it broke", "warning", "library"),
    ]
    assert said[0]["partition"] == 3


def test_an_exception_is_inside_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(log_format="json"))
    try:
        raise ValueError("wrong")
    except ValueError:
        get_logger("stream.some").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: wrong" in json.loads(line)["exception"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variable(
    capsys: pytest.CaptureFixture[str], log_format: Any
) -> None:
    configure_logging(TelemetrySettings(log_format=log_format))
    password = "hunter" + str(2)
    for log in (get_logger("stream.some"), logging.getLogger("library")):
        try:
            int(f"not a number, {len(password)}")
        except ValueError:
            log.exception("failed")
    said = capsys.readouterr().err
    assert said.count("ValueError: invalid literal") == 2
    assert "hunter2" not in said


def test_text_is_for_people_and_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(log_format="text", log_level="debug"))
    get_logger("stream.some").debug("claimed", partition=3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "claimed" in shown.err and "partition=3" in shown.err


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_say_why_and_metrics_are_served() -> None:
    reasons: dict[str, str | None] = {"live": None, "ready": "joining"}
    port = serve_http(0, lambda: reasons["live"], lambda: reasons["ready"], registry=new_registry())
    assert fetch(port, "/livez") == (200, "ok\n")
    assert fetch(port, "/readyz") == (503, "joining\n")
    reasons["ready"] = None
    assert fetch(port, "/readyz") == (200, "ok\n")
    status, text = fetch(port, "/metrics")
    assert status == 200 and "process_resident_memory_bytes" in text
    assert fetch(port, "/secrets")[0] == 404


def test_what_is_asked_for_comes_with_its_authorization_and_its_body() -> None:
    asked: list[tuple[str, bytes]] = []

    def post(authorization: str, body: bytes) -> tuple[int, bytes]:
        asked.append((authorization, body))
        return 202, b"{}"

    port = serve_http(0, lambda: None, lambda: None, posts={"/v1/some": post})
    assert send(port, "/v1/some", b"body", Authorization="Bearer x") == (202, "{}\n")
    assert send(port, "/v1/some", b"") == (202, "{}\n")
    assert asked == [("Bearer x", b"body"), ("", b"")]
    assert send(port, "/v1/other", b"body")[0] == 404
    assert send(port, "/v1/some", b"", **{"Content-Length": "65537"})[0] == 413
    assert send(port, "/v1/some", b"", **{"Content-Length": "-1"})[0] == 400
    assert fetch(port, "/v1/some")[0] == 404
    assert len(asked) == 2


def send(port: int, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_taken_port_is_one_clear_error() -> None:
    port = serve_http(0, lambda: None, lambda: None)
    with pytest.raises(
        ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another http_port"
    ):
        serve_http(port, lambda: None, lambda: None)
