"""The wire form of a final window: a summary per feature, its distances, and what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from monitor.checks.health import below_above
from monitor.findings import Compared, Evidence, Finding
from monitor.layout import OTHER, NumberFeature

MAX_CELLS = 32


def result_record(evidence: Evidence, findings: list[Finding]) -> tuple[bytes, bytes]:
    """Return (key, value) of a window's result; no wall-clock time inside."""
    closed = evidence.closed
    window = closed.window
    key = "|".join(map(str, (closed.model, closed.version, closed.segment, window.start_ms, window.size_ms, window.step_ms)))
    record = {
        "model": closed.model,
        "version": closed.version,
        "window": {
            "start_ms": window.start_ms,
            "end_ms": window.end_ms,
            "size_ms": window.size_ms,
            "step_ms": window.step_ms,
        },
        "segment": closed.segment,
        "revision": closed.revision,
        "n": closed.profile.n,
        "reference": closed.reference.sha256 if closed.reference else None,
        "rows_other_layout": closed.rows_other_layout,
        "lost_offsets": closed.lost_offsets,
        "inspected": closed.profile.inspected,
        "unexpected": closed.profile.unexpected,
        "features": {
            name: _feature(compared, evidence.distances.get(name, {}), closed.profile.n)
            for name, compared in evidence.features.items()
        },
        "findings": [_finding(f) for f in findings if f.verdict == "breach"],
        "insufficient": sorted({f.measurement.check for f in findings if f.verdict == "insufficient"}),
        "source_offsets": closed.source_offsets,
    }
    return key.encode(), orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def _feature(compared: Compared, distances: Any, rows: int) -> dict[str, Any]:
    summary = compared.window
    below, above = below_above(compared)
    is_number = isinstance(compared.feature, NumberFeature)
    return {
        "kind": "number" if is_number else "category",
        "n": summary.n,
        "missing": summary.missing,
        "missing_ratio": summary.missing / rows if rows else None,
        "absent": summary.absent,
        "nan": summary.nan,
        "infinite": summary.infinite,
        "wrong_type": summary.wrong_type,
        "never_seen": summary.never_seen,
        "mean": summary.mean,
        "std": summary.std,
        "min": summary.minimum,
        "max": summary.maximum,
        "below_min": below if is_number else None,
        "above_max": above if is_number else None,
        "n_ref": compared.reference.n,
        "cells": _cells(compared),
        "distances": dict(distances),
    }


def _cells(compared: Compared) -> dict[str, Any]:
    """Return at most `MAX_CELLS` cells: the deciles of a number; the most frequent values, `other` and `never seen` of a category."""
    feature, counts = compared.feature, compared.cells[1]
    if isinstance(feature, NumberFeature):
        return {"edges": list(feature.reported), "counts": counts.tolist()}
    shown = min(len(feature.values), MAX_CELLS - 2)
    values = compared.window.values
    rest = int(np.sum(values[shown:]))
    return {
        "values": [*feature.values[:shown], OTHER, "never seen"],
        "counts": [*values[:shown].tolist(), rest, compared.window.never_seen],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    measurement = finding.measurement
    return {
        "check": measurement.check,
        "feature": measurement.feature or None,
        "value": measurement.value,
        "threshold": finding.threshold,
        "critical_value": measurement.critical_value,
        "p_value": measurement.p_value,
        "n": measurement.n,
        "n_ref": measurement.n_ref,
        "severity": finding.severity,
        "evidence": dict(measurement.evidence),
    }
