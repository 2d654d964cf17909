"""Damage to the local store: whatever is done to its files, it is either read as it was written, made anew, or refused; never misread."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rocksdict
from faust.types import TP

from monitor.config.settings import Config
from monitor.errors import ConfigError, StateMismatch
from monitor.runtime import store as module
from monitor.runtime.app import build_app
from monitor.runtime.extensions import CheckpointTable
from monitor.runtime.store import IDENTITY, LocalStore, StoreDamaged, StoreFull, StoreMemory

CHANGELOG = TP("a-t-changelog", 1)
PINNED = 2 * (256 << 10)
"""Bytes: two reservations of write buffers above the share of a shard of the cache; one was seen once."""
ROWS = [(b"row%04d" % i, os.urandom(200)) for i in range(2_000)]


def table_of(folder: Path, name: str = "t", *, topic_id: str | None = None, memory: int = 1 << 24) -> CheckpointTable:
    app = build_app(Config(app="a"), folder, ["s"])
    table: CheckpointTable = app.Table(
        name, partitions=4, key_type=bytes, value_type=bytes, options={"memory": StoreMemory(memory)}
    )
    table.data.topic_id = topic_id
    return table


def filled(folder: Path, **settings: Any) -> Path:
    """Fill a store, half of it in files and half in the write-ahead log; return its path."""
    data: LocalStore = table_of(folder, **settings).data
    data.write(1, ROWS[:1_000], 999)
    data._db_for_partition(1).flush()
    data.write(1, ROWS[1_000:], 1_999)
    path = Path(data.partition_path(1))
    data._close(1)
    return path


def largest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern), key=lambda file: file.stat().st_size)


def flip(file: Path, at: int | None = None) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2 if at is None else at)
        opened.write(b"\xff" * 32)


def put(path: Path, key: bytes, value: bytes | None) -> None:
    """Change a row behind the store's back, so that RocksDB's own checksums are right."""
    database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
    if value is None:
        database.delete(key)
    else:
        database.put(key, value)
    database.close()


def rows_of(path: Path) -> list[tuple[bytes, bytes]]:
    database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
    found = [(key, value) for key, value in database.items() if not key.startswith(b"__")]
    database.close()
    return found


def flip_row(path: Path) -> None:
    key, value = rows_of(path)[-1]
    put(path, key, value[:20] + bytes([value[20] ^ 1]) + value[21:])


def swap(path: Path) -> None:
    (key, _), *_, (_, other) = rows_of(path)
    put(path, key, other)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "the folder is gone": shutil.rmtree,
    "a file is there in its place": lambda path: (shutil.rmtree(path), path.write_text("x")),  # type: ignore[dict-item, func-returns-value]
    "a table file is gone": lambda path: largest(path, "*.sst").unlink(),
    "a table file is cut": lambda path: os.truncate(largest(path, "*.sst"), 1_000),
    "bytes of a table file are flipped": lambda path: flip(largest(path, "*.sst")),
    "the manifest is gone": lambda path: largest(path, "MANIFEST*").unlink(),
    "the manifest is flipped": lambda path: flip(largest(path, "MANIFEST*"), 60),
    "CURRENT is gone": lambda path: (path / "CURRENT").unlink(),
    "CURRENT is garbage": lambda path: (path / "CURRENT").write_text("garbage"),  # type: ignore[dict-item, func-returns-value]
    "rocksdict's configuration says pickle": lambda path: (path / "rocksdict-config.json").write_text(  # type: ignore[dict-item, func-returns-value]
        json.dumps({"raw_mode": False, "prefix_extractors": {}})
    ),
    "the changelog offset is gone": lambda path: put(path, LocalStore.offset_key, None),
    "the changelog offset is flipped": lambda path: put(path, LocalStore.offset_key, b"99999999"),
    "a row is flipped": flip_row,
    "a row stands under another's key": swap,
    "a row is cut to nothing": lambda path: put(path, rows_of(path)[0][0], b""),
    "nothing says whose it is": lambda path: put(path, IDENTITY, None),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_store_is_made_anew_and_asks_for_the_whole_changelog(tmp_path: Path, what: str) -> None:
    path = filled(tmp_path)
    DAMAGE[what](path)
    table = table_of(tmp_path)
    assert table.data.persisted_offset(CHANGELOG) is None
    assert list(table.scan(1)) == []
    assert table.data.rebuilt == (0 if what == "the folder is gone" else 1)
    table.data.write(1, ROWS[:10], 9)
    table.data._close(1)
    again = table_of(tmp_path)
    assert (again.data.persisted_offset(CHANGELOG), dict(again.scan(1))) == (9, dict(ROWS[:10]))


def test_a_store_that_is_whole_is_read_as_it_was_written(tmp_path: Path) -> None:
    filled(tmp_path)
    table = table_of(tmp_path)
    assert (table.data.persisted_offset(CHANGELOG), list(table.scan(1)), table.data.rebuilt) == (1_999, ROWS, 0)


def test_a_cut_write_ahead_log_leaves_an_earlier_state_with_its_own_offset(tmp_path: Path) -> None:
    path = filled(tmp_path)
    flip(largest(path, "*.log"), 300)
    table = table_of(tmp_path)
    assert (table.data.persisted_offset(CHANGELOG), list(table.scan(1))) in [(999, ROWS[:1_000]), (1_999, ROWS)]


def test_a_lock_file_that_a_dead_process_left_is_no_damage(tmp_path: Path) -> None:
    path = filled(tmp_path)
    assert (path / "LOCK").exists()
    assert table_of(tmp_path).data.persisted_offset(CHANGELOG) == 1_999


@pytest.mark.parametrize("other", ["partition", "topic", "format"])
def test_a_store_of_another_partition_topic_or_format_is_not_taken(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path)
    name, partition = ("u", 1) if other == "topic" else ("t", 2 if other == "partition" else 1)
    if other == "format":
        monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    table = table_of(tmp_path, name)
    if other != "format":
        shutil.copytree(path, table.data.partition_path(partition))
    assert table.data.persisted_offset(TP(f"a-{name}-changelog", partition)) is None
    assert (list(table.scan(partition)), table.data.rebuilt) == ([], 1)


def test_a_store_whose_changelog_was_made_anew_is_refused_with_an_instruction(tmp_path: Path) -> None:
    """It may be the only copy: what the new topic lacks cannot be told."""
    path = filled(tmp_path, topic_id="one")
    table = table_of(tmp_path, topic_id="two")
    with pytest.raises(StateMismatch, match=r"a-t-changelog was deleted and created again since .* or remove that folder"):
        table.data.persisted_offset(CHANGELOG)
    shutil.rmtree(path)
    assert table.data.persisted_offset(CHANGELOG) is None


def test_a_broker_that_tells_no_topic_id_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, topic_id="one")
    assert table_of(tmp_path).data.persisted_offset(CHANGELOG) == 1_999


def test_damage_that_comes_while_a_store_is_open_is_not_read_over(tmp_path: Path) -> None:
    filled(tmp_path)
    table = table_of(tmp_path)
    table.data._db_for_partition(1).put(ROWS[5][0], ROWS[5][1])
    with pytest.raises(StoreDamaged, match="row0005"):
        list(table.scan(1))


class TestAgainstTheChangelog:
    def test_a_store_that_is_ahead_is_made_anew(self, tmp_path: Path) -> None:
        filled(tmp_path)
        table = table_of(tmp_path)
        assert table.compare(1, 0, 1_500) is None
        assert (list(table.scan(1)), table.data.rebuilt) == ([], 1)

    def test_a_store_that_it_reaches_is_kept(self, tmp_path: Path) -> None:
        filled(tmp_path)
        table = table_of(tmp_path)
        assert (table.compare(1, 0, 1_999), table.compare(1, 2_000, 3_000), table.data.rebuilt) == (1_999, 1_999, 0)

    def test_a_changelog_that_lacks_what_the_store_lacks_is_refused(self, tmp_path: Path) -> None:
        filled(tmp_path)
        with pytest.raises(StateMismatch, match=r"a-t-changelog/1 begins at offset 2001: .* cleanup\.policy must be compact"):
            table_of(tmp_path).compare(1, 2_001, 3_000)

    def test_so_is_one_without_its_beginning_where_there_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StateMismatch, match="begins at offset 5"):
            table_of(tmp_path).compare(1, 5, 9)


class Disk:
    """Stands between a store and RocksDB; `error` is what writes raise."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.consumed: list[Any] = []
        self.error: str | None = "IO error: No space left on device: While appending to file"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    def write(self, batch: Any) -> None:
        if self.error is not None:
            raise Exception(self.error)
        self.database.write(batch)


