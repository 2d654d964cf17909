"""Records of a fetch: those that stock aiokafka makes of the same bytes, and none of a batch that does not have its sum."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import crc32c
import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record import MemoryRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.structs import TopicPartition

from monitor.runtime.fetched import BareRecords, SummedRecords, WholeFetch

TP = TopicPartition("events", 3)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch(first: int, values: list[bytes | None], codec: int = 0) -> bytes:
    """Return a record batch of format 2 that begins at an offset."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for i, value in enumerate(values):
        assert builder.append(i, 1_000 + first + i, b"k", value, [("h", b"1")]) is not None
    return first.to_bytes(8, "big") + bytes(builder.build())[8:]


def legacy(first: int, value: bytes, magic: int) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    builder.append(first, 1_000, b"k", value)
    return bytes(builder.build())


def read(records: type, unpacked: type, data: bytes, first: int = 0, aborted: Any = None, isolation: int = 0) -> list[Any]:
    found = unpacked(TP, records(data), aborted, first, None, None, True, isolation)
    facts = [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, tuple(r.headers)) for r in found]
    return [*facts, found.next_fetch_offset]


def both(data: bytes, **how: Any) -> tuple[list[Any], list[Any]]:
    return read(SummedRecords, BareRecords, data, **how), read(MemoryRecords, fetcher_records(), data, **how)


def fetcher_records() -> type:
    """Return aiokafka's own class, whether it was replaced in this process or not."""
    (stock,) = BareRecords.__bases__
    return stock


@pytest.mark.parametrize("codec", CODECS)
def test_records_are_those_of_the_stock_client(codec: str) -> None:
    data = b"".join(batch(first, [b"a" * 100, None, b"", b"{}"], CODECS[codec]) for first in (0, 4, 40))
    mine, stock = both(data)
    assert mine == stock
    assert len(mine) == 13


def test_records_before_the_offset_that_was_asked_for_are_left_out() -> None:
    mine, stock = both(batch(0, [b"a", b"b", b"c"]), first=2)
    assert mine == stock
    assert [record[0] for record in mine[:-1]] == [2]


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_older_formats_are_read_too(magic: int) -> None:
    data = legacy(0, b"a", magic) + legacy(1, b"b", magic)
    mine, stock = both(data)
    assert mine == stock
    assert [record[4] for record in mine[:-1]] == [b"a", b"b"]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch(cut: int) -> None:
    data = batch(0, [b"a"]) + batch(1, [b"b" * 50])[:-cut]
    mine, stock = both(data)
    assert mine == stock
    assert mine[-1] == 1
    assert SummedRecords(data).size_in_bytes() == len(data)


@pytest.mark.parametrize(
    ("first", "second", "at"),
    [
        (batch(0, [b"a"]), batch(1, [b"b" * 50]), -1),
        (batch(0, [b"a"]), batch(1, [b"b" * 50]), 25),
        (batch(0, [b"a"], 4), batch(1, [b"b" * 50], 4), 70),
        (legacy(0, b"a", 1), legacy(1, b"b" * 50, 1), -1),
    ],
)
def test_a_byte_that_was_changed_on_the_way_is_found(first: bytes, second: bytes, at: int) -> None:
    changed = bytearray(second)
    changed[at] ^= 1
    found = BareRecords(TP, SummedRecords(first + bytes(changed)), None, 0, None, None, True, 0)
    assert next(found).value == b"a"
    with pytest.raises(CorruptRecordException):
        next(found)


def test_the_next_offset_is_that_of_the_record_handed_over() -> None:
    """What a rebalance interrupts is fetched again from there."""
    found = BareRecords(TP, SummedRecords(batch(5, [b"a", b"b", b"c"])), None, 5, None, None, True, 0)
    assert [(next(found).offset, found.next_fetch_offset) for _ in range(2)] == [(5, 6), (6, 7)]


