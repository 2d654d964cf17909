"""Entries of the join on a disk: written at once, read back, made anew where the store is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from monitor.runtime import pending
from monitor.runtime.pending import PendingStore, PendingStores
from monitor.runtime.store import StoreFull, StoreMemory
from tests.simulation.joins import Disk

MEMORY = StoreMemory(8 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pending" / "0.db"


def key(i: int) -> bytes:
    return random.Random(i).randbytes(16)


def test_it_is_as_a_store_in_memory(path: Path) -> None:
    store, plain, dice = PendingStore(path, MEMORY), Disk(), random.Random(1)
    assert store.state is None
    for turn in range(20):
        changes = {key(dice.randrange(200)): dice.choice((None, dice.randbytes(dice.randrange(1, 40)))) for _ in range(30)}
        store.write(changes, b"%d" % turn)
        plain.write(changes, b"%d" % turn)
        wanted = [key(i) for i in range(250)]
        assert store.get_many(wanted) == plain.get_many(wanted)
        after = dice.choice((b"", key(3), b"\xff" * 16))
        assert store.scan(after, 17) == plain.scan(after, 17)
        if turn % 5 == 4:
            store.close()
            store = PendingStore(path, MEMORY)
        assert store.state == plain.state
    store.clear()
    assert (store.state, store.scan(b"", 9), store.get_many([key(1)])) == (None, [], [None])
    store.close()


def test_a_damaged_store_is_made_anew(path: Path) -> None:
    store = PendingStore(path, MEMORY)
    store.write({key(i): b"x" * 50 for i in range(100)}, b"s")
    store.close()
    (path / "CURRENT").write_text("nonsense\n")
    store = PendingStore(path, MEMORY)
    assert (store.state, store.scan(b"", 9)) == (None, [])
    store.write({key(1): b"y"}, b"t")
    assert store.get_many([key(1)]) == [b"y"]
    store.close()


def test_a_disk_that_was_full_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PendingStore(path, MEMORY)
    original, attempts = PendingStore._write, []

    def full_once(self: PendingStore, *args: object) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise StoreFull("No space left on device")
        original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(PendingStore, "_write", full_once)
    monkeypatch.setattr(pending, "has_space", lambda _: False)
    with pytest.raises(StoreFull):
        store.write({key(1): b"a"}, b"1")
    attempts.clear()
    monkeypatch.setattr(pending, "has_space", lambda _: True)
    store.write({key(1): b"a"}, b"1")
    assert (store.get_many([key(1)]), store.state) == ([b"a"], b"1")
    store.close()


def test_stores_are_opened_once_until_they_are_closed(tmp_path: Path) -> None:
    stores = PendingStores(tmp_path, MEMORY)
    first = stores.open(3)
    assert stores.open(3) is first
    first.write({key(1): b"a"}, b"1")
    stores.close()
    assert stores.open(3).get_many([key(1)]) == [b"a"]
    stores.close()
