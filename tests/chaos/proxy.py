"""A proxy before one broker that can keep a worker from its group while everything else goes through: what makes a live zombie."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Literal

GROUP_REQUESTS = frozenset(range(8, 15))
"""Api keys: OffsetCommit, OffsetFetch, FindCoordinator, JoinGroup, Heartbeat, LeaveGroup, SyncGroup."""
CHUNK = 1 << 16

Cut = Literal["silent", "closed"]
"""Requests to the coordinator are never answered, or their connection is closed."""


class GroupProxy:
    """Listens on one loopback port and forwards to another until `close`."""

    def __init__(self, listen: int, forward: int) -> None:
        self._forward = forward
        self._cut: Cut | None = None
        self._silent: set[socket.socket] = set()
        self._all: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", listen))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, how: Cut) -> None:
        """From now on let no request to the group's coordinator through."""
        self._cut = how

    def mend(self) -> None:
        """Let everything through again; connections that were silenced are closed, as their clients wait for answers."""
        self._cut = None
        for client in list(self._silent):
            _end(client)

    def close(self) -> None:
        """End all connections."""
        _end(self._server)
        for connection in list(self._all):
            _end(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._forward), timeout=5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            self._all |= {client, broker}
            threading.Thread(target=self._requests, args=(client, broker), daemon=True).start()
            threading.Thread(target=self._answers, args=(client, broker), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        """Forward whole requests: four bytes of length, then two that say what it is."""
        try:
            while head := _read(client, 4):
                body = _read(client, struct.unpack(">i", head)[0])
                if self._cut and struct.unpack_from(">h", body)[0] in GROUP_REQUESTS:
                    if self._cut == "closed":
                        break
                    self._silent.add(client)
                if client not in self._silent:
                    broker.sendall(head + body)
        except OSError:
            pass
        self._drop(client, broker)

    def _answers(self, client: socket.socket, broker: socket.socket) -> None:
        try:
            while data := broker.recv(CHUNK):
                client.sendall(data)
        except OSError:
            pass
        self._drop(client, broker)

    def _drop(self, client: socket.socket, broker: socket.socket) -> None:
        _end(client)
        _end(broker)
        self._silent.discard(client)
        self._all -= {client, broker}


def _read(connection: socket.socket, n: int) -> bytes:
    """Return exactly n bytes, none when the other side has ended."""
    parts: list[bytes] = []
    while n:
        part = connection.recv(min(n, CHUNK))
        if not part:
            return b""
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
