"""Those who are told: a webhook, Alertmanager, people. A receiver takes a step and says what became of it; it never raises for that."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib.util
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from monitor.config.notify import MIN_SECRET_BYTES, Alertmanager, Notify, RouteConfig, secret
from monitor.errors import ConfigError
from monitor.notify.each_alert import MAX_QUEUE
from monitor.notify.labels import alertmanager_alert, message
from monitor.notify.notice import Posted, Send, Verdict
from monitor.notify.outbound import Answer, Outbound, Undelivered

OF_THE_ALERT = frozenset({400, 406, 413, 415, 422})
"""Statuses that are about what was sent. All others that are no success are about the receiver, or the way to it: alerts wait."""


class Receiver(Protocol):
    """Who is told."""

    def send(self, step: Send) -> Verdict:
        """Hand over; return what became of it."""

    def close(self) -> None:
        """Give back what is held."""


def verdict_of(status: int) -> Verdict:
    """Return what a status means."""
    if 200 <= status < 300:
        return Verdict("delivered")
    return Verdict("refused" if status in OF_THE_ALERT else "failed", f"status {status}")


def signing_key(text: str) -> bytes:
    """Return the key of a secret: `whsec_` and base64, or any text of at least 16 bytes. Raises ConfigError."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else text.encode()
    except binascii.Error as error:
        raise ConfigError("the secret of a webhook begins with whsec_, but base64 does not follow") from error
    if len(key) < MIN_SECRET_BYTES:
        raise ConfigError(f"the secret of a webhook is shorter than {MIN_SECRET_BYTES} bytes")
    return key


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the signature of Standard Webhooks: HMAC-SHA256 of id, time and body."""
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """Posts each alert, the bytes of its record, with its id, the time, and a signature over all three (Standard Webhooks)."""

    def __init__(self, name: str, route: RouteConfig, client: Outbound | None = None) -> None:
        assert route.url is not None
        self._url = route.url
        self._secret: Callable[[], bytes] = lambda: signing_key(
            secret(f"notify.routes.{name}", route.secret_env, route.secret_file)
        )
        self._secret()
        self._client = client or Outbound(allow_http=route.allow_http, allow_private=route.allow_private, ca_file=route.ca_file)

    def send(self, step: Send) -> Verdict:
        """Post one alert."""
        (notice,) = step.notices
        now_s = int(time.time())
        try:
            key = self._secret()  # read anew: it may have been rotated
            headers = {
                "Content-Type": "application/cloudevents+json",
                "User-Agent": "monitor",
                "webhook-id": notice.id,
                "webhook-timestamp": str(now_s),
                "webhook-signature": signature(key, notice.id, now_s, notice.value),
            }
            return verdict_of(self._client.request("POST", self._url, body=notice.value, headers=headers).status)
        except (Undelivered, ConfigError) as error:
            return Verdict("failed", str(error))

    def close(self) -> None:
        """Give the client back."""
        self._client.close()


class AlertmanagerApi:
    """Every instance of one Alertmanager. Operators name it, so that plain http and private addresses are allowed."""

    def __init__(self, config: Alertmanager) -> None:
        self._config = config
        self._client = Outbound(allow_http=True, allow_private=True, ca_file=config.ca_file)
        self._headers()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "monitor"}
        if self._config.token_env or self._config.token_file:
            token = secret("notify.alertmanager", self._config.token_env, self._config.token_file)
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def post(self, alerts: list[dict[str, object]]) -> Verdict:
        """Send alerts to every instance; one that takes them is enough, as they do the rest among themselves."""
        verdicts = []
        for url in self._config.urls:
            try:
                answer = self._ask("POST", url, "/api/v2/alerts", orjson.dumps(alerts))
                verdicts.append(verdict_of(answer.status))
            except (Undelivered, ConfigError) as error:
                verdicts.append(Verdict("failed", str(error)))
        ranked = sorted(verdicts, key=lambda verdict: ("delivered", "refused", "failed").index(verdict.outcome))
        return ranked[0]

    def silences(self, max_bytes: int) -> bytes:
        """Return the silences as JSON, from the first instance that answers. Raises Undelivered."""
        problems = []
        for url in self._config.urls:
            try:
                answer = self._ask("GET", url, "/api/v2/silences", None, max_bytes)
                if answer.status == 200 and len(answer.body) < max_bytes:
                    return answer.body
                problems.append(f"status {answer.status}, {len(answer.body)} bytes")
            except (Undelivered, ConfigError) as error:
                problems.append(str(error))
        raise Undelivered("; ".join(problems))

    def _ask(self, method: str, url: str, path: str, body: bytes | None, max_bytes: int = 4 << 10) -> Answer:
        return self._client.request(method, url.rstrip("/") + path, body=body, headers=self._headers(), max_bytes=max_bytes)

    def close(self) -> None:
        """Give the client back."""
        self._client.close()


class AlertmanagerReceiver:
    """Posts the state of incidents."""

    def __init__(self, config: Alertmanager, link: str | None) -> None:
        self._api = AlertmanagerApi(config)
        self._link = link

    def send(self, step: Send) -> Verdict:
        """Post all at once; if that is refused, one by one, to find out which."""
        verdict = self._api.post([self._alert(posted) for posted in step.posted])
        if verdict.outcome != "refused" or len(step.posted) == 1:
            return verdict
        refused = set()
        for i, posted in enumerate(step.posted):
            one = self._api.post([self._alert(posted)])
            if one.outcome == "failed":
                return one
            if one.outcome == "refused":
                refused.add(i)
        return Verdict("delivered", verdict.detail, frozenset(refused))

    def _alert(self, posted: Posted) -> dict[str, object]:
        return alertmanager_alert(posted, self._link, time.time_ns() // 1_000_000)

    def close(self) -> None:
        """Give the client back."""
        self._api.close()


class People:
    """Chats, mailboxes and pagers, over apprise; each address once, as long as this process lives."""

    def __init__(self, name: str, route: RouteConfig, link: str | None) -> None:
        if importlib.util.find_spec("apprise") is None:
            raise ConfigError(f"notify.routes.{name}: receiver people needs apprise: pip install 'stream-model-monitor[notify]'")
        import apprise  # noqa: PLC0415  (an extra)

        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # what it logs may name addresses, and those hold tokens
        self._types = {"resolved": apprise.NotifyType.SUCCESS, "critical": apprise.NotifyType.FAILURE}
        self._other_type = apprise.NotifyType.WARNING
        self._link = link
        self._targets: list[Any] = []
        for i, url in enumerate(secret(f"notify.routes.{name}", route.urls_env, route.urls_file).splitlines(), 1):
            if not url.strip() or url.startswith("#"):
                continue
            target = apprise.Apprise.instantiate(url.strip())
            if target is None:
                raise ConfigError(f"notify.routes.{name}: line {i} is no address that apprise knows")
            self._targets.append(target)
        if not self._targets:
            raise ConfigError(f"notify.routes.{name}: no address of apprise")
        self._told: dict[str, set[int]] = {}
        """Of alerts that not all targets took yet: which have it."""

    def send(self, step: Send) -> Verdict:
        """Tell every target that was not told of this alert yet."""
        (notice,) = step.notices
        done = self._told.setdefault(notice.id, set())
        if len(self._told) > MAX_QUEUE:
            del self._told[next(iter(self._told))]
        data = notice.alert.data
        title, body = message(notice.alert, notice.labels.get("owner"), self._link)
        kind = self._types.get(data.status) or self._types.get(data.severity) or self._other_type
        for i, target in enumerate(self._targets):
            if i not in done and target.notify(body=body, title=title, notify_type=kind):
                done.add(i)
        missing = len(self._targets) - len(done)
        if missing:
            return Verdict("failed", f"{missing} of {len(self._targets)} addresses did not take it")
        del self._told[notice.id]
        return Verdict("delivered")

    def close(self) -> None:
        """Nothing is held."""


def receiver_of(name: str, route: RouteConfig, notify: Notify) -> Receiver:
    """Return the receiver of a route. Raises ConfigError."""
    if route.receiver == "webhook":
        return Webhook(name, route)
    if route.receiver == "people":
        return People(name, route, notify.link)
    assert notify.alertmanager is not None
    return AlertmanagerReceiver(notify.alertmanager, notify.link)
