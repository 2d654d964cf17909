from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from monitor.errors import ConfigError
from monitor.runtime.http import serve


class Site:
    is_ready = False

    def __init__(self) -> None:
        registry = CollectorRegistry()
        Gauge("monitor_partitions", "x", registry=registry).set(4)
        self.server = serve("127.0.0.1:0", 3, registry, lambda: (True, "well"), lambda: (self.is_ready, "ready?"))

    def ask(self, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=5)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_probes_answer_200_or_503(site: Site) -> None:
    assert site.ask("/livez")[0].status == 200
    assert site.ask("/readyz")[0].status == 503
    site.is_ready = True
    assert site.ask("/readyz")[0].status == 200


def test_metrics_are_the_registrys(site: Site) -> None:
    answer, body = site.ask("/metrics")
    assert b"monitor_partitions 4.0" in body
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert "Python" not in (answer.getheader("Server") or "")


def test_head_has_no_body_and_other_methods_and_paths_do_not_exist(site: Site) -> None:
    answer, body = site.ask("/metrics", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert site.ask("/", "GET")[0].status == 404
    assert site.ask("/metrics", "POST")[0].status == 501


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"http.bind: 127.0.0.1:{port} cannot be listened at"):
            serve(f"127.0.0.1:{port - 2}", 2, CollectorRegistry(), lambda: (True, ""), lambda: (True, ""))