def fetch_of(data: bytes, first: int = 0, aborted: Any = None) -> tuple[WholeFetch, SimpleNamespace]:
    """Return what was fetched of a partition, and the state that has the consumer's position and those that it moved to."""
    state = SimpleNamespace(paused=False, position=first, moves=[])

    def consumed_to(position: int) -> None:
        state.position = position
        state.moves.append(position)

    state.consumed_to = consumed_to
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    records = BareRecords(TP, SummedRecords(data), aborted, first, None, None, True, 0 if aborted is None else READ_COMMITTED)
    return WholeFetch(TP, assignment=assignment, partition_records=records, backoff=0), state


def whole(data: bytes, most: int, first: int = 0, until: int = 100, aborted: Any = None) -> tuple[list[int], list[int]]:
    """Return the offsets that a fetch gives, at most so many at a time, and the positions after each time."""
    fetch, state = fetch_of(data, first, aborted)
    offsets, positions = [], []
    while fetch.has_more() and len(positions) < until:
        found = fetch.getall(most)
        assert len(found) <= most
        offsets += [record.offset for record in found]
        positions.append(state.position)
    return offsets, positions


@pytest.mark.parametrize(("most", "position"), [(1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 11), (8, 13), (9, 13), (100, 13)])
def test_a_fetch_is_handed_over_whole_or_cut_where_the_poll_is_full(most: int, position: int) -> None:
    data = b"".join(batch(first, [b"a", b"b", b"c"], 4) for first in (2, 5, 10))
    offsets, positions = whole(data, most, first=3)
    assert offsets == [3, 4, 5, 6, 7, 10, 11, 12]
    assert positions == sorted(positions)
    assert (positions[0], positions[-1]) == (position, 13)


def test_a_position_between_two_batches_is_the_end_of_the_first() -> None:
    """Records between them may have been compacted away."""
    offsets, positions = whole(batch(0, [b"a", b"b"]) + batch(7, [b"c"]), 2, until=1)
    assert (offsets, positions) == ([0, 1], [2])


def test_what_came_before_a_changed_byte_is_fetched_again() -> None:
    changed = bytearray(batch(1, [b"b" * 50]))
    changed[-1] ^= 1
    fetch, state = fetch_of(batch(0, [b"a"]) + bytes(changed))
    with pytest.raises(CorruptRecordException):
        fetch.getall(10)
    assert fetch.getall(10) == []
    assert not fetch.has_more()
    assert state.moves == []


def test_a_fetch_that_was_handed_over_is_gone_without_the_collector() -> None:
    """It runs seldom (garbage.py): what a fetch holds would add up to gigabytes until then."""
    gc.collect()
    gc.disable()
    try:
        for most in (2, 100):
            records = BareRecords(TP, SummedRecords(batch(0, [b"a", b"b", b"c"])), None, 0, None, None, True, 0)
            assert len(records.take(most)) == min(most, 3)
            gone = weakref.ref(records)
            del records
            assert gone() is None
    finally:
        gc.enable()


def test_a_control_batch_moves_the_position_and_gives_nothing() -> None:
    marker = bytearray(batch(1, [b"x"]))
    marker[21:23] = (0x30).to_bytes(2, "big")  # transactional, control
    marker[17:21] = crc32c.crc32c(bytes(marker[21:])).to_bytes(4, "big")
    assert whole(batch(0, [b"a"]) + bytes(marker), 10) == ([0], [2])


def test_what_a_transaction_has_aborted_is_left_out_for_whoever_reads_only_what_is_committed() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, True, 9, 0, 0, 1 << 20)
    assert builder.append(0, 1_000, None, b"x", []) is not None
    data = bytes(builder.build()) + batch(1, [b"a"])
    assert whole(data, 10) == ([0, 1], [2])
    assert whole(data, 10, aborted=[(9, 0)]) == ([1], [2])


def test_every_consumer_of_a_worker_reads_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from monitor.runtime import fetched

    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    monkeypatch.setattr(fetcher, "FetchResult", fetcher.FetchResult)
    fetched.replace_fetched()
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult) == (SummedRecords, BareRecords, WholeFetch)
