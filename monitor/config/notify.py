"""The `notify:` part of the configuration: who is told of which alerts, and over what."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from monitor.config.values import Duration, Name, Node, near_miss
from monitor.errors import ConfigError
from monitor.rules import Severity

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
LINK_FIELDS = ("model", "version", "segment", "check", "feature", "incident")
MIN_SECRET_BYTES = 16


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address is expected, such as https://hooks.example.com/monitor")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must not hold a user or password")
    if parts.fragment:
        raise ValueError("an address must not have a part behind #")
    return text


def _environment_name(text: str) -> str:
    if text.startswith("MONITOR_"):
        raise ValueError(f"{text}: variables that begin with MONITOR_ are keys of the configuration; choose another name")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("the name of an environment variable is expected")
    return text


Url = Annotated[str, AfterValidator(_url)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]


class Match(Node):
    """Which alerts: every key that is given must match, any of its words suffices."""

    models: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    versions: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    segments: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    checks: tuple[str, ...] = Field((), description="names or wildcards, such as drift.*; all if empty")
    features: tuple[str, ...] = Field((), description="names or wildcards; all, and alerts of no feature, if empty")
    severities: tuple[Severity, ...] = Field((), description="notice, warning, critical; all if empty")
    owners: tuple[str, ...] = Field((), description="names of `owners`; all if empty")


class Owner(Node):
    """Whose models, segments or features they are; the first owner that matches is named in every notification."""

    models: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    segments: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    checks: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    features: tuple[str, ...] = Field((), description="names or wildcards; all, and alerts of no feature, if empty")


class Alertmanager(Node):
    """Where alerts are kept alive, and silences read."""

    urls: tuple[Url, ...] = Field(min_length=1, description="every instance of the cluster, without /api/v2")
    resend: Duration = Field(MINUTE_MS, description="how often what fires is sent again; it ends itself after four times that")
    silences: Duration = Field(15_000, description="how often silences are read")
    token_env: EnvironmentName | None = Field(None, description="environment variable that holds a bearer token")
    token_file: Path | None = Field(None, description="file that holds it")
    ca_file: Path | None = Field(None, description="CA certificates, PEM")

    @model_validator(mode="after")
    def _valid(self) -> Alertmanager:
        if self.token_env and self.token_file:
            raise ValueError("give token_env or token_file, not both")
        if not 1_000 <= self.resend <= HOUR_MS or not 1_000 <= self.silences <= HOUR_MS:
            raise ValueError("resend and silences must be from 1s to 1h")
        return self


class RouteConfig(Node):
    """One receiver, and which alerts it is told of. Every route has a consumer group of its own: a dead one delays no other."""

    receiver: Literal["alertmanager", "webhook", "people"] = Field(description="alertmanager, webhook or people")
    match: Match = Field(Match(), description="which alerts; all if left out")
    enabled: bool = Field(True, description="false switches the route off; its position is kept")
    max_age: Duration = Field(24 * HOUR_MS, description="alerts that could not be delivered for so long become dead letters")
    resend: Duration = Field(0, description="webhook, people: told again while it fires, this often; 0: once")
    url: Url | None = Field(None, description="webhook: where to; https, and one of allowed_urls")
    secret_env: EnvironmentName | None = Field(None, description="webhook: environment variable with the key of the signature")
    secret_file: Path | None = Field(None, description="webhook: file that holds it")
    ca_file: Path | None = Field(None, description="webhook: CA certificates, PEM")
    allow_http: bool = Field(False, description="webhook: without TLS too")
    allow_private: bool = Field(False, description="webhook: loopback, private and link-local addresses too")
    urls_env: EnvironmentName | None = Field(
        None, description="people: environment variable with addresses of apprise, one a line"
    )
    urls_file: Path | None = Field(None, description="people: file that holds them")

    @model_validator(mode="after")
    def _fits(self) -> RouteConfig:
        of = {"url": "webhook", "secret_env": "webhook", "secret_file": "webhook", "ca_file": "webhook"}
        of |= {"allow_http": "webhook", "allow_private": "webhook", "urls_env": "people", "urls_file": "people"}
        problems = [f"{key} is of receiver: {r}" for key, r in of.items() if getattr(self, key) and r != self.receiver]
        if self.receiver == "alertmanager" and self.resend:
            problems.append("resend of Alertmanager stands under notify.alertmanager")
        if self.resend and self.resend < MINUTE_MS:
            problems.append("resend must be 0 or at least 1m")
        if self.receiver == "webhook":
            problems += [] if self.url else ["url is required"]
            problems += _one("secret_env", self.secret_env, "secret_file", self.secret_file)
            if self.url and self.url.startswith("http:") and not self.allow_http:
                problems.append("url: https only; allow_http: true sends alerts unencrypted")
        if self.receiver == "people":
            problems += _one("urls_env", self.urls_env, "urls_file", self.urls_file)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _one(name: str, value: object, other_name: str, other: object) -> list[str]:
    return [] if bool(value) != bool(other) else [f"give {name} or {other_name}" + (", not both" if value else "")]


class Notify(Node):
    """Who is told. Nobody, unless there are routes."""

    routes: dict[Name, RouteConfig] = Field({}, description="by name; every alert goes to all that match")
    owners: dict[Name, Owner] = Field({}, description="by name; the first that matches")
    alertmanager: Alertmanager | None = Field(None, description="for routes with receiver: alertmanager, and for silences")
    allowed_urls: tuple[Url, ...] = Field(
        (), description="beginnings of the addresses that webhooks may have, whole path segments"
    )
    link: str | None = Field(
        None, description="address of a page about an alert, with " + ", ".join(f"{{{name}}}" for name in LINK_FIELDS)
    )
    bind: Annotated[str, Field(pattern=r"^[^:]+:\d{1,5}$")] = Field(
        "127.0.0.1:9474", description="address:port of probes and metrics of `monitor notify`"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Notify:
        problems = []
        for name, route in self.routes.items():
            if route.receiver == "alertmanager" and self.alertmanager is None:
                problems.append(f"routes.{name}: alertmanager.urls is required")
            if route.url and not any(is_below(route.url, allowed) for allowed in self.allowed_urls):
                problems.append(f"routes.{name}.url: none of allowed_urls: {', '.join(self.allowed_urls) or '(empty)'}")
            problems += [
                f"routes.{name}.match.owners: no such owner{near_miss(owner, self.owners)}: {owner}"
                for owner in route.match.owners
                if owner not in self.owners
            ]
        if self.link is not None:
            problems += _link_problems(self.link)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _link_problems(link: str) -> list[str]:
    try:
        _url(link.format(**dict.fromkeys(LINK_FIELDS, "x")))
    except (KeyError, IndexError, AttributeError, ValueError):
        return [f"link: an address is expected, with no other fields than {', '.join(LINK_FIELDS)}"]
    return []


def is_below(url: str, allowed: str) -> bool:
    """Whether an address has the scheme, host and port of another one, and begins with the segments of its path.

    >>> is_below("https://a.example/hooks/1?x=1", "https://a.example/hooks"), is_below("https://a.example.org/", "https://a.example")
    (True, False)
    """
    one, other = urlsplit(url), urlsplit(allowed)
    path, base = one.path or "/", other.path.rstrip("/")
    segments = unquote(path).replace("\\", "/").split("/")
    return (
        (one.scheme, one.hostname, port_of(url)) == (other.scheme, other.hostname, port_of(allowed))
        and (path == base or path.startswith(f"{base}/"))
        and not {".", ".."} & set(segments)
    )


def port_of(url: str) -> int:
    """Return the port of an address, or its scheme's."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that stands for an IPv4 address is taken as that.

    >>> [is_public(a) for a in ("8.8.8.8", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2001:4860:4860::8888")]
    [True, False, False, False, False, True]
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        behind_nat = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else None
        found = behind_nat or found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast and not getattr(found, "is_site_local", False)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def secret(name: str, environment: str | None, file: Path | None) -> str:
    """Return a secret from where the configuration says that it is, read anew. Raises ConfigError."""
    try:
        found = os.environ.get(environment, "") if environment else file.read_text() if file else ""
    except OSError as error:
        raise ConfigError(f"{name}: {file} cannot be read: {error.strerror}") from error
    if not found.strip():
        raise ConfigError(f"{name}: {f'environment variable {environment}' if environment else file} is empty")
    return found.strip()