class TestFullDisk:
    def store(self, tmp_path: Path) -> tuple[LocalStore, Disk]:
        data: LocalStore = table_of(tmp_path).data
        data.write(1, ROWS[:2], 1)
        disk = data._dbs[1] = Disk(data._dbs[1])
        return data, disk

    def test_what_had_no_room_is_written_later_and_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "has_space", lambda folder: False)
        data, disk = self.store(tmp_path)
        for attempt in (lambda: data.write(1, ROWS[2:4], 3), lambda: data.write_again(1)):
            with pytest.raises(StoreFull):
                attempt()
        assert (data.persisted_offset(CHANGELOG), len(list(data.rows(1)))) == (1, 2)
        disk.error = None
        data.write_again(1)
        assert (data.persisted_offset(CHANGELOG), list(data.rows(1))) == (3, ROWS[:4])

    def test_a_store_that_refuses_though_there_is_space_is_opened_again(self, tmp_path: Path) -> None:
        data, _ = self.store(tmp_path)
        data.write(1, ROWS[2:4], 3)
        assert (data.persisted_offset(CHANGELOG), list(data.rows(1))) == (3, ROWS[:4])

    def test_one_that_is_damaged_by_then_is_not_written_on(self, tmp_path: Path) -> None:
        """A batch on an empty store would look like all of the changelog up to its offset."""
        data, disk = self.store(tmp_path)
        close = disk.database.close
        disk.close = lambda: (close(), (Path(data.partition_path(1)) / "CURRENT").write_text("garbage"))  # type: ignore[attr-defined]
        with pytest.raises(StoreDamaged):
            data.write(1, ROWS[2:4], 3)
        assert data.rebuilt == 0

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("IO error: Disk quota exceeded", StoreFull),
            ("IO error: While open a file for appending: Read-only file system", ConfigError),
            ("Corruption: block checksum mismatch", StoreDamaged),
            ("IO error: Input/output error", Exception),
        ],
    )
    def test_only_a_full_disk_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[Exception]
    ) -> None:
        monkeypatch.setattr(module, "has_space", lambda folder: False)
        data, disk = self.store(tmp_path)
        disk.error = text
        with pytest.raises(error) as raised:
            data.write(1, ROWS[2:4], 3)
        if error is not StoreFull:
            assert not isinstance(raised.value, StoreFull)


