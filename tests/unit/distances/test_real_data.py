"""Every number of a feature against an independent computation from the raw rows of data sets that scikit-learn ships."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from sklearn import datasets

from monitor.findings import Evidence, gather
from tests.closed_windows import MISSING, closed, reference_of
from tests.unit.distances import oracle
from tests.unit.distances.comparing import check_cells, check_rows
from tests.unit.distances.oracle import Array

SETS = {
    "breast cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}
CONTINUOUS = ("breast cancer", "wine", "diabetes")
"""Measured values; digits are 17 shades of grey."""
SPLITS: dict[str, Callable[[int], tuple[slice, slice]]] = {
    "first and second half": lambda n: (slice(n // 2), slice(n // 2, n)),
    "every other row": lambda n: (slice(0, n, 2), slice(1, n, 2)),
    "thirds": lambda n: (slice(2 * n // 3), slice(2 * n // 3, n)),
    "one row": lambda n: (slice(n - 1), slice(n - 1, n)),
}


@cache
def split(name: str, how: str) -> tuple[Array, Array, Evidence]:
    """Return reference rows, window rows and what the monitor says of all their columns."""
    rows = SETS[name]().data
    before, after = (rows[part] for part in SPLITS[how](len(rows)))
    names = [f"{j:02d}" for j in range(rows.shape[1])]
    columns = [dict(zip(names, part.T.tolist(), strict=True)) for part in (before, after)]
    return before, after, gather(closed(reference_of(columns[0]), columns[1]))


@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize("name", SETS)
def test_distances_of_cells_are_right_to_1e_9(name: str, how: str) -> None:
    before, after, evidence = split(name, how)
    assert len(evidence.features) == before.shape[1]
    for j, (feature, compared) in enumerate(evidence.features.items()):
        p, q = oracle.decile_counts(before[:, j], after[:, j])
        assert [side.tolist() for side in compared.cells] == [p.tolist(), q.tolist()]
        check_cells(evidence.distances[feature], p, q)


@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize("name", SETS)
def test_ks_and_w1_are_within_their_stated_errors(name: str, how: str) -> None:
    before, after, evidence = split(name, how)
    for j, feature in enumerate(evidence.features):
        check_rows(evidence, before[:, j], after[:, j], ks_error=0.01 if name in CONTINUOUS else None, name=feature)


@pytest.mark.parametrize("name", SETS)
def test_counts_and_extremes_are_exact(name: str) -> None:
    before, after, evidence = split(name, "first and second half")
    for j, compared in enumerate(evidence.features.values()):
        first, second = before[:, j], after[:, j]
        window = compared.window
        assert (window.n, window.missing, window.nan, window.infinite) == (len(second), 0, 0, 0)
        assert (window.minimum, window.maximum) == (second.min(), second.max())
        assert compared.below_min == (second < first.min()).sum()
        assert compared.above_max == (second > first.max()).sum()
        assert window.mean == pytest.approx(second.mean(), rel=1e-9, abs=1e-11 * (first.std() or 1))
        assert window.std == pytest.approx(second.std(), rel=1e-9, abs=1e-11 * (first.std() or 1))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_missing_rows_are_counted_and_change_no_distance(name: str) -> None:
    _, after, evidence = split(name, "every other row")
    columns = {f"{j:02d}": [*after[:, j].tolist(), *[MISSING] * 17] for j in range(after.shape[1])}
    reference = evidence.closed.reference
    with_gaps = gather(closed(reference, columns))
    assert with_gaps.distances == evidence.distances
    assert {compared.window.missing for compared in with_gaps.features.values()} == {17}


@pytest.mark.parametrize("dictionary", [3, 5, 200])
def test_classes_and_coarse_values_as_categories_with_unseen_ones(dictionary: int) -> None:
    wine = datasets.load_wine()
    texts = [f"{kind}-{np.floor(row[0])}" for kind, row in zip(wine.target, wine.data, strict=True)]
    before, after = texts[:120], texts[90:]
    evidence = gather(closed(reference_of({"c": before}, max_categories=dictionary), {"c": after}))
    assert evidence.features["c"].window.never_seen == sum(value not in before for value in after) > 0
    check_cells(evidence.distances["c"], *oracle.value_counts(before, after, dictionary))
