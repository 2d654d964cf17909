"""Requests that a configuration can make us send, against receivers that mean no good."""

from __future__ import annotations

import resource
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from monitor.config.notify import is_below, is_public
from monitor.errors import ConfigError
from monitor.notify.outbound import MAX_ANSWER_BYTES, TOTAL_S, Outbound, Undelivered
from tests.unit.notify.servers import seconds_of, site


def open_client() -> Outbound:
    return Outbound(allow_http=True, allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_public_internet_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_ones_are_not(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_refused_however_it_is_written_and_nothing_is_sent(host: str) -> None:
    with site() as found, pytest.raises(Undelivered):
        Outbound(allow_http=True).request("POST", found.url(host=host), body=b"x")
    assert found.requests == []


def test_a_name_that_leads_to_a_private_address_among_public_ones_is_refused() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(Undelivered, match="private, loopback or link-local"):
        Outbound(allow_http=True, resolve=resolve).request("POST", "http://hooks.example/")


def test_the_connection_goes_to_the_address_that_was_looked_up_once() -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    with site() as found:
        client = Outbound(allow_http=True, allow_private=True, resolve=resolve)
        assert client.request("POST", found.url("/a", host="hooks.example"), body=b"x").status == 200
        assert found.requests[0][1]["host"] == f"hooks.example:{found.port}"
    assert asked == [("hooks.example", found.port)]


def test_without_tls_nothing_is_sent_unless_it_is_allowed() -> None:
    with site() as found, pytest.raises(Undelivered, match="https only"):
        Outbound(allow_private=True).request("POST", found.url())
    assert found.requests == []


def test_a_redirect_is_not_followed() -> None:
    with site() as found:
        found.answers["/"] = found.redirect
        assert open_client().request("POST", found.url(), body=b"x").status == 307
        assert [path for path, _, _ in found.requests] == ["/"]


def test_of_a_body_of_a_gigabyte_four_kibibytes_are_read() -> None:
    with site() as found:
        found.answers["/"] = found.gigabyte
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = open_client().request("POST", found.url(), body=b"x")
        assert (answer.status, len(answer.body)) == (200, MAX_ANSWER_BYTES)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
        assert found.taken < 64 << 20


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_receiver_that_does_not_answer_is_given_up(behaviour: str) -> None:
    with site() as found:
        found.answers["/"] = getattr(found, behaviour)

        def ask() -> None:
            with pytest.raises(Undelivered):
                open_client().request("POST", found.url(), body=b"x")

        assert seconds_of(ask) < TOTAL_S + 20


def test_nobody_who_listens_is_a_sentence_without_the_address() -> None:
    with site() as found:
        url = found.url("/token-in-path")
    with pytest.raises(Undelivered) as error:
        open_client().request("POST", url, body=b"x")
    assert "token" not in str(error.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_certificates_are_verified_and_an_own_authority_can_be_named(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run(
        [*command, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"], check=True, capture_output=True, timeout=30
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    with site({}, context) as found:
        with pytest.raises(Undelivered):
            Outbound(allow_private=True).request("POST", found.url(host="localhost", scheme="https"), body=b"x")
        trusting = Outbound(allow_private=True, ca_file=tmp_path / "ca.pem")
        assert trusting.request("POST", found.url(host="localhost", scheme="https"), body=b"x").status == 200
        with pytest.raises(Undelivered):
            trusting.request("POST", found.url(host="127.0.0.1", scheme="https"), body=b"x")
    with pytest.raises(ConfigError, match="cannot be used"):
        Outbound(ca_file=tmp_path / "none.pem")


@pytest.mark.parametrize(
    ("url", "allowed", "is_allowed"),
    [
        ("https://a.example/hooks/1", "https://a.example/hooks", True),
        ("https://a.example/hooks", "https://a.example/hooks/", True),
        ("https://A.example:443/", "https://a.example", True),
        ("https://a.example/hooksother", "https://a.example/hooks", False),
        ("https://a.example/hooks/../admin", "https://a.example/hooks", False),
        ("https://a.example/hooks/%2e%2e/admin", "https://a.example/hooks", False),
        ("https://a.example/hooks/..%2fadmin", "https://a.example/hooks", False),
        ("https://a.example.org/hooks", "https://a.example/hooks", False),
        ("https://a.example:8443/hooks", "https://a.example/hooks", False),
        ("http://a.example/hooks", "https://a.example/hooks", False),
    ],
)
def test_an_allowed_address_is_a_beginning_of_whole_segments(url: str, allowed: str, *, is_allowed: bool) -> None:
    assert is_below(url, allowed) == is_allowed
