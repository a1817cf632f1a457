"""What a process tells about itself: logs, metrics, and /livez, /readyz, /metrics over HTTP.

One that may be asked for something (control) answers POST at the same port.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from freshet.stream.config import TelemetrySettings
from freshet.stream.errors import ConfigError

Probe = Callable[[], str | None]
"""None when all is well, else the reason why not, for a person."""

Post = Callable[[str, bytes], tuple[int, bytes]]
"""The `Authorization` header and the body in; status and JSON out."""

MAX_BODY = 65_536
NOISY_LOGGERS = ("aiokafka", "faust", "mode", "uvicorn.access", "asyncio")


def configure_logging(settings: TelemetrySettings) -> None:
    """Send all logs, ours and the libraries', to stderr as JSON or text.

    Called once, by a process's entry point.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    on_terminal = sys.stderr.isatty()
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and on_terminal)
    # The renderer's own choice of traceback shows local variables: orders, passwords.
    renderer: Any = structlog.dev.ConsoleRenderer(
        colors=on_terminal, exception_formatter=structlog.dev.plain_traceback
    )
    if not as_text:
        renderer = structlog.processors.JSONRenderer(sort_keys=True)
    shared = _processors(as_text=as_text)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _processors(*, as_text: bool) -> list[Any]:
    """What every line goes through, ours and the libraries'."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if not as_text:
        shared.append(structlog.processors.format_exc_info)
    return shared


def get_logger(name: str) -> Any:
    """A logger whose lines are events with fields: `log.info("claimed", topic=...)`."""
    return structlog.get_logger(name)


def new_registry() -> CollectorRegistry:
    """A metrics registry that has the process's own memory, CPU and garbage collections."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def serve_http(
    port: int,
    live: Probe,
    ready: Probe,
    *,
    registry: CollectorRegistry | None = None,
    host: str = "127.0.0.1",
    posts: Mapping[str, Post] | None = None,
) -> int:
    """Answer /livez, /readyz and /metrics from a daemon thread, and return the port.

    Args:
        port: 0 picks a free one.
        live: None while the process should be left alone, else why it should be restarted (503).
        ready: None while it does its work, else what it waits for (503).
        registry: What /metrics shows; None: the process's own figures only.
        host: The address to listen on; "0.0.0.0" in a container.
        posts: What answers POST at a path, each in a thread of its own.

    Raises:
        ConfigError: The port is taken.
    """
    shown = registry if registry is not None else new_registry()
    probes = {"/livez": live, "/readyz": ready}
    answers = {"probes": probes, "registry": shown, "posts": posts or {}}
    handler = type("Handler", (_Handler,), answers)
    try:
        server = _Server((host, port), handler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="choose another http_port, or 0 for a free one",
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return int(server.server_address[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16


class _Handler(BaseHTTPRequestHandler):
    probes: dict[str, Probe]
    registry: CollectorRegistry
    posts: Mapping[str, Post]
    timeout = 5.0

    def do_GET(self) -> None:
        """One of three pages, else 404."""
        if self.path == "/metrics":
            self._answer(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        elif self.path in self.probes:
            reason = self.probes[self.path]()
            self._say(200 if reason is None else 503, reason or "ok")
        else:
            self._say(404, "there are /livez, /readyz and /metrics")

    def do_POST(self) -> None:
        """What this process may be asked for, else 404; a body says how long it is."""
        post = self.posts.get(self.path)
        length = self.headers.get("Content-Length", "0")
        if post is None:
            self._say(404, "nothing is asked for here")
        elif not length.isdecimal():
            self._say(400, "Content-Length is no number")
        elif int(length) > MAX_BODY:
            self._say(413, f"a body holds {MAX_BODY} bytes at most")
        else:
            body = self.rfile.read(int(length))
            status, answer = post(self.headers.get("Authorization", ""), body)
            self._answer(status, answer + b"\n", "application/json")

    def _say(self, status: int, text: str) -> None:
        self._answer(status, text.encode() + b"\n", "text/plain; charset=utf-8")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds: nobody reads a line for each."""
