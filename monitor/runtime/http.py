"""`/livez`, `/readyz` and `/metrics`, in threads of their own: they answer while the event loop is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from monitor.errors import ConfigError

MAX_CONNECTIONS = 16
"""More at the same time are closed unanswered."""
TIMEOUT_S = 5

Probe = Callable[[], tuple[bool, str]]
"""(is it well, one line of text)"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not news."""


def serve(bind: str, index: int, registry: CollectorRegistry, livez: Probe, readyz: Probe) -> ThreadingHTTPServer:
    """Listen at the bind address, port + index (0 stays 0: any free port). Raises ConfigError when it is taken."""
    host, _, port = bind.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S
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
        server = _Server((host, int(port) + index if int(port) else 0), Handler)
    except OSError as error:
        raise ConfigError(f"http.bind: {host}:{int(port) + index} cannot be listened at: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
