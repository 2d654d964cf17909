"""Entries are stored the same whether they come as columns or one by one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from monitor.stages.join.memory_pending import MemoryPending
from monitor.stages.join.outcome_clock import OutcomeClock
from monitor.stages.join.pending import Entries, Entry, Label, Made, packed

EDGES = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1)
"""Integers around which msgpack writes another length."""


def made(predicted: np.ndarray, times: int, scores: int, segments: int) -> Made:
    n, draw = len(EDGES), np.random.default_rng(4)
    return Made(
        np.array(EDGES),
        np.full(n, times),
        predicted,
        draw.random((n, scores)),
        draw.integers(0, 9, (n, segments)).astype("<u2"),
    )


@pytest.mark.parametrize("predicted", [np.arange(-2, 9, dtype="<i4"), np.linspace(-1.0, 1e300, 11), np.arange(120, 131)])
@pytest.mark.parametrize("times", [5, 1_700_000_000_000])
@pytest.mark.parametrize(("scores", "segments"), [(0, 0), (1, 3), (40, 2), (3, 130)])
def test_columns_are_packed_as_rows_are(predicted: np.ndarray, times: int, scores: int, segments: int) -> None:
    rows = made(predicted, times, scores, segments)
    for kind, place in ((0, 0), (200, 70_000)):
        one_by_one = [rows.entry(i, kind, place) for i in range(len(EDGES))]
        assert packed(rows, kind, place) == [msgspec.msgpack.encode(entry) for entry in one_by_one]
    assert [entry.predicted for entry in one_by_one] == predicted.tolist()
    assert [entry.offset for entry in one_by_one] == list(EDGES)


def test_no_rows_are_no_entries() -> None:
    nothing = np.zeros(0, np.int64)
    assert packed(Made(nothing, nothing, nothing, np.zeros((0, 1)), np.zeros((0, 0), "<u2")), 0, 0) == []


def test_a_first_label_is_stored_as_any_other() -> None:
    store = MemoryPending()
    entries, label = Entries(store, "m", 0), Label(1_700_000_000_500, 1, 9, "repaid")
    entry = Entry(0, 1_700_000_000_000, 0, 3, 1, b"\x90" * 8)
    entries.load([b"a", b"b"])
    entries.put(b"a", entry)
    entries.put_first_label(b"a", label)
    entries.put(b"b", msgspec.structs.replace(entry, labels=(label,)))
    assert entries.get(b"a") == entries.get(b"b")
    entries.write(0, OutcomeClock())
    first, second = store.get_many([b"a", b"b"])
    assert first == second is not None
