"""What configuration is written in: durations, sizes, names, and nodes that refuse unknown keys."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from monitor.events import NAME_PATTERN

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def duration_ms(value: object) -> int:
    """Return milliseconds of a text such as `90s`, `1h30m`, `250ms`, `7d`.

    >>> duration_ms("1h30m")
    5400000
    """
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    text = str(value)
    if not re.fullmatch(r"(\d+(ms|s|m|h|d))+", text):
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m, h or d, such as 5m or 1h30m")
    return sum(int(n) * UNITS_MS[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h|d)", text))


def size_bytes(value: object) -> int:
    """Return bytes of a text such as `512MiB`.

    >>> size_bytes("2KiB")
    2048
    """
    found = re.fullmatch(r"(\d+)(B|KiB|MiB|GiB)", str(value))
    if found is None:
        raise ValueError(f"{value!r} is not a size; write a number with B, KiB, MiB or GiB, such as 512MiB")
    return int(found[1]) * _UNITS_BYTES[found[2]]


def one_of(*allowed: str) -> AfterValidator:
    """Return the check that a text is one of these words."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is not known; allowed: {', '.join(allowed)}{near_miss(value, allowed)}")
        return value

    return AfterValidator(check)


def near_miss(word: str, words: Iterable[str]) -> str:
    """Return a question about the word that was meant, or nothing."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


Duration = Annotated[int, BeforeValidator(duration_ms)]
Size = Annotated[int, BeforeValidator(size_bytes)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Node(BaseModel):
    """A part of the tree: frozen, and every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