class TestMemory:
    def test_every_store_takes_from_one_budget(self, tmp_path: Path) -> None:
        memory = StoreMemory(64 << 20)
        app = build_app(Config(app="a"), tmp_path, ["s"])
        tables = [app.Table(name, partitions=2, key_type=bytes, value_type=bytes, options={"memory": memory}) for name in "tu"]
        seen = [memory.buffered]
        for table in tables:
            for partition in (0, 1):
                table.data.write(partition, ROWS, 5)
                seen.append(memory.buffered)
        assert all(after - before >= 400_000 for before, after in itertools.pairwise(seen))
        in_tables = sum(
            table.data._dbs[partition].property_int_value("rocksdb.cur-size-all-mem-tables")
            for table in tables
            for partition in (0, 1)
        )
        assert memory.buffered == in_tables <= memory.used

    def test_the_budget_bounds_write_buffers_and_blocks_together(self, tmp_path: Path) -> None:
        table = table_of(tmp_path, memory=4 << 20)
        for round_ in range(5):
            for partition in range(4):
                table.data.write(partition, [(b"%d|%d" % (round_, i), os.urandom(10_000)) for i in range(100)], round_)
        for partition in range(4):
            table.data._dbs[partition].flush()
            assert len(list(table.scan(partition))) == 500
        memory = table.data._memory
        assert memory.used <= memory.limit + PINNED  # of the 20 MB that were written and read
