"""Requests to addresses that a configuration names, so that none of them can be turned against the network that we are in.

The name is resolved once, every address that it has must be allowed, and the connection goes to one of these. No redirects, no proxies,
2 s to connect, 5 s in all, and of an answer no more is read than was asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from monitor.config.notify import is_public, port_of
from monitor.errors import ConfigError, MonitorError

CONNECT_S = 2.0
TOTAL_S = 5.0
MAX_ANSWER_BYTES = 4 << 10

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → addresses"""


class Answer(NamedTuple):
    """What came back: status, and the beginning of the body."""

    status: int
    body: bytes


class Undelivered(MonitorError):
    """No answer came, or the address is one that must not be asked."""


class Outbound:
    """A client for one receiver; for one thread. ca_file: whom to trust, beside or in place of the system's. Raises ConfigError."""

    def __init__(
        self,
        *,
        allow_http: bool = False,
        allow_private: bool = False,
        ca_file: Path | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._resolve = resolve or _resolve
        try:
            self._ssl = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except OSError as error:
            raise ConfigError(f"ca_file: {ca_file} cannot be used: {error}") from error
        self._runner = asyncio.Runner()

    def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:  # fmt: skip
        """Ask and return the answer, whatever its status. Raises Undelivered; the text never holds the address, which may be secret."""
        if urlsplit(url).scheme != "https" and not self._allow_http:
            raise Undelivered("https only")
        try:
            return self._runner.run(self._ask(method, url, body, dict(headers or {}), max_bytes))
        except TimeoutError:
            raise Undelivered(f"no answer within {TOTAL_S:g} s") from None
        except aiohttp.ClientError as error:
            raise Undelivered(type(error).__name__) from error
        except (OSError, UnicodeError, ValueError) as error:
            raise Undelivered(str(error)) from error

    async def _ask(self, method: str, url: str, body: bytes | None, headers: dict[str, str], max_bytes: int) -> Answer:
        async with asyncio.timeout(TOTAL_S):
            addresses = await self._allowed(urlsplit(url).hostname or "", port_of(url))
            connector = aiohttp.TCPConnector(resolver=_Fixed(addresses), use_dns_cache=False, force_close=True, ssl=self._ssl)
            timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S)
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    trust_env=False,
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as session,
                session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                found = b""
                while len(found) < max_bytes and (part := await answer.content.read(max_bytes - len(found))):
                    found += part
                answer.close()  # what is left is not read
                return Answer(answer.status, found)

    async def _allowed(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises Undelivered if any of them is not allowed."""
        addresses = [host] if _is_address(host) else await self._resolve(host, port)
        if not self._allow_private:
            refused = [address for address in addresses if not is_public(address)]
            if refused:
                raise Undelivered("the host has a private, loopback or link-local address; allow_private allows it")
        if not addresses:
            raise Undelivered("the host has no address")
        return addresses

    def close(self) -> None:
        """Give the event loop back."""
        self._runner.close()


class _Fixed(AbstractResolver):
    """Answers with the addresses that were checked: there is no second look-up."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> list[str]:
    found: list[Any] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
