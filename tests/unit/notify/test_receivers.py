"""What receivers are sent, and what their answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from monitor.config.notify import Alertmanager, RouteConfig
from monitor.errors import ConfigError
from monitor.notify.notice import Posted, Send
from monitor.notify.outbound import Undelivered
from monitor.notify.receivers import AlertmanagerApi, AlertmanagerReceiver, People, Webhook, signature, signing_key
from tests.unit.notify.notices import OPENED_MS, alert, notice
from tests.unit.notify.servers import Site, site

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ONE = notice(alert("f1"))


def webhook(found: Site, path: str = "/hook") -> Webhook:
    route = RouteConfig(receiver="webhook", url=found.url(path), secret_env="HOOK_SECRET", allow_http=True, allow_private=True)
    return Webhook("hook", route)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification."""
    found = signature(signing_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_gets_the_records_bytes_signed_with_id_and_time() -> None:
    with site() as found:
        assert webhook(found).send(Send((ONE,))).outcome == "delivered"
    ((path, headers, body),) = found.requests
    assert (path, body, headers["content-type"]) == ("/hook", ONE.value, "application/cloudevents+json")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert headers["webhook-id"] == "f1"


def test_a_secret_that_is_changed_holds_from_the_next_alert_on(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a" * 20 + "\n")
    with site() as found:
        route = RouteConfig(receiver="webhook", url=found.url(), secret_file=file, allow_http=True, allow_private=True)
        receiver = Webhook("hook", route)
        for text in ("a" * 20, "b" * 20):
            file.write_text(text + "\n")
            receiver.send(Send((ONE,)))
            _, headers, body = found.requests[-1]
            wanted = signature(text.encode(), "f1", int(headers["webhook-timestamp"]), body)
            assert headers["webhook-signature"] == wanted
        file.write_text("")
        assert receiver.send(Send((ONE,))).outcome == "failed"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "delivered"), (204, "delivered"), (302, "failed"), (400, "refused"), (401, "failed"), (403, "failed"), (404, "failed"),
        (408, "failed"), (413, "refused"), (422, "refused"), (429, "failed"), (500, "failed"), (503, "failed"),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, outcome: str) -> None:
    with site({"/hook": status}) as found:
        assert webhook(found).send(Send((ONE,))).outcome == outcome


@pytest.mark.parametrize("text", ["short", "whsec_!!", "whsec_YWJj"])
def test_a_secret_that_is_none_is_a_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", text)
    with site() as found, pytest.raises(ConfigError, match="the secret of a webhook"):
        webhook(found)


class TestAlertmanager:
    def receiver(self, *sites: Site, **settings: Any) -> AlertmanagerReceiver:
        return AlertmanagerReceiver(Alertmanager(urls=tuple(s.url("") for s in sites), **settings), None)

    def step(self, *names: str) -> Send:
        posted = tuple(
            Posted(notice(alert(n, feature=n)), notice(alert(n, feature=n)).labels, True, OPENED_MS + 1, None) for n in names
        )
        return Send(tuple(p.notice for p in posted), posted)

    def test_every_instance_gets_all_alerts_and_one_that_takes_them_is_enough(self) -> None:
        with site() as one, site({"/api/v2/alerts": 503}) as other:
            assert self.receiver(other, one).send(self.step("a", "b")).outcome == "delivered"
            for found in (one, other):
                ((path, _, body),) = found.requests
                assert path == "/api/v2/alerts"
                assert [entry["labels"]["feature"] for entry in json.loads(body)] == ["a", "b"]
            one.answers["/api/v2/alerts"] = 500
            assert self.receiver(other, one).send(self.step("a")).outcome == "failed"

    def test_of_a_request_that_is_refused_the_alerts_are_sent_one_by_one(self) -> None:
        def choosy(handler: Any) -> None:
            names = [entry["labels"]["feature"] for entry in json.loads(found.requests[-1][2])]
            handler.send_response(400 if "bad" in names else 200)
            handler.end_headers()

        with site() as found:
            found.answers["/api/v2/alerts"] = choosy
            verdict = self.receiver(found).send(self.step("a", "bad", "c"))
            assert (verdict.outcome, verdict.refused) == ("delivered", {1})

    def test_a_token_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AM_TOKEN", "s3cret")
        with site() as found:
            self.receiver(found, token_env="AM_TOKEN").send(self.step("a"))
            assert found.requests[0][1]["authorization"] == "Bearer s3cret"

    def test_silences_come_from_the_first_instance_that_answers(self) -> None:
        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b"[]")

        with site({"/api/v2/silences": 500}) as one, site({"/api/v2/silences": answer}) as other:
            api = AlertmanagerApi(Alertmanager(urls=(one.url(""), other.url(""))))
            assert api.silences(100) == b"[]"
            other.answers["/api/v2/silences"] = other.gigabyte
            with pytest.raises(Undelivered, match="status 500, 0 bytes; status 200, 100 bytes"):
                api.silences(100)


class TestPeople:
    def people(self, monkeypatch: pytest.MonkeyPatch, *urls: str) -> People:
        pytest.importorskip("apprise")
        monkeypatch.setenv("ONCALL", "\n".join(["# of the team", *urls]))
        return People("oncall", RouteConfig(receiver="people", urls_env="ONCALL"), None)

    def test_every_address_is_told_once_however_often_another_one_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with site({"/bad": 500}) as found:
            receiver = self.people(monkeypatch, f"json://127.0.0.1:{found.port}/good", f"json://127.0.0.1:{found.port}/bad")
            assert [receiver.send(Send((ONE,))).outcome for _ in range(2)] == ["failed", "failed"]
            assert receiver.send(Send((notice(alert("f2")),))).outcome == "failed"
            found.answers["/bad"] = 200
            assert receiver.send(Send((ONE,))).outcome == "delivered"
            titles = [json.loads(body)["title"] for path, _, body in found.requests if path.startswith("/good")]
        assert titles == ["[warning] credit 7: drift.psi of age 0.31 (threshold 0.2, n=1480)"] * 2

    @pytest.mark.parametrize(
        ("url", "message"), [("nonsense://x", "line 2 is no address that apprise knows"), ("", "no address of apprise")]
    )
    def test_an_address_that_is_none_is_a_sentence_without_it(
        self, monkeypatch: pytest.MonkeyPatch, url: str, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message) as error:
            self.people(monkeypatch, url)
        assert "nonsense" not in str(error.value)
