"""A reference file that an earlier version of this program wrote is still the same reference."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from monitor.features import encode_json
from monitor.layout import Layout
from monitor.reference import Reference, ReferenceRecord

FILE = Path(__file__).parents[1] / "fixtures" / "reference-format-1.json"
"""400 rows: three numbers, two dictionaries (one with values beyond it), a boolean, a class and a score; built before kinds had views."""

LAYOUT_SHA256 = "75659e1e189fe17f122034cef0f1f4cfc93c9f3b5973a299a89f37bbd6231ff4"
SHA256 = "a4e052936bcc80b73c4ccc0897b1e6e5189268d343e7a572b0bd9690f836bc33"


def test_its_identity_and_that_of_its_layout_have_not_changed() -> None:
    made = Reference.from_bytes(FILE.read_bytes())  # refuses content that its sha256 does not fit
    assert made.sha256 == SHA256
    assert made.layout.sha256 == LAYOUT_SHA256


def test_its_features_are_written_as_they_were_read() -> None:
    written = json.loads(FILE.read_bytes())["features"]
    record = msgspec.json.decode(FILE.read_bytes(), type=ReferenceRecord)
    assert json.loads(encode_json(record.features)) == written
    assert Layout(tuple(record.features)).sha256 == LAYOUT_SHA256


@pytest.mark.parametrize(
    ("name", "n", "missing", "mean"),
    [("age", 400, 0, 53.61), ("income", 367, 33, 35237.50168936519), ("country", 400, 0, None), ("@score", 400, 0, 0.4937445)],
)
def test_its_counts_are_read(name: str, n: int, missing: int, mean: float | None) -> None:
    summary = Reference.from_bytes(FILE.read_bytes()).profile.summary(name)
    assert (summary.n, summary.missing) == (n, missing)
    assert summary.mean == (None if mean is None else pytest.approx(mean, rel=1e-12))
