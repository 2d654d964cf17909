"""Receivers on loopback that behave, and that do not."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site:
    """Answers by path, and keeps what it was sent: (path, headers, body)."""

    def __init__(self, answers: Mapping[str, Any], context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers = dict(answers)
        self.released = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                site.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = site.answers.get(self.path, 200)
                with contextlib.suppress(OSError):
                    if callable(answer):
                        answer(self)
                    else:
                        self.send_response(answer)
                        self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = True
        self.port = self.server.server_port

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Never answer."""
        self.released.wait(60)

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Send a byte of a header now and then."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
        while not self.released.wait(0.2):
            handler.wfile.write(b"a")
            handler.wfile.flush()

    def gigabyte(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer well, with a body that never ends; note how much was taken."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        self.taken = 0
        for _ in range(1 << 14):
            handler.wfile.write(b"x" * (1 << 16))
            self.taken += 1 << 16

    def redirect(self, handler: BaseHTTPRequestHandler) -> None:
        """Send to another path of the same site."""
        handler.send_response(307)
        handler.send_header("Location", self.url("/secret"))
        handler.end_headers()


@contextmanager
def site(answers: Mapping[str, Any] | None = None, context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a site for as long as the context lasts."""
    found = Site(answers or {}, context)
    threading.Thread(target=found.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield found
    finally:
        found.released.set()
        found.server.shutdown()
        found.server.server_close()


def seconds_of(call: Any) -> float:
    """Return how long a call takes."""
    begin = time.monotonic()
    call()
    return time.monotonic() - begin
