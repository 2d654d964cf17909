"""How a model is observed: windows, features, segments, labels, learning; and what holds where nothing is said."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from monitor.config.values import UNITS_MS, Duration, Name, Node, duration_ms, one_of
from monitor.errors import InputError
from monitor.features import AskedKind
from monitor.segments import FALSE, OTHER, TRUE, Key, parse_key
from monitor.windows import EARLY_ABOVE_MS, WindowSpec, duration_text, pane_size_ms

MAX_PANES_PER_WINDOW = 10_000


def trail_ms(text: str) -> tuple[int, int] | None:
    """Return (span, every), milliseconds, of the earlier traffic that windows are compared with; None for the reference's own counts.

    >>> trail_ms("trailing(7d)"), trail_ms("hour_of_week(4)"), trail_ms("own")
    ((604800000, 0), (2419200000, 604800000), None)
    """
    if text == "own":
        return None
    if found := re.fullmatch(r"trailing\((.+)\)", text):
        return duration_ms(found[1]), 0
    if found := re.fullmatch(r"hour_of_week\(([1-9]\d?)\)", text):
        return int(found[1]) * 7 * UNITS_MS["d"], 7 * UNITS_MS["d"]
    raise ValueError(f"{text!r} is not known; allowed: own, trailing(7d) or of another span, hour_of_week(4) or of other weeks")


def _trail(text: str) -> str:
    trail_ms(text)
    return text


class WindowConfig(Node):
    """Tumbling without a step, hopping with one. Aligned to the epoch: 7-day windows begin on Thursdays."""

    size: Duration = Field(description="length")
    step: Duration | None = Field(None, description="distance from one to the next; the size if left out")

    @model_validator(mode="after")
    def _valid(self) -> WindowConfig:
        step = self.size if self.step is None else self.step
        if self.size <= 0 or step <= 0:
            raise ValueError("size and step must be longer than 0")
        if self.size % step:
            raise ValueError("step must divide size")
        return self

    @property
    def spec(self) -> WindowSpec:
        """The window specification."""
        return WindowSpec(self.size, self.size if self.step is None else self.step)


_KINDS = (
    "number: integer or real, as its values are",
    "integer: a fractional value is counted as never seen",
    "real",
    "boolean: true and false",
    "category: a dictionary of values",
    "identifier: nearly every value is new; its length",
    "text: length, alphabet, share of words that the reference does not know",
    "timestamp: age when the event happened",
    "list: length",
)


class FeatureConfig(Node):
    """What is known of a feature, over what is inferred."""

    kind: AskedKind | None = Field(None, description="; ".join(_KINDS))
    max_categories: int = Field(200, ge=2, le=10_000, description="size of the dictionary")
    keep_values: bool = Field(
        False, description="name new values in results and alerts, not only their hashes; from `reference build`, or learning, on"
    )
    max_missing_ratio: float | None = Field(None, ge=0, le=1, description="the share of missing values that is still normal")
    minimum: float | None = Field(
        None, description="of a number: the range begins here, or at the smallest value of the reference"
    )
    maximum: float | None = Field(None, description="of a number: the range ends here, or at the largest value of the reference")
    unit: Literal["s", "ms", "us", "ns"] | None = Field(None, description="of a timestamp's numbers: s, ms, us or ns")
    pii: Literal["none", "drop", "hash"] = Field(
        "none",
        description="drop: leave the feature out of everything; hash: keep a hash in place of each value of the dictionary",
    )

    @model_validator(mode="after")
    def _fits(self) -> FeatureConfig:
        is_number = self.kind in (None, "number", "integer", "real")
        if not is_number and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"minimum and maximum are of numbers, and the kind is {self.kind}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum must not be above maximum")
        if self.unit is not None and self.kind != "timestamp":
            raise ValueError("unit is of a timestamp's numbers; add kind: timestamp")
        if self.pii == "hash" and self.kind not in (None, "category", "identifier", "text"):
            raise ValueError(f"pii: hash is for texts and categories, and the kind is {self.kind}; pii: drop leaves it out")
        if self.pii != "none" and self.keep_values:
            raise ValueError(f"keep_values names values that pii: {self.pii} is to hide")
        return self


class SegmentConfig(Node):
    """Rows split by a feature, a tag, a comparison, or a cross of several."""

    by: tuple[str, ...] = Field(min_length=1, max_length=4, description="keys: a feature, tags.NAME, or a comparison: age >= 60")
    values: tuple[tuple[str, ...], ...] | None = Field(
        None,
        description="segments with rows of their own, one value per key each; left out: the most frequent of the reference's data",
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """Take `country`, and [country, channel] for a cross."""
        if isinstance(given, str | list | tuple):
            given = {"by": given}
        if not isinstance(given, dict):
            return given
        values = given.get("values")
        if isinstance(values, list | tuple):
            values = [[value] if isinstance(value, str) else value for value in values]
        by = given.get("by")
        return given | {"by": [by] if isinstance(by, str) else by} | ({"values": values} if values is not None else {})

    @model_validator(mode="after")
    def _valid(self) -> SegmentConfig:
        try:
            keys = [parse_key(text) for text in self.by]
        except InputError as error:
            raise ValueError(str(error)) from None
        for values in self.values or ():
            if len(values) != len(keys):
                raise ValueError(f"values: {list(values)} has {len(values)} values for {len(keys)} keys")
            if OTHER in values:
                raise ValueError(f"values: {OTHER} is the segment of all that is not listed")
            for key, value in zip(keys, values, strict=True):
                if key.op and value not in (TRUE, FALSE):
                    raise ValueError(f"values: {value!r}: {key} is {TRUE} or {FALSE}")
        if len(set(self.values or ())) < len(self.values or ()):
            raise ValueError("values: one is listed twice")
        return self

    @property
    def keys(self) -> tuple[Key, ...]:
        """What rows are split by."""
        return tuple(parse_key(text) for text in self.by)


class LearningConfig(Node):
    """How a reference is learnt from live traffic, for a model version that has none. It is provisional: any other replaces it."""

    enabled: bool = Field(True, description="false: rows of a model without a reference are counted, nothing else")
    rows: int = Field(5_000, ge=1, description="at least so many rows …")
    windows: int = Field(24, ge=1, description="… of at least so many windows, the shortest ones, those under alarm left out")
    texts: bool = Field(True, description="false: values of categories are kept as hashes only")


class LabelsConfig(Node):
    """How labels of a model's predictions are waited for, where there is a source of them."""

    retention: Duration = Field(
        30 * UNITS_MS["d"], description="so long a prediction is kept for its label, and a label for its prediction"
    )
    report_at: tuple[Duration, ...] = Field(
        (0, UNITS_MS["d"], 7 * UNITS_MS["d"], 30 * UNITS_MS["d"]),
        min_length=1,
        description="when a window's performance is published, after its end: always at the first, later where labels have come since",
    )
    min_labels: int = Field(30, ge=1, description="rules judge a report that has at least so many labels")
    min_coverage: float = Field(0.0, ge=0, le=1, description="and labels of at least this share of its predictions")

    @model_validator(mode="after")
    def _valid(self) -> LabelsConfig:
        if self.retention <= 0:
            raise ValueError("retention must be longer than 0")
        if list(self.report_at) != sorted(set(self.report_at)):
            raise ValueError("report_at must rise")
        return self


