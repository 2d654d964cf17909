"""What the overrides replace or rely on is, to the letter, what they were written against.

A failure means that Faust, mode or aiokafka has changed: read the difference, adapt monitor/runtime, and only then write the new hash.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import aiokafka
import faust
import faust.streams
import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.stores.rocksdb import Store
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer, ThreadDelegateConsumer
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from mode.worker import Worker

PINS: list[tuple[Any, str]] = [
    # replaced
    (DefaultSchedulingStrategy.iterate, "aa1147fa5c2101b8"),
    (Consumer._add_gap, "4df2573ded7c1c2c"),
    (Consumer._new_offset, "1d2c7ea89a7ad4f1"),
    (Consumer.on_partitions_revoked, "d04b7ae72c6fc206"),
    (Consumer.on_partitions_assigned, "29ce96596f05a18c"),
    (ThreadDelegateConsumer._getmany, "f9d47aa9010b5ff2"),
    (driver.Consumer._new_consumer_thread, "0870ec53dea75083"),
    (driver.AIOKafkaConsumerThread._create_worker_consumer, "c2701bfc3e6f6cad"),
    (ThreadDelegateConsumer.seek_to_committed, "f1d483b861b0328b"),
    (faust.Table._should_expire_keys, "ac578d5af0a404f6"),
    (Collection.persisted_offset, "d473d3ab3fd6f036"),
    (Recovery.on_recovery_completed, "6ef567acf072e46d"),
    (Recovery._slurp_changelogs.fun, "7825c7e50f766d5a"),
    (Recovery._set_recovery_started, "bcfebf81ae13fc75"),
    (Recovery._seek_offsets, "19598ca63d94d250"),
    (Recovery._build_offsets, "27eec86be06cb51f"),
    (Collection._new_store_by_url, "343a8125107d3f69"),
    (Store.persisted_offset, "6f2e502fb86043a1"),
    (Store.set_persisted_offset, "b4c811926678346e"),
    (Store._open_for_partition, "1dc4e0113d67379d"),
    (Store._try_open_db_for_partition, "b2546e78f9298bdc"),
    (Store.revoke_partitions, "3f85447a24fc34ff"),
    (TableManager.recovery.fget, "f0bf5de78b4c3d23"),
    (faust.App.on_start, "480d70c6c72d042d"),
    (faust.App.on_stop, "bfe5a933defb2324"),
    (GroupCoordinator._do_heartbeat, "dc1d6632aaa68e96"),
    (Worker._on_sigusr2, "82a9df91cebbc1d6"),
    (PartitionRecords._consumer_record, "e668541600b047ab"),
    (PartitionRecords._unpack_records, "b803e6d46480732c"),
    (FetchResult.getall, "3e717e30de5068d5"),
    # relied on
    (PartitionRecords.__init__, "8ec1c2ae6ea1af87"),
    (FetchResult.check_assignment, "b5340df67e3f330f"),
    (Fetcher._proc_fetch_request, "59bf948fff47eed5"),
    (Consumer.perform_seek, "0e8c130ff4b0afd8"),
    (Fetcher.fetched_records, "be4348896b9b66af"),
    (aiokafka.AIOKafkaConsumer.start, "2f1ba70443327538"),
    (Recovery.on_rebalance, "aa4d997a1795ceae"),
    (Consumer.getmany, "4b168d84882a70d6"),
    (Consumer._wait_next_records, "6218e1969a636b3f"),
    (Consumer._drain_messages, "44a2500309e83c63"),
    (driver.AIOKafkaConsumerThread.seek_wait, "12e8d34e554e9024"),
    (driver.AIOKafkaConsumerThread._seek_wait, "9d221e816d940467"),
    (driver.Consumer._to_message, "7c24f6511b2fcef7"),
    (driver.ConsumerRebalanceListener.on_partitions_assigned, "1c1f8406ad3698a6"),
    (Recovery._restart_recovery.fun, "6bd8a8558a2dffe4"),
    (Recovery._add, "1584a197b11bf835"),
    (Recovery.need_recovery, "fd1dc345b5d5e121"),
    (Recovery.active_remaining, "0dcc38568ad5018b"),
    (Recovery._wait, "ec7429b70176f8c6"),
    (Store.assign_partitions, "34dc27ace6dd9160"),
    (ThreadDelegateConsumer.pause_partitions, "27a1c94bdacd54de"),
    (ThreadDelegateConsumer.resume_partitions, "afe6b7c02a41d63c"),
    (Store._db_for_partition, "cb7e67d5f9efc4bc"),
    (faust.App._on_partitions_revoked, "d5c895bbe57dc73a"),
    (faust.App._on_partitions_assigned, "de932b7927db85b3"),
    (GroupCoordinator._heartbeat_routine, "61d01028952239d0"),
    (GroupCoordinator.ensure_active_group, "33c84c1a93012e81"),
]


def sha(function: Any) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("function", "pinned"), PINS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_the_upstream_source_is_the_one_that_the_overrides_were_written_for(function: Any, pinned: str) -> None:
    assert sha(function) == pinned


def test_versions_are_the_pinned_ones() -> None:
    assert faust.__version__ == "0.15.3"
    assert aiokafka.__version__.startswith("0.14.")


def test_the_compiled_stream_iterator_is_there() -> None:
    """Without it, events of a former assignment are acknowledged unread."""
    assert faust.streams._CStreamIterator is not None
