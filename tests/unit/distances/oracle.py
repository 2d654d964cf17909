"""Every distance again, from raw rows, by scipy and plain numpy; nothing of the monitor is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

Array = np.ndarray[Any, Any]
CELL_DISTANCES = ("psi", "psi_eps", "psi_corrected", "kl", "js", "hellinger", "tv", "linf", "chi2", "chi2_p")


def decile_counts(reference: Array, window: Array) -> tuple[Array, Array]:
    """Return both sides' rows between the reference's deciles (inverted CDF, without duplicates): (−∞, e1], …, (ek, ∞)."""
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf"))
    first, second = (
        np.bincount(np.searchsorted(edges, rows, side="left"), minlength=len(edges) + 1) for rows in (reference, window)
    )
    return first, second


def value_counts(reference: Sequence[str], window: Sequence[str], dictionary: int | None = None) -> tuple[Array, Array]:
    """Return both sides' rows by value: of the union of all, or with the reference's rarer values in one cell."""
    values = sorted(set(reference))
    ranked = sorted(values, key=lambda value: (-list(reference).count(value), value))
    rest = set() if dictionary is None else set(ranked[dictionary:])
    named = [["(rest)" if value in rest else value for value in rows] for rows in (reference, window)]
    union = sorted({*named[0], *named[1]})
    first, second = (np.array([rows.count(value) for value in union]) for rows in named)
    return first, second


def of_cells(reference: Array, window: Array, eps: float = 1e-4) -> dict[str, float]:
    """Return the distances of counts of the same cells."""
    k, m, n = len(reference), reference.sum(), window.sum()
    p, q = reference / m, window / n
    ps, qs = (reference + 0.5) / (m + 0.5 * k), (window + 0.5) / (n + 0.5 * k)
    pe, qe = np.maximum(p, eps), np.maximum(q, eps)
    psi = float(np.sum((qs - ps) * np.log(qs / ps)))
    is_filled = reference + window > 0
    if is_filled.sum() > 1:
        pearson = stats.chi2_contingency(np.stack((reference[is_filled], window[is_filled])), correction=False)
        chi2, dof, chi2_p = float(pearson.statistic), int(pearson.dof), float(pearson.pvalue)
    else:
        chi2, dof, chi2_p = 0.0, 0, 1.0
    return {
        "psi": psi,
        "psi_eps": float(np.sum((qe - pe) * np.log(qe / pe))),
        "psi_corrected": psi - (k - 1) * (1 / n + 1 / m),
        "kl": float(stats.entropy(qs, ps)),
        "js": float(jensenshannon(p, q, base=2)),
        "hellinger": float(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2)),
        "tv": float(np.abs(p - q).sum() / 2),
        "linf": float(np.abs(p - q).max()),
        "chi2": chi2,
        "chi2_dof": dof,
        "chi2_p": chi2_p,
    }


def of_rows(reference: Array, window: Array) -> dict[str, float]:
    """Return the distances of raw rows."""
    w1 = float(stats.wasserstein_distance(reference, window))
    return {
        "ks": float(stats.ks_2samp(reference, window).statistic),
        "w1": w1,
        "w1_sigma": w1 / float(np.std(reference) or math.nan),
    }
