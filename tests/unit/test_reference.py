"""The record of a reference: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cramjam
import numpy as np
import pytest

from monitor.errors import InputError
from monitor.reference import Reference
from tests.unit.test_replay_windows import reference

FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "reference_format_1.json"


def test_a_file_of_format_1_reads_as_ever_and_keeps_its_bytes() -> None:
    data = FORMAT_1.read_bytes()
    made = Reference.from_bytes(data)
    assert made.sha256 == "ecaa9e41776ad65b060328db214dfcec06d7211be7dece6d4c9d39b54c872225"
    assert (made.model, made.version, made.record.rows, made.effective_from_ms) == ("credit", "7", 2_000, 1_735_689_600_000)
    income = made.profile.summary("income")
    assert (income.n, income.missing) == (1_804, 196)
    assert made.profile.summary("town").values.tolist()[-1] == 485
    assert sum(made.record.labels.values()) == 2_000
    assert made.calibration.unknown == made.performance.unknown == "a reference of format 1"
    assert made.to_bytes() == data
    assert Reference.from_bytes(made.effective_from(5).to_packed()).sha256 == made.sha256


def test_packed_and_unpacked_records_are_the_same_reference() -> None:
    made = reference(np.arange(50.0), ["a"] * 50).effective_from(7)
    packed = made.to_packed()
    assert len(packed) < len(made.to_bytes())
    assert json.loads(bytes(cramjam.zstd.decompress(packed))) == json.loads(made.to_bytes())
    for data in (packed, made.to_bytes()):
        again = Reference.from_bytes(data)
        assert (again.sha256, again.effective_from_ms, again.to_bytes()) == (made.sha256, 7, made.to_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-9], "not a reference file"),
        (lambda data: data[:6] + b"\xff" * 20, "not a reference file"),
        (lambda data: bytes(cramjam.zstd.compress(b"[]")), "not a reference file"),
        (lambda data: bytes(cramjam.zstd.decompress(data)).replace(b'"format":2', b'"format":3'), "format 3 is not known; this program reads 1 and 2"),
        (lambda data: bytes(cramjam.zstd.decompress(data)).replace(b'"unknown":"not made', b'"unknown":"made'), "build it again"),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused_in_a_sentence(change: object, message: str) -> None:
    packed = reference(np.arange(50.0), ["a"] * 50).to_packed()
    with pytest.raises(InputError, match=message):
        Reference.from_bytes(change(packed))  # type: ignore[operator]
