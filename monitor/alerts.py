"""The wire form of an alert: CloudEvents 1.0 in JSON, with an id that a repeated record shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import orjson

from monitor.distances.psi import contributions
from monitor.findings import Compared, Evidence, Finding
from monitor.incidents import Transition
from monitor.layout import OTHER, NumberFeature

MAX_REASONS = 5


def iso(time_ms: int) -> str:
    """Return an RFC 3339 time in UTC, milliseconds only where there are any.

    >>> iso(1735689600000), iso(-1)
    ('2025-01-01T00:00:00Z', '1969-12-31T23:59:59.999Z')
    """
    seconds, rest = divmod(time_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


def alert_id(evidence: Evidence, finding: Finding, status: str) -> str:
    """Return the sha256 of what the alert is about; the same window and cause give the same id."""
    closed, measurement = evidence.closed, finding.measurement
    about = (
        closed.model, closed.version, closed.segment, closed.window.start_ms, closed.window.size_ms,
        closed.window.step_ms, measurement.check, measurement.feature, closed.revision, status,
    )  # fmt: skip
    return hashlib.sha256("|".join(map(str, about)).encode()).hexdigest()


def alert_record(evidence: Evidence, transition: Transition, policy_sha256: str) -> tuple[bytes, bytes]:
    """Return (key, value) of an alert; the key keeps firing and resolved of one incident in order."""
    closed, finding = evidence.closed, transition.finding
    measurement, window = finding.measurement, closed.window
    identity = (closed.model, closed.version, closed.segment, measurement.check, measurement.feature)
    reference = closed.reference
    data: dict[str, Any] = {
        "status": transition.status,
        "severity": finding.severity,
        "model": closed.model,
        "version": closed.version,
        "segment": closed.segment,
        "check": measurement.check,
        "feature": measurement.feature or None,
        "value": measurement.value,
        "threshold": finding.threshold,
        "critical_value": measurement.critical_value,
        "p_value": measurement.p_value,
        "n": measurement.n,
        "n_ref": measurement.n_ref,
        "window": {
            "start": iso(window.start_ms),
            "end": iso(window.end_ms),
            "start_ms": window.start_ms,
            "end_ms": window.end_ms,
            "kind": window.spec.kind,
            "revision": closed.revision,
        },
        "reference": {
            "id": f"{reference.model}-{reference.version}" if reference else None,
            "sha256": reference.sha256 if reference else None,
        },
        "why": _why(evidence, finding),
        "evidence": dict(measurement.evidence),
        "incident_id": transition.incident_id,
        "windows": transition.windows,
        "policy": policy_sha256,
        "source_offsets": closed.source_offsets,
    }
    event = {
        "specversion": "1.0",
        "type": f"ml.monitor.alert.{transition.status}.v1",
        "source": f"/monitor/{closed.model}/{closed.version}",
        "id": alert_id(evidence, finding, transition.status),
        "time": iso(window.end_ms),
        "subject": f"feature/{measurement.feature}" if measurement.feature else "model",
        "datacontenttype": "application/json",
        "data": data,
    }
    return "|".join(identity).encode(), orjson.dumps(event, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def _why(evidence: Evidence, finding: Finding) -> list[dict[str, Any]]:
    """Return the cells that contribute most to a drift, most first."""
    compared = evidence.features.get(finding.measurement.feature)
    if compared is None or not finding.measurement.check.startswith("drift.") or not compared.window.n:
        return []
    reference, window = compared.cells
    parts = contributions(reference, window)
    names = cell_names(compared)
    top = sorted(range(len(parts)), key=lambda i: (-parts[i], i))[:MAX_REASONS]
    return [
        {
            "bin": names[i],
            "ref": float(reference[i] / reference.sum()),
            "cur": float(window[i] / window.sum()),
            "contribution": float(parts[i]),
        }
        for i in top
        if parts[i] > 0
    ]


def cell_names(compared: Compared) -> Sequence[str]:
    """Return a name per cell that distances are computed on: intervals, values, `other`, `never seen`."""
    feature, k = compared.feature, len(compared.cells[0])
    if isinstance(feature, NumberFeature):
        edges = ["-inf", *(f"{edge:g}" for edge in feature.reported), "inf"]
        return [f"({low}, {high}]" for low, high in pairwise(edges[:-1])] + [f"({edges[-2]}, inf)"]
    names = [*feature.values, OTHER][: min(k, len(feature.values) + 1)]
    return names + ["never seen"] * (k - len(names))
