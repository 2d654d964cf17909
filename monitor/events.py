"""What producers send: predictions, labels, ticks; and why a record was refused."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec

NAME_PATTERN = r"^[A-Za-z0-9_.:/-]{1,128}$"
"""Model names, versions and topics: they become keys, labels and file names."""

_NAME = re.compile(NAME_PATTERN).fullmatch  # `$` alone would let a newline pass at the end

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]

DEFAULT_VERSION = "1"
"""The version of an event that names none."""

FeatureValue = float | int | str | bool | list[Any] | None
Outcome = str | int | float | bool


def is_name(text: str) -> bool:
    """Whether `text` may name a model or a version.

    >>> is_name("credit"), is_name("a|b"), is_name(""), is_name("a" + chr(10))
    (True, False, False, False)
    """
    return _NAME(text) is not None


class Prediction(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """One inference, as a producer logs it. Only `model`, `time` and `features` are required."""

    model: Name
    """Model name; letters, digits and `_.:/-`, at most 128."""
    time: int
    """Event time; epoch milliseconds unless the source declares another unit."""
    features: dict[str, FeatureValue]
    """Inputs by name; null is a missing value, and so is a name left out. A timestamp is ISO 8601 or a number. For a number, "NaN",
    "Infinity" and "-Infinity" are what they say."""
    id: str | None = None
    """Prediction id, by which a label finds it later."""
    version: Name = DEFAULT_VERSION
    """Model version."""
    prediction: Outcome | None = None
    """What the model answered: a class, a number or a boolean."""
    score: float | None = None
    """Confidence of the answer, or the score of the positive class."""
    scores: dict[str, float] | None = None
    """Score by class."""
    latency_ms: float | None = None
    """Time that the inference took, milliseconds."""
    status: str | None = None
    """`ok`, or what went wrong."""
    request_id: str | None = None
    """Id of the request; the same for every model that answered it."""
    sample_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Share of traffic that is logged, in (0, 1]."""
    embedding: list[float] | None = None
    """Embedding of the input."""
    tags: dict[str, str] | None = None
    """Metadata for segments."""
    schema: str | None = None
    """Id of the producer's schema."""
    producer: str | None = None
    """Which process sent it."""


class Label(msgspec.Struct, kw_only=True):
    """What really happened to one prediction."""

    id: str
    """The prediction's id."""
    model: Name
    """Model name."""
    label: Outcome
    """The true class or value."""
    time: int
    """When it became known; epoch milliseconds."""


class Tick(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A control record of a source partition: event time has reached `tick`, nothing is counted."""

    tick: int
    """Epoch milliseconds."""


class RejectionReason(StrEnum):
    """Why a record went to the dead-letter topic: a closed list."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_NAME = "invalid_name"
    INVALID_TIME = "invalid_time"
    FUTURE_TIMESTAMP = "future_timestamp"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_LIMIT = "model_limit"


class Rejection(NamedTuple):
    """A record that no window counts. `pointer` names the place ("" = the whole record), never the payload."""

    reason: RejectionReason
    pointer: str = ""
