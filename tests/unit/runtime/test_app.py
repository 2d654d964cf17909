from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from monitor.config import Config
from monitor.ports import Message
from monitor.runtime.app import build_app
from monitor.runtime.extensions import LostOwnership, MonitorApp


def app_of(tmp_path: Path, **kafka: Any) -> MonitorApp:
    return build_app(Config.model_validate({"app": "a", "kafka": kafka}), tmp_path, ["s", "a.partials"])


def test_there_is_no_static_membership(tmp_path: Path) -> None:
    """A replacement would get the generation of the process that it replaces: two processes, one epoch."""
    assert not app_of(tmp_path).conf.consumer_group_instance_id


def test_settings_that_exactness_needs(tmp_path: Path) -> None:
    conf = app_of(tmp_path, session_timeout="9s", heartbeat_interval="2s").conf
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (9, 2)
    assert conf.producer_acks == -1
    assert conf.processing_guarantee.value == "at_least_once"
    assert conf.table_standby_replicas == 0
    assert not conf.stream_wait_empty
    assert not conf.topic_allow_declare
    assert not conf.web_enabled


def test_every_broker_of_the_list_is_used(tmp_path: Path) -> None:
    urls = app_of(tmp_path, bootstrap_servers="one:1, two:2").conf.broker
    assert [str(url) for url in urls] == ["kafka://one:1", "kafka://two:2"]


@pytest.mark.parametrize(
    ("kafka", "protocol"),
    [
        ({"security.protocol": "ssl"}, "SSL"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanisms": "PLAIN"}, "SASL_SSL"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanisms": "SCRAM-SHA-256"}, "SASL_SSL"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanisms": "SCRAM-SHA-512"}, "SASL_SSL"),
        ({"security.protocol": "sasl_plaintext", "allow_plaintext_sasl": True}, "SASL_PLAINTEXT"),
    ],
)
def test_credentials_are_those_of_the_configuration(tmp_path: Path, kafka: dict[str, Any], protocol: str) -> None:
    secret = {"sasl.username": "u", "sasl.password": "p"} if "sasl" in kafka["security.protocol"] else {}
    credentials = app_of(tmp_path, **kafka, **secret).conf.broker_credentials
    assert credentials.protocol.value == protocol
    if secret:
        assert (credentials.username, credentials.password) == ("u", "p")
        assert credentials.mechanism.value == kafka.get("sasl.mechanisms", "PLAIN")


class Producer:
    """Acknowledges in the order in which it was asked; `fails` are numbers of sends that are lost."""

    def __init__(self, *fails: int) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.fails = fails

    async def send(self, *message: Any) -> asyncio.Future[int]:
        self.sent.append(message)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if len(self.sent) - 1 in self.fails:
            future.set_exception(ConnectionError("lost"))
        else:
            future.set_result(len(self.sent) - 1)
        return future


class TestSendAll:
    def send(self, tmp_path: Path, producer: Producer, messages: list[Message], is_owner: Any = lambda: True) -> list[Any]:
        app = app_of(tmp_path)

        async def ready() -> Producer:
            return producer

        app.maybe_start_producer = ready
        return asyncio.run(app.send_all(messages, is_owner))

    def test_everything_is_acknowledged_in_order(self, tmp_path: Path) -> None:
        messages = [
            Message("t", b"k", b"%d" % i, partition=2, headers={"h": b"x"}, timestamp_ms=1_735_689_600_123) for i in range(3)
        ]
        producer = Producer()
        assert self.send(tmp_path, producer, messages) == [0, 1, 2]
        topic, key, value, partition, timestamp, headers = producer.sent[1]
        assert (topic, key, value, partition, headers) == ("t", b"k", b"1", 2, {"h": b"x"})
        assert int(timestamp * 1000.0) == 1_735_689_600_123

    def test_one_lost_message_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionError):
            self.send(tmp_path, Producer(1), [Message("t", None, b"")] * 3)

    def test_nothing_more_is_sent_once_the_partition_is_lost(self, tmp_path: Path) -> None:
        producer = Producer()
        answers = iter([True, True, False])
        with pytest.raises(LostOwnership):
            self.send(tmp_path, producer, [Message("t", None, b"")] * 5, lambda: next(answers))
        assert len(producer.sent) == 2
