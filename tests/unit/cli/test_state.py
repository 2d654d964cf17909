"""`monitor state` on local stores that hold the rows of the codec fixtures."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import rocksdict
from faust.stores.rocksdb import Store

from monitor.config.settings import Config
from monitor.runtime.app import build_app
from monitor.runtime.store import IDENTITY, StoreMemory
from monitor.stages.inspection import inspect
from monitor.stages.rows import CODEC_VERSION, META, stored_key
from tests.unit.cli.test_commands import run
from tests.unit.test_codecs import FIXTURES

NEWEST = json.loads(FIXTURES[-1].read_text())


def rows_of(written: dict[str, Any], kind: str) -> list[tuple[bytes, bytes]]:
    return [(b64decode(key), b64decode(value)) for key, value in written[kind]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stores of one worker, as it leaves them."""
    app = build_app(Config(app="m"), tmp_path / "state" / "worker-0", ["s"])
    for name, kind in (("predictions-ingest", "ingest_rows"), ("merge", "merge_rows")):
        table = app.Table(name, partitions=1, key_type=bytes, value_type=bytes, options={"memory": StoreMemory(1 << 22)})
        table.data.write(0, rows_of(NEWEST, kind), 41)
        table.data._close(0)
    return tmp_path / "state"


def store(folder: Path, table: str) -> Path:
    return next(folder.glob(f"worker-0/*/tables/{table}-0.db"))


def change(folder: Path, key: bytes, value: bytes | None, table: str = "merge") -> None:
    database = rocksdict.Rdict(str(store(folder, table)), options=rocksdict.Options(raw_mode=True))
    if value is None:
        database.delete(key)
    else:
        database.put(key, value)
    database.close()


def verify(folder: Path) -> tuple[int, list[str]]:
    done = run("state", "verify", "--dir", str(folder), "--json")
    return done.returncode, [problem for line in done.stdout.splitlines() for problem in json.loads(line)["problems"]]


def test_info_tells_what_each_store_holds(folder: Path) -> None:
    done = run("state", "info", "--dir", str(folder), "--json")
    merge, ingest = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda each: each["table"])
    assert done.returncode == 0
    assert (ingest["table"], ingest["partition"], ingest["hi"], ingest["offset"]) == ("predictions-ingest", 0, 149, 41)
    assert ingest["rows"] == {"meta": 1, "pane": 3, "reference": 1}
    assert (merge["hi"], merge["codecs"], merge["epochs"]) == (4, {str(CODEC_VERSION): len(rows_of(NEWEST, "merge_rows"))}, [1])
    assert ingest["layouts"] == merge["layouts"]
    assert len(merge["layouts"]) == 1
    assert merge["changelog"] == "m-merge-changelog"
    assert 0 <= merge["age_s"] < 60
    assert merge["bytes"] > sum(len(value) for _, value in rows_of(NEWEST, "merge_rows")) / 2


def test_the_table_for_people_goes_to_standard_error(folder: Path) -> None:
    done = run("state", "info", "--dir", str(folder))
    assert done.stdout == ""
    assert "3 pane" in done.stderr
    assert "2 stores" in done.stderr


def test_stores_that_are_whole_have_no_problems_and_are_left_as_they_are(folder: Path) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*.sst")} | {
        file: file.read_bytes() for file in folder.rglob("*.log")
    }
    assert verify(folder) == (0, [])
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize(
    ("key", "message"), [(IDENTITY, "nothing says whose it is"), (Store.offset_key, "how much of the changelog")]
)
def test_a_store_that_does_not_say_what_it_is_is_a_problem(folder: Path, key: bytes, message: str) -> None:
    change(folder, key, None)
    code, problems = verify(folder)
    assert code == 1
    assert any(message in problem for problem in problems)


def test_a_flipped_row_does_not_fit_its_checksum(folder: Path) -> None:
    key, value = rows_of(NEWEST, "merge_rows")[1]
    change(folder, key, value[:-1] + bytes([value[-1] ^ 1]) + b"0000")
    code, problems = verify(folder)
    assert code == 1
    assert any("is not as it was written" in problem for problem in problems)


def test_a_store_that_cannot_be_opened_is_a_problem(folder: Path) -> None:
    (store(folder, "merge") / "CURRENT").write_text("garbage")
    code, problems = verify(folder)
    assert (code, len(problems)) == (1, 1)
    assert "cannot be read" in problems[0]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["ingest_rows", "merge_rows"])
class TestRows:
    def test_rows_of_every_version_are_consistent(self, fixture: Path, kind: str) -> None:
        found = inspect(rows_of(json.loads(fixture.read_text()), kind))
        assert list(found.all_problems()) == []
        assert found.hi >= 0
        assert {row.kind for row in found.rows} >= {"meta", "reference"}

    def test_a_cut_row_is_named(self, fixture: Path, kind: str) -> None:
        rows = rows_of(json.loads(fixture.read_text()), kind)
        for i, (key, value) in enumerate(rows):
            changed = [*rows[:i], (key, value[: len(value) // 2]), *rows[i + 1 :]]
            problems = list(inspect(changed).all_problems())
            assert any(key[:-4].decode() in problem for problem in problems), key

    def test_rows_without_meta_are_a_problem(self, fixture: Path, kind: str) -> None:
        rows = [(key, value) for key, value in rows_of(json.loads(fixture.read_text()), kind) if key[:-4] != META]
        assert "there are rows, but no meta: how far the log was read is not known" in list(inspect(rows).all_problems())

    def test_a_row_of_a_later_version_is_told_apart_from_damage(self, fixture: Path, kind: str) -> None:
        rows = rows_of(json.loads(fixture.read_text()), kind)
        other_codec = (stored_key(b"pane|m|1|0|10|0", 1), bytes([CODEC_VERSION + 1]) + bytes(20))
        other_kind = (stored_key(b"forecast|m|1", 1), bytes([CODEC_VERSION]) + bytes(20))
        assert not inspect(rows).is_of_later_version
        assert inspect([*rows, other_codec]).is_of_later_version
        assert inspect([*rows, other_kind]).is_of_later_version


def test_a_pane_of_another_layout_is_a_problem() -> None:
    rows = dict(rows_of(NEWEST, "ingest_rows"))
    (reference,) = (key for key in rows if key.startswith(b"reference|"))
    other = stored_key(b"reference|" + b"0" * 64, 1)
    rows[other] = rows.pop(reference)
    problems = list(inspect(rows.items()).all_problems())
    assert any("it holds the reference" in problem for problem in problems)
    assert any("is not in the state" in problem for problem in problems)


def test_a_later_version_s_rows_end_with_78(folder: Path) -> None:
    app = build_app(Config(app="m"), folder / "worker-0", ["s"])
    table = app.Table("merge", partitions=1, key_type=bytes, value_type=bytes, options={"memory": StoreMemory(1 << 22)})
    table.data.write(0, [(stored_key(b"pane|m|1|0|10|0", 1), bytes([CODEC_VERSION + 1]) + bytes(20))], 42)
    table.data._close(0)
    code, problems = verify(folder)
    assert code == 78
    assert any(f"codec version {CODEC_VERSION + 1}; this program reads" in problem for problem in problems)