class ModelConfig(Node):
    """How a model is observed."""

    windows: tuple[WindowConfig, ...] = Field((WindowConfig(size="1h"),), min_length=1, description="windows")
    grace: Duration = Field(120_000, description="how much disorder is waited for before a window closes")
    idle_after: Duration = Field(120_000, description="silence after which a partition no longer holds windows back")
    late: Annotated[str, one_of("drop", "revise")] = Field(
        "drop", description="late events: drop, they are only counted; revise, their windows are published anew with them"
    )
    revise_for: Duration = Field(
        86_400_000, description="with revise: how long after the end of its pane an event may come; later ones are dropped"
    )
    revise_every: Duration | None = Field(
        None, description="with revise: late events are gathered for so long, a multiple of the pane, which it is if left out"
    )
    early: bool = Field(
        True,
        description="windows longer than 1h are looked at about 48 times while they are open, and severe breaks told then; panes are short enough "
        "for the shortest of those that close most often",
    )
    pane: Duration | None = Field(
        None,
        description="length of the pieces that windows are made of, a divisor of all sizes and steps; given to keep that of earlier windows, "
        "and with it the state, when windows or `early` are changed",
    )
    deduplicate: bool = Field(
        False, description="an event whose id was counted is a duplicate, for as long as a window could count it a second time"
    )
    features: dict[str, FeatureConfig] = Field({}, description="by name")
    segments: tuple[SegmentConfig, ...] = Field(
        (), description="how rows are split; fixed by the reference that is built with it"
    )
    max_segments: int = Field(50, ge=2, le=1_000, description="rows of a profile, all and (other) among them")
    reference: Annotated[str, AfterValidator(_trail)] = Field(
        "own", description="own: the reference's counts; trailing(7d), hour_of_week(4): those of earlier windows, on its cells"
    )
    labels: LabelsConfig = Field(LabelsConfig(), description="how labels are waited for")
    learning: LearningConfig = Field(LearningConfig(), description="where there is no reference")
    sources: tuple[Name, ...] = Field((), description="topics that the model is bound to; all if empty")

    @model_validator(mode="after")
    def _valid(self) -> ModelConfig:
        specs = [window.spec for window in self.windows]
        if len(set(specs)) < len(specs):
            raise ValueError("two windows are the same")
        if len({s.keys for s in self.segments}) < len(self.segments):
            raise ValueError("segments: two are by the same keys")
        whole = pane_size_ms(specs)
        if self.pane is not None and (self.pane <= 0 or whole % self.pane):
            raise ValueError(
                f"pane: {duration_text(self.pane)} is no divisor of {duration_text(whole)}, which all sizes and steps are made of"
            )
        pane = self.pane_ms
        trail = trail_ms(self.reference)
        if trail is not None and trail[0] > MAX_PANES_PER_WINDOW * pane:
            raise ValueError(f"reference: {self.reference} is longer than {MAX_PANES_PER_WINDOW} panes of {pane} ms")
        if self.late == "revise":
            self._check_revising(pane)
        if max(spec.size_ms for spec in specs) > MAX_PANES_PER_WINDOW * pane:
            raise ValueError(f"sizes and steps have only {pane} ms in common: more than {MAX_PANES_PER_WINDOW} panes a window")
        return self

    def _check_revising(self, pane: int) -> None:
        if self.revise_every is not None and (self.revise_every == 0 or self.revise_every % pane):
            raise ValueError(f"revise_every: it must be a multiple of the pane, {duration_text(pane)}")
        if not 0 < self.revise_for <= MAX_PANES_PER_WINDOW * pane:
            longest = duration_text(MAX_PANES_PER_WINDOW * pane)
            raise ValueError(f"revise_for: it must be longer than 0, and at most {MAX_PANES_PER_WINDOW} panes: {longest}")

    @property
    def early_above_ms(self) -> int | None:
        """Length above which windows are looked at while they are open; None where none are."""
        return EARLY_ABOVE_MS if self.early else None

    @property
    def pane_ms(self) -> int:
        """Length of a pane."""
        return self.pane or pane_size_ms([window.spec for window in self.windows], self.early_above_ms)

    @property
    def content_sha256(self) -> str:
        """Hash of what changes the content of windows' state."""
        specs = sorted(window.spec for window in self.windows)
        pane = [self.pane_ms] if self.pane_ms != pane_size_ms(specs) else []
        return hashlib.sha256(json.dumps([specs, self.grace, *pane]).encode()).hexdigest()[:16]
