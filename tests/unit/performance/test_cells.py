"""Outcome cells: addition is exact, in any order and any split, and there and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.errors import UnknownCodec
from monitor.performance import OutcomeCells, PerformanceSpec, Rows
from monitor.performance.logarithm import log
from tests.unit.performance.made import reference_of

N = 3_000


class Made:
    """A specification and rows with labels, in three segments besides all rows."""

    def __init__(self, folder: Path, task: str) -> None:
        draw = np.random.default_rng(11)
        place = np.array(["a", "b", "c"])[draw.integers(0, 3, N)]
        if task == "regression":
            label = draw.lognormal(3, 1, N)
            prediction: Any = label * draw.lognormal(0, 0.2, N)
            scores = None
            label[:3], prediction[3] = (1e300, -1e-300, 0.0), 1e250
        elif task == "binary":
            scores = draw.beta(2, 3, N)
            label, prediction = (draw.random(N) < scores).astype(int), (scores > 0.5).astype(int)
        else:
            scores = draw.dirichlet([1, 2, 3, 1], N)
            label = (draw.random(N)[:, None] > np.cumsum(scores, axis=1)).sum(axis=1).clip(0, 3)
            prediction = scores.argmax(axis=1)
        inner = slice(4, None)  # what lies far away is not the reference's
        made = reference_of(
            folder, label[inner], prediction[inner], None if scores is None else scores[inner], segment=place[inner].tolist()
        )
        self.spec = PerformanceSpec.of(made)
        self.labels, self.predicted = self.spec.outcomes(label.tolist()), self.spec.outcomes(prediction.tolist())
        self.scores = np.zeros((N, 0)) if scores is None else scores.reshape(N, -1)
        if scores is not None:
            self.scores[::50] = np.nan
        self.segment = np.array([self.spec.segments.index(f"place={one}") for one in place])
        self.lag = draw.integers(-1_000, 10**9, N)

    def rows(self, at: np.ndarray) -> Rows:
        n = len(at)
        where = np.concatenate((np.zeros(n, np.int64), self.segment[at]))
        return Rows(self.predicted[at], self.scores[at], (np.tile(np.arange(n), 2), where))

    def add(self, cells: OutcomeCells, at: np.ndarray, sign: int = 1) -> None:
        cells.add_made(self.rows(at), sign)
        known = at[at % 3 != 0]
        cells.add_labelled(self.rows(known), self.labels[known], self.lag[known], sign)


@pytest.fixture(params=["binary", "multiclass", "regression"], scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("cells"), request.param)


def whole(made: Made) -> OutcomeCells:
    cells = OutcomeCells(made.spec)
    made.add(cells, np.arange(N))
    return cells


@pytest.mark.parametrize("seed", range(3))
def test_any_split_and_order_gives_the_same_bytes(made: Made, seed: int) -> None:
    draw = np.random.default_rng(seed)
    order = draw.permutation(N)
    parts = [OutcomeCells(made.spec) for _ in range(3)]
    for at in np.split(order, np.sort(draw.choice(np.arange(1, N), 40, replace=False))):
        made.add(parts[int(draw.integers(0, 3))], at)
    merged = OutcomeCells(made.spec)
    for part in draw.permutation(3).tolist():
        merged.add(OutcomeCells.from_bytes(made.spec, parts[part].to_bytes()))
    assert merged.to_bytes() == whole(made).to_bytes()


def test_rows_one_by_one_are_the_batch(made: Made) -> None:
    cells, batch = OutcomeCells(made.spec), OutcomeCells(made.spec)
    for row in range(120):
        made.add(cells, np.array([row]))
    made.add(batch, np.arange(120))
    assert cells.to_bytes() == batch.to_bytes()


def test_what_is_taken_back_is_gone(made: Made) -> None:
    cells = whole(made)
    made.add(cells, np.arange(1, N), sign=-1)
    one = OutcomeCells(made.spec)
    made.add(one, np.arange(1))
    assert cells.to_bytes() == one.to_bytes()
    assert not cells.is_zero
    made.add(cells, np.arange(1), sign=-1)
    assert cells.is_zero
    assert cells.to_bytes() == OutcomeCells(made.spec).to_bytes()
    assert cells.segments() == []


def test_a_difference_may_be_negative(made: Made) -> None:
    difference = OutcomeCells(made.spec)
    made.add(difference, np.arange(50), sign=-1)
    read = OutcomeCells.from_bytes(made.spec, difference.to_bytes())
    assert (read.n_made(), read.to_bytes()) == (-50, difference.to_bytes())
    cells = whole(made)
    cells.add(read)
    rest = OutcomeCells(made.spec)
    made.add(rest, np.arange(50, N))
    assert cells.to_bytes() == rest.to_bytes()


def test_chunks_add_up(made: Made) -> None:
    cells = whole(made)
    size = len(cells.to_bytes()) // 3
    chunks = cells.chunks(size)
    assert len(chunks) > 2
    assert max(map(len, chunks[1:])) < 1.5 * size  # the first one has the wide sums
    total = OutcomeCells(made.spec)
    for chunk in reversed(chunks):
        total.add(OutcomeCells.from_bytes(made.spec, chunk))
    assert total.to_bytes() == cells.to_bytes()
    assert cells.chunks(1 << 20) == [cells.to_bytes()]


def test_few_rows_take_few_bytes(made: Made) -> None:
    cells = OutcomeCells(made.spec)
    at = np.arange(61, 71)
    rows = made.rows(at)._replace(segments=(np.arange(10), np.zeros(10, np.int64)))
    cells.add_made(rows)
    cells.add_labelled(rows, made.labels[at], made.lag[at])
    assert len(cells.to_bytes()) <= {"binary": 260, "multiclass": 1_000, "regression": 420}[made.spec.task]


def test_no_rows_are_nothing(made: Made) -> None:
    cells = OutcomeCells(made.spec)
    made.add(cells, np.zeros(0, np.int64))
    assert cells.is_zero
    assert OutcomeCells.from_bytes(made.spec, cells.to_bytes()).is_zero


def test_foreign_bytes_are_refused(made: Made) -> None:
    data = whole(made).to_bytes()
    for bad in (b"", b"\x09" + data[1:]):
        with pytest.raises(UnknownCodec):
            OutcomeCells.from_bytes(made.spec, bad)
    small = OutcomeCells(made.spec)
    made.add(small, np.arange(2))
    cut = small.to_bytes()
    for length in range(2, len(cut)):
        with pytest.raises((ValueError, IndexError)):
            OutcomeCells.from_bytes(made.spec, cut[:length])


def test_references_do_not_mix(made: Made) -> None:
    other = PerformanceSpec("unknown", reference="another")
    with pytest.raises(ValueError, match="do not add up"):
        whole(made).add(OutcomeCells(other))


def test_the_logarithm_is_the_logarithm() -> None:
    draw = np.random.default_rng(5)
    values = np.concatenate((draw.random(20_000), 10.0 ** draw.uniform(-300, 300, 20_000), [1.0, 0.5, 1e-7, 1 - 1e-7]))
    expected = np.array([math.log(one) for one in values.tolist()])
    assert np.abs(log(values) - expected).max() <= 4e-16 * np.maximum(1.0, np.abs(expected)).max()
    assert (np.abs(log(values) - expected) / np.maximum(1.0, np.abs(expected))).max() < 4e-16
    assert [float(log(np.array([one]))[0]) for one in values[:50].tolist()] == log(values)[:50].tolist()
