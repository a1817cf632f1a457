"""A Schema Registry's REST interface, as small as the library's client needs it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeRegistry:
    """Schemas by id; `asked` are the paths asked for, `status` is answered where it is not 200."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 200
        self.url = ""

    def add(self, number: int, kind: str, schema: str, *, serialized: bytes = b"") -> None:
        """A schema; `serialized` is the file descriptor of a Protobuf one."""
        self.schemas[number] = {"schema": schema, "schemaType": kind, "raw": serialized}

    def answer(self, path: str) -> tuple[int, Any]:
        """Status and body."""
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"error_code": self.status, "message": "not now"}
        parts = urlsplit(path)
        *_, number = parts.path.split("/")
        known = self.schemas.get(int(number))
        if known is None:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        text = known["schema"]
        if parse_qs(parts.query).get("format") == ["serialized"]:
            text = base64.b64encode(known["raw"]).decode()
        return 200, {"schema": text, "schemaType": known["schemaType"], "id": int(number)}


@contextmanager
def serving(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """On a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *values: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
