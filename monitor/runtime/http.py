"""`/livez`, `/readyz` and `/metrics`, in a thread of their own: they answer while the event loop is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from monitor.errors import ConfigError

Probe = Callable[[], tuple[bool, str]]
"""(is it well, one line of text)"""


def serve(bind: str, index: int, registry: CollectorRegistry, livez: Probe, readyz: Probe) -> ThreadingHTTPServer:
    """Listen at the bind address, port + index (0 stays 0: any free port). Raises ConfigError when it is taken."""
    host, _, port = bind.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        timeout = 5
        server_version = "monitor"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif self.path in ("/livez", "/readyz"):
                is_well, text = livez() if self.path == "/livez" else readyz()
                self._answer(200 if is_well else 503, f"{text}\n".encode(), "text/plain; charset=utf-8")
            else:
                self._answer(404, b"/livez, /readyz, /metrics\n", "text/plain; charset=utf-8")

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Scrapes are not news."""

    try:
        server = ThreadingHTTPServer((host, int(port) + index if int(port) else 0), Handler)
    except OSError as error:
        raise ConfigError(f"http.bind: {host}:{int(port) + index} cannot be listened at: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
