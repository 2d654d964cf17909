"""The files in schemas/ are what the types say, and say what the readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from benchmarks import events
from monitor.cli.schemas import SCHEMAS, generate, main, schema
from monitor.columns import ColumnBatch
from monitor.events import Label, Prediction
from monitor.features import CategoryFeature, NumberFeature
from monitor.formats.native import NativeFormat
from monitor.layout import Layout
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference

FOLDER = Path(__file__).parents[2] / "schemas"

EVENT: dict[str, Any] = {
    "id": "r-1",
    "model": "credit",
    "version": "7",
    "time": 1735689600000,
    "features": {"age": 41, "income": None, "country": "DE", "is_new": True},
    "prediction": "default",
    "score": 0.83,
    "scores": {"default": 0.83, "paid": 0.17},
    "latency_ms": 12.5,
    "status": "ok",
    "request_id": "q-9",
    "sample_rate": 0.25,
    "embedding": [0.5, 1],
    "tags": {"region": "eu"},
    "schema": "s-3",
    "producer": "host-1",
}


def validate(name: str, document: object) -> None:
    wanted = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(wanted)
    jsonschema.Draft202012Validator(wanted).validate(document)


def test_the_files_are_current() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.schema.json") if path.name in generate()}
    assert found == generate(), "run: python -m monitor.cli.schemas"


def test_writing_them_gives_the_same_files(tmp_path: Path) -> None:
    main(str(tmp_path / "schemas"))
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "schemas").iterdir()} == generate()


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_is_a_schema_whose_references_resolve(name: str) -> None:
    found = schema(SCHEMAS[name])
    jsonschema.Draft202012Validator.check_schema(found)
    for part in json.dumps(found).split('"#/$defs/')[1:]:
        assert part.split('"')[0] in found["$defs"]


def test_an_event_with_every_field_is_valid_and_read() -> None:
    assert set(EVENT) == set(Prediction.__struct_fields__)
    validate("prediction", EVENT)
    assert msgspec.convert(EVENT, Prediction).id == "r-1"
    batch = NativeFormat().decode([StoredRecord(0, 0, json.dumps(EVENT).encode())])
    assert batch.keys == [("credit", "7")]
    validate("prediction", json.loads(next(events.events(1, events.Mix()))))


@pytest.mark.parametrize(
    "change", [{"model": "a|b"}, {"model": None}, {"time": "now"}, {"features": []}, {"features": {"a": {}}}]
)
def test_an_event_that_is_refused_or_marked_is_not_valid(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate("prediction", EVENT | change)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(EVENT | change, Prediction)


def test_labels_and_ticks_are_valid() -> None:
    label = {"id": "r-1", "model": "credit", "label": "paid", "time": 1735689600000}
    validate("label", label)
    assert msgspec.convert(label, Label).label == "paid"
    validate("tick", {"tick": 1735689600000})
    with pytest.raises(jsonschema.ValidationError):
        validate("tick", {"tick": 1, "model": "credit"})


def test_a_reference_is_valid() -> None:
    number = NumberFeature(name="age", edges=(1.0, 2.0), reported=(1.0,), minimum=1.0, maximum=2.0, centre=1.5, exponent=-36)
    layout = Layout((number, CategoryFeature(name="country", values=("DE",), other=(1 << 63,))))
    profile = Profile(layout)
    profile.update(ColumnBatch(2, np.array([[1.0, 2.0]]), None, [["DE", None]]))
    validate("reference", json.loads(Reference.build("credit", "7", profile, time_range_ms=(0, 1)).to_bytes()))
