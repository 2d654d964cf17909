from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record import MemoryRecords

from monitor.config.settings import Config
from monitor.ports import Message
from monitor.runtime.app import build_app
from monitor.runtime.extensions import FETCH_WAIT_MS, MonitorApp
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership

KEYED = (2, 0, 1, 2, 3, 0, 0, 0)
"""Where librdkafka's murmur2 puts the keys model-0 … model-7 among four partitions."""


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


def test_no_fetch_of_silent_partitions_holds_up_others_for_long(tmp_path: Path) -> None:
    async def fetch_wait_ms() -> int:
        app = app_of(tmp_path)
        consumer = app.consumer._new_consumer_thread()._create_worker_consumer(app.transport)
        consumer._closed = True  # it was never started
        return int(consumer._fetch_max_wait_ms)

    assert asyncio.run(fetch_wait_ms()) == FETCH_WAIT_MS < 1_500


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
    """aiokafka's, with its real batches; `fails` are the numbers of those that are lost. `sent`: (topic, partition, batch)."""

    def __init__(self, *fails: int, batch_size: int = 1 << 20) -> None:
        self.sent: list[tuple[str, int, BatchBuilder]] = []
        self.fails = fails
        self.batch_size = batch_size
        self.ends: Counter[tuple[str, int]] = Counter()

    def _ensure_producer(self) -> Producer:
        return self

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self.batch_size, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        assert batch.closed()
        self.sent.append((topic, partition, batch))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if len(self.sent) - 1 in self.fails:
            future.set_exception(ConnectionError("lost"))
        else:
            future.set_result(SimpleNamespace(offset=self.ends[topic, partition]))
            self.ends[topic, partition] += batch.record_count()
        return future

    def records(self) -> list[tuple[str, int, Any]]:
        """Topic, partition and record of all that was sent."""
        return [(t, p, record) for t, p, batch in self.sent for record in MemoryRecords(bytes(batch._build())).next_batch()]


class TestSendAll:
    def send(self, tmp_path: Path, producer: Producer, messages: list[Message], is_owner: Any = lambda: True) -> list[int]:
        app = app_of(tmp_path)

        async def ready() -> Producer:
            return producer

        app.maybe_start_producer = ready
        return asyncio.run(app.send_all(messages, is_owner))

    def test_messages_arrive_as_they_are_in_the_order_given_and_their_offsets_are_returned(self, tmp_path: Path) -> None:
        facts: dict[str, Any] = {"headers": {"h": b"x"}, "timestamp_ms": 1_735_689_600_123}
        messages = [Message("t", b"k", None if i == 1 else b"%d" % i, partition=i % 2, **facts) for i in range(5)]
        producer = Producer()
        assert self.send(tmp_path, producer, messages) == [0, 0, 1, 1, 2]
        found = [(p, r.key, r.value, r.timestamp, tuple(r.headers)) for _, p, r in producer.records()]
        in_order = [(0, b"0"), (0, b"2"), (0, b"4"), (1, None), (1, b"3")]
        assert found == [(p, b"k", value, facts["timestamp_ms"], (("h", b"x"),)) for p, value in in_order]

    def test_what_does_not_fit_into_one_batch_goes_into_several_and_one_that_is_too_large_alone(self, tmp_path: Path) -> None:
        sizes = [400, 400, 400, 3_000, 10]
        producer = Producer(batch_size=1_000)
        messages = [Message("t", b"k", b"x" * size, partition=0) for size in sizes]
        assert self.send(tmp_path, producer, messages) == [0, 1, 2, 3, 4]
        assert [batch.record_count() for _, _, batch in producer.sent] == [2, 1, 1, 1]
        assert [len(r.value) for _, _, r in producer.records()] == sizes

    def test_a_key_chooses_the_partition_that_every_kafka_client_would(self, tmp_path: Path) -> None:
        producer = Producer()
        self.send(tmp_path, producer, [Message("t", f"model-{i}".encode(), b"") for i in range(8)])
        found = {r.key.decode(): p for _, p, r in producer.records()}
        assert found == {f"model-{i}": p for i, p in enumerate(KEYED)}

    def test_one_lost_batch_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionError):
            self.send(tmp_path, Producer(1), [Message("t", b"k", b"", p) for p in range(3)])

    def test_nothing_more_is_sent_once_the_partition_is_lost(self, tmp_path: Path) -> None:
        producer = Producer()
        answers = iter([True, True, False])
        with pytest.raises(LostOwnership):
            self.send(tmp_path, producer, [Message("t", b"k", b"", p) for p in range(4)], lambda: next(answers))
        assert len(producer.sent) == 2

    def test_what_an_output_topic_refuses_is_told_after_everything_else_is_acknowledged(self, tmp_path: Path) -> None:
        class Gone(Producer):
            asked = 0

            async def partitions_for(self, topic: str) -> set[int]:
                if topic == "a.alerts":
                    self.asked += 1
                    raise UnknownTopicOrPartitionError
                return await super().partitions_for(topic)

        producer = Gone()
        messages = [Message(topic, b"k", b"%d" % i) for i, topic in enumerate(["a.results", "a.alerts", "a.alerts", "a.results"])]
        with pytest.raises(Refused, match=r"a\.alerts: UnknownTopicOrPartitionError \(3\)") as refused:
            self.send(tmp_path, producer, messages)
        assert refused.value.unsent == (messages[1], messages[2])
        assert refused.value.offsets == [0, -1, -1, 1]
        assert [(topic, record.value) for topic, _, record in producer.records()] == [("a.results", b"0"), ("a.results", b"3")]
        assert producer.asked == 1  # each time takes as long as a record may be on its way

    @pytest.mark.parametrize(
        "error",
        [MessageSizeTooLargeError(), TopicAuthorizationFailedError("a.alerts"), NotEnoughReplicasError(), KafkaTimeoutError()],
    )
    def test_all_of_a_topic_is_sent_again_when_some_was_refused_so_that_order_stays(
        self, tmp_path: Path, error: Exception
    ) -> None:
        class Refusing(Producer):
            async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
                future = await super().send_batch(batch, topic, partition=partition)
                if partition == 1:
                    future = asyncio.get_running_loop().create_future()
                    future.set_exception(error)
                return future

        messages = [Message("a.alerts", b"k", b"", partition) for partition in (0, 1, 2)]
        with pytest.raises(Refused) as refused:
            self.send(tmp_path, Refusing(), messages)
        assert refused.value.unsent == tuple(messages)

    def test_a_client_that_is_busy_is_waited_for_as_long_as_the_partition_is_owned(self, tmp_path: Path) -> None:
        """It takes one batch of a partition at a time: what it has not taken is not lost."""

        class Busy(Producer):
            times = 2

            async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
                if self.times:
                    self.times -= 1
                    raise KafkaTimeoutError
                return await super().send_batch(batch, topic, partition=partition)

        assert self.send(tmp_path, Busy(), [Message("a.partials", b"k", b"", 1)]) == [0]
        answers = iter([True, False])
        with pytest.raises(LostOwnership):
            self.send(tmp_path, Busy(), [Message("a.partials", b"k", b"", 1)], lambda: next(answers))

    @pytest.mark.parametrize("topic", ["a-t-changelog", "a.partials", "a.alerts"])
    def test_any_other_error_and_any_refusal_of_state_is_raised(self, tmp_path: Path, topic: str) -> None:
        error: Exception = ConnectionError("lost") if topic == "a.alerts" else RequestTimedOutError()

        class Failing(Producer):
            async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
                raise error

        with pytest.raises(type(error)):
            self.send(tmp_path, Failing(), [Message(topic, b"k", b"")])
