"""One YAML file, `MONITOR_A__B` environment variables over it → `Config`. Precedence: defaults < file < environment.

All problems are reported at once, each with its line, its path and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from monitor.config.settings import Config
from monitor.config.values import near_miss
from monitor.errors import ConfigError
from monitor.events import NAME_PATTERN

ENV_PREFIX = "MONITOR_"


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file and the environment. Raises ConfigError with every problem."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file; `monitor init` writes one")
    document, content = read_yaml(path, example="`app: monitor`")
    merged = _over(content, os.environ if environ is None else environ)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(list(problems(path, document, error, Config))) from error


class _TextTimes(RoundTripConstructor):
    """Leaves times as they are written: YAML's own would lose their offset."""


_TextTimes.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_yaml_str)


def read_yaml(path: Path, *, example: str, times_as_text: bool = False) -> tuple[Any, dict[str, Any]]:
    """Return a file's mapping with its lines, and without. Raises ConfigError."""
    reader = YAML(typ="rt")
    if times_as_text:
        reader.Constructor = _TextTimes
    try:
        document = reader.load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{path}:{line}: not YAML: {(error.problem or str(error)).splitlines()[0]}") from error
    except (OSError, UnicodeDecodeError, ReaderError) as error:
        raise ConfigError(f"{path}:1: cannot be read: {' '.join(str(error).split())}") from error
    document = CommentedMap() if document is None else document
    if not isinstance(document, dict):
        raise ConfigError(f"{path}:1: a mapping is expected, such as {example}")
    return document, _plain(document)


def _plain(node: Any) -> Any:
    if isinstance(node, CommentedMap | dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq | list):
        return [_plain(value) for value in node]
    return node


def _over(document: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Put `MONITOR_A__B=value` over document["a"]["b"]; values are YAML."""
    reader = YAML(typ="safe")
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name == f"{ENV_PREFIX}REQUIRE_BROKER":
            continue
        *parents, last = name.removeprefix(ENV_PREFIX).lower().split("__")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = reader.load(environ[name])
    return document


def problems(path: Path, document: Any, error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """Yield a sentence per problem: file, line, path in it, and what is allowed."""
    for item in error.errors():
        location = [part for part in item["loc"] if part != "[key]"]
        where = f"{path}:{line_of(document, location)}"
        dotted = ".".join(str(part) for part in location)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            allowed = _allowed(root, location[:-1])
            message = f"unknown key{near_miss(str(location[-1]), allowed)}; allowed: {', '.join(allowed)}"
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "literal_error":
            message = f"must be {item['ctx']['expected']}"
        elif item["type"] == "tuple_type":
            message = "a list is expected"
        elif item["type"] in ("model_type", "dict_type"):
            message = "a mapping is expected"
        elif item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] == NAME_PATTERN:
            message = "1 to 128 letters, digits or . _ : / - are allowed"
        for line in message.split("\n"):
            yield f"{where}: {dotted}: {line}" if dotted else f"{where}: {line}"


def line_of(document: Any, location: list[Any]) -> int:
    """Return the line of a path, or of the nearest parent that the file has."""
    line = 1
    node = document
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0] + 1
        else:
            break
        node = node[part]
    return line


def _allowed(root: type[BaseModel], location: list[Any]) -> list[str]:
    """Return the keys that a place of the tree has."""
    node: Any = root
    for part in location:
        if isinstance(part, int) or not (isinstance(node, type) and issubclass(node, BaseModel)):
            continue
        by_alias = {f.alias or name: f for name, f in node.model_fields.items()} | dict(node.model_fields)
        node = _node_type(by_alias[str(part)].annotation) if str(part) in by_alias else node
    if isinstance(node, type) and issubclass(node, BaseModel):
        return [f.alias or name for name, f in node.model_fields.items()]
    return []


def _node_type(annotation: Any) -> Any:
    """Return the node class inside tuple[X, ...], dict[str, X] or X | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _node_type(a)) is not None), None)
