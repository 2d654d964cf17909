"""Versions of rows under several epochs: which one counts, and which are deleted, when."""

from __future__ import annotations

import pytest

from monitor.errors import StaleOwner, UnknownCodec
from monitor.ports import Checkpoint, Message
from monitor.stages.rows import CLOSED, EMITTED, META, OPEN, Versions, row_key, same_topic_id, stored_key, stored_value


def row(key: bytes, epoch: int, hi: int, payload: bytes = b"", state: int = OPEN) -> tuple[bytes, bytes]:
    return stored_key(key, epoch), stored_value(state, hi, payload)


def meta(epoch: int, hi: int) -> tuple[bytes, bytes]:
    return row(META, epoch, hi)


def deleted(checkpoint: Checkpoint) -> set[bytes]:
    return {key for key, value in checkpoint.rows if value is None}


def written(versions: Versions, *rows: tuple[bytes, int, int, bytes], hi: int, retire: bool = False) -> Checkpoint:
    checkpoint = versions.snapshot(rows, (hi, b""), retire=retire)
    versions.committed(checkpoint)
    return checkpoint


@pytest.mark.parametrize("order", [1, -1])
def test_more_events_win_and_then_the_younger_owner_whatever_order_they_are_read_in(order: int) -> None:
    items = [row(b"a", 1, 7, b"most"), row(b"a", 3, 5, b"young"), row(b"b", 1, 4, b"old"), row(b"b", 2, 4, b"young", EMITTED)]
    best = Versions(items[::order], epoch=4).best
    assert (best[b"a"].payload, best[b"a"].hi, best[b"a"].epoch) == (b"most", 7, 1)
    assert (best[b"b"].payload, best[b"b"].state) == (b"young", EMITTED)


@pytest.mark.parametrize("found", [5, 6])
def test_rows_of_ones_own_epoch_or_of_a_younger_one_are_refused(found: int) -> None:
    with pytest.raises(StaleOwner) as caught:
        Versions([row(b"a", 4, 1), row(b"a", found, 1)], epoch=5)
    assert (caught.value.own_epoch, caught.value.found_epoch) == (5, found)


@pytest.mark.parametrize("codec", [0, 3, 9])
def test_a_row_of_another_codec_version_is_refused(codec: int) -> None:
    key, value = row(b"a", 1, 1)
    with pytest.raises(UnknownCodec) as caught:
        Versions([(key, bytes([codec]) + value[1:])], epoch=1)
    assert (caught.value.what, caught.value.version, caught.value.known) == ("a state row", codec, (1, 2))


def test_a_checkpoint_writes_rows_and_meta_in_its_own_epoch_and_what_must_go_before() -> None:
    letter = Message("dlq", None, b"bad")
    checkpoint = Versions([], epoch=4).snapshot([(b"a", CLOSED, 9, b"x")], (11, b"m"), [letter], retire=False)
    assert checkpoint.rows == ((stored_key(b"a", 4), stored_value(CLOSED, 9, b"x")),)
    assert checkpoint.meta == (stored_key(META, 4), stored_value(OPEN, 11, b"m"))
    assert (checkpoint.hi, checkpoint.dead_letters) == (11, (letter,))


def test_a_dropped_row_is_deleted_in_every_epoch_once() -> None:
    versions = Versions([row(b"a", 1, 1), row(b"a", 2, 2), row(b"b", 1, 1)], epoch=3)
    assert not versions.has_dropped
    versions.drop(b"a")
    versions.drop(b"never there")
    assert versions.has_dropped
    assert b"a" not in versions.best and b"b" in versions.best
    assert deleted(written(versions, hi=2)) == {stored_key(b"a", 1), stored_key(b"a", 2)}
    assert not versions.has_dropped
    assert deleted(written(versions, hi=2)) == set()


class TestSuperseded:
    """What a newer row, with its meta, stands for is deleted, once no older owner can be alive."""

    def versions(self) -> Versions:
        return Versions([row(b"a", 1, 5), meta(1, 5)], epoch=2)

    def test_nothing_is_deleted_while_an_older_owner_may_be_alive(self) -> None:
        versions = self.versions()
        written(versions, (b"a", OPEN, 6, b""), hi=6)
        assert deleted(written(versions, hi=7)) == set()

    def test_the_older_owners_meta_goes_one_checkpoint_before_its_rows(self) -> None:
        versions = self.versions()
        written(versions, (b"a", OPEN, 6, b""), hi=6)
        assert deleted(written(versions, hi=6, retire=True)) == {stored_key(META, 1)}
        assert deleted(written(versions, hi=6, retire=True)) == {stored_key(b"a", 1)}
        assert deleted(written(versions, hi=6, retire=True)) == set()

    def test_a_row_with_fewer_events_stands_for_nothing(self) -> None:
        versions = Versions([row(b"a", 1, 9), meta(1, 9)], epoch=2)
        written(versions, (b"a", OPEN, 6, b""), hi=6)
        for _ in range(3):
            assert deleted(written(versions, hi=6, retire=True)) == set()

    def test_a_row_with_as_many_events_does(self) -> None:
        versions = Versions([row(b"a", 1, 6), meta(1, 9)], epoch=2)
        written(versions, (b"a", OPEN, 6, b""), hi=8)
        found: set[bytes] = set()
        for _ in range(3):
            found |= deleted(written(versions, hi=8, retire=True))
        assert stored_key(b"a", 1) in found

    def test_its_own_rows_are_never_deleted(self) -> None:
        versions = self.versions()
        written(versions, (b"a", OPEN, 6, b""), hi=6, retire=True)
        written(versions, hi=6, retire=True)
        written(versions, hi=6, retire=True)
        for hi in (7, 8, 9):
            assert deleted(written(versions, (b"a", OPEN, hi, b""), hi=hi, retire=True)) == set()

    def test_what_is_not_durable_stands_for_nothing(self) -> None:
        versions = self.versions()
        versions.snapshot([(b"a", OPEN, 6, b"")], (6, b""), retire=False)
        assert deleted(versions.snapshot([], (6, b""), retire=True)) == set()


def test_a_topic_is_the_same_while_its_id_is_or_is_not_known() -> None:
    assert [same_topic_id("t", *ids) for ids in ((None, "b"), ("a", None), ("a", "a"), (None, None))] == ["b", "a", "a", None]


def test_keys() -> None:
    assert row_key("pane", "m", 3) == b"pane|m|3"
    assert stored_key(b"k", 258) == b"k\x00\x00\x01\x02"
