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
from ruamel.yaml.error import MarkedYAMLError

from monitor.config import Config
from monitor.config_values import near_miss
from monitor.errors import ConfigError

ENV_PREFIX = "MONITOR_"


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file and the environment. Raises ConfigError with every problem."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file; `monitor init` writes one")
    try:
        document = YAML(typ="rt").load(path.read_text())
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from error
    document = CommentedMap() if document is None else document
    if not isinstance(document, dict):
        raise ConfigError(f"{path}:1: a mapping is expected, such as `app: monitor`")
    merged = _over(_plain(document), os.environ if environ is None else environ)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(list(_problems(path, document, error))) from error


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


def _problems(path: Path, document: Any, error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        location = [part for part in item["loc"] if part != "[key]"]
        where = f"{path}:{_line(document, location)}"
        dotted = ".".join(str(part) for part in location)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            allowed = _allowed(location[:-1])
            message = f"unknown key{near_miss(str(location[-1]), allowed)}; allowed: {', '.join(allowed)}"
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] == "literal_error":
            message = f"must be {item['ctx']['expected']}"
        for line in message.split("\n"):
            yield f"{where}: {dotted}: {line}" if dotted else f"{where}: {line}"


def _line(document: Any, location: list[Any]) -> int:
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


def _allowed(location: list[Any]) -> list[str]:
    """Return the keys that a place of the tree has."""
    node: Any = Config
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
