"""What a worker asks the brokers about logs, on the embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import confluent_kafka as ck
import pytest

from monitor.config.settings import Config, Kafka
from monitor.ports import StoredRecord
from monitor.runtime import owners as module
from monitor.runtime.broker import Watch
from monitor.runtime.embedded import EmbeddedBroker
from monitor.runtime.owners import Owners
from monitor.runtime.telemetry import Telemetry
from tests.unit.runtime.test_owners import App, Made

pytestmark = pytest.mark.embedded
ROWS = [(b"a", b"0"), (b"b", b"1"), (b"a", None), (b"c", b""), (b"a", b"4")]


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with EmbeddedBroker() as broker:
        producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
        producer.list_topics("log", timeout=10)
        for key, value in ROWS:
            producer.produce("log", value, key, partition=1, timestamp=5)
        assert producer.flush(10) == 0
        yield Kafka(bootstrap_servers=broker.bootstrap)


def test_records_are_read_from_one_offset_to_another_tombstones_too(kafka: Kafka) -> None:
    watch = Watch(kafka, group="g")
    expected = [StoredRecord(offset, 5, value, key) for offset, (key, value) in enumerate(ROWS)]
    assert watch.records("log", 1, 1, 3) == expected[1:4]
    assert watch.records("log", 1, 0, 99) == expected
    assert watch.offsets("log", 1) == (0, 5)
    assert (watch.present("log", 1, 2, 9), watch.first_at("log", 1, 3), watch.first_at("log", 1, 5)) == ([2, 3, 4], 3, None)


def owners_of(kafka: Kafka) -> Owners:
    return Owners(App(0), Config(kafka=kafka), Made(), Telemetry(), {})  # type: ignore[arg-type]


def test_a_changelog_is_read_for_a_checkpoint_that_found_others_records(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = owners_of(kafka)
    read = owners._app.read_log
    assert [record.key for record in asyncio.run(read("log", 1, 2, 4))] == [b"a", b"c", b"a"]
    monkeypatch.setattr(module, "MAX_MISSED", 3)
    assert [len(asyncio.run(read("log", 1, first, 4))) for first in (2, 1)] == [3, 0]


def test_a_broker_that_does_not_answer_is_asked_again_at_the_next_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[StoredRecord]:
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))

    monkeypatch.setattr(Watch, "records", fails)
    owners = owners_of(Kafka(bootstrap_servers="127.0.0.1:1"))
    assert list(asyncio.run(owners._app.read_log("log", 1, 0, 4))) == []
