"""The JSON Schemas in `schemas/`, made from the types: `python -m monitor.cli.schemas [folder]` writes them."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from monitor.acks import Ack
from monitor.alerts import Alert
from monitor.config.policy_file import PolicyFile
from monitor.events import Label, Prediction, Tick
from monitor.reference import ReferenceRecord
from monitor.results.looks import LookResult
from monitor.results.performance import PerformanceResult
from monitor.results.windows import Result

DIALECT = "https://json-schema.org/draft/2020-12/schema"

SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "prediction": Prediction,
    "label": Label,
    "tick": Tick,
    "reference": ReferenceRecord,
    "result": Result,
    "performance": PerformanceResult,
    "look": LookResult,
    "alert": Alert,
    "ack": Ack,
}
"""Name of a wire contract → its type."""


def generate() -> dict[str, str]:
    """Return file name → text of every schema."""
    found = {f"{name}.schema.json": _text(schema(wire)) for name, wire in SCHEMAS.items()}
    return found | {"policy.schema.json": _text({"$schema": DIALECT, **PolicyFile.model_json_schema()})}


def schema(wire: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of one type; the text under a field in its source describes that field."""
    (reference,), components = msgspec.json.schema_components([wire], ref_template="#/$defs/{name}")
    types = {found.__name__: found for found in _structs(wire)}
    for name, component in components.items():
        if name in types:
            _describe(component, types[name])
    root = components.pop(reference["$ref"].removeprefix("#/$defs/"))
    definitions = {"$defs": dict(sorted(components.items()))} if components else {}
    return {"$schema": DIALECT, **root, **definitions}


def _structs(wire: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return a type and all struct types that its fields name."""
    found: list[type[msgspec.Struct]] = []

    def visit(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType):
            if node.cls in found:
                return
            found.append(node.cls)
            for field in node.fields:
                visit(field.type)
        elif isinstance(node, msgspec.inspect.Type):
            for name in ("types", "item_types", "item_type", "key_type", "value_type"):
                inner = getattr(node, name, ())
                for each in inner if isinstance(inner, tuple) else (inner,):
                    visit(each)

    visit(msgspec.inspect.type_info(wire))
    return found


def _describe(component: dict[str, Any], wire: type[msgspec.Struct]) -> None:
    component["description"] = inspect.cleandoc(wire.__doc__ or "")
    names = list(wire.__struct_encode_fields__)
    fields = component["properties"] if "properties" in component else dict(zip(names, component["prefixItems"], strict=True))
    if "properties" not in component:  # an array, whose places have names in the source only
        for name, field in fields.items():
            field["title"] = name
    for name, text in _field_texts(wire).items():
        fields[name]["description"] = text


def _field_texts(wire: type[msgspec.Struct]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(wire))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main(folder: str = "schemas") -> None:
    """Write every schema."""
    Path(folder).mkdir(exist_ok=True)
    for name, text in generate().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
