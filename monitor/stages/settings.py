"""What the stages know of the configuration: plain values, no files, no environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from monitor.cells import FeatureOptions
from monitor.errors import StateMismatch
from monitor.performance import Needed
from monitor.windows import WindowSpec, duration_text, early_specs, pane_size_ms

MINUTE_MS = 60_000

REFERENCE_LEAD_MS = MINUTE_MS
"""How far ahead of the events a reference is published: within that time, every worker has read it."""


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How a reference is learnt for a model version that has none.

    min_rows, min_windows: at least so many, windows with rows of the shortest specification. keep_texts: values of categories may
    stand in a reference as they are, not only as hashes. left_out: features of which nothing is kept. hashed: those of which
    no texts are kept. options: by feature.
    """

    min_rows: int = 5_000
    min_windows: int = 24
    keep_texts: bool = True
    left_out: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()
    options: Mapping[str, FeatureOptions] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trail:
    """Earlier traffic that windows are compared with: of the last `span_ms`, with `every_ms` only what lies that far apart."""

    span_ms: int
    every_ms: int = 0


@dataclass(frozen=True, slots=True)
class Revising:
    """Late rows are counted in their windows, which are published anew.

    for_ms: so long after its end a pane takes late rows, on its partition's clock less grace. every_ms: late rows are gathered until that
    clock passes a multiple of it, which is a multiple of the pane.
    """

    for_ms: int
    every_ms: int

    def next_cut_ms(self, watermark_ms: int) -> int:
        """Return when rows that come at a watermark are cut off: the first multiple of `every_ms` beyond it.

        >>> Revising(100, 20).next_cut_ms(39), Revising(100, 20).next_cut_ms(40)
        (40, 60)
        """
        return (watermark_ms // self.every_ms + 1) * self.every_ms

    def settled_ms(self, finished_ms: int) -> int:
        """Return up to when panes have ended that take no more late rows, once everything up to `finished_ms` is final."""
        return finished_ms - self.for_ms - self.every_ms


DAY_MS = 24 * 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Labelling:
    """Labels are joined to a model's predictions.

    retention_ms: so long after its pane a prediction waits for its label. report_at_ms: how old a window is when its performance is
    published, rising; the first time always, later only where something became known since. None is above `retention_ms`.
    min_labels, min_coverage: rules judge a report with at least so many labels, and this share of its predictions labelled.
    """

    retention_ms: int = 30 * DAY_MS
    report_at_ms: tuple[int, ...] = (0, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
    min_labels: int = 30
    min_coverage: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a model's events are grouped.

    specs: at least one window specification. grace_ms: how much disorder is waited for. sha256: of what changes content.
    sources: topics of predictions that the model is bound to; empty means all of them.
    learning: None where no reference is to be learnt. trail: None where windows are compared with the reference's own counts.
    revising: None where late rows are dropped. remember_ids_ms: how long, on its partition's clock, an event's id tells that it came
    before; 0: ids are not looked at. labelling: None where labels are not joined. early_above_ms: windows longer than that are looked at
    while they are open; None: none are. asked_pane_ms: length of a pane; None: what the windows ask for.
    """

    specs: tuple[WindowSpec, ...]
    grace_ms: int = 2 * MINUTE_MS
    sources: tuple[str, ...] = ()
    sha256: str = ""
    learning: LearningSettings | None = None
    trail: Trail | None = None
    revising: Revising | None = None
    remember_ids_ms: int = 0
    labelling: Labelling | None = None
    early_above_ms: int | None = None
    asked_pane_ms: int | None = None
    pane_ms: int = field(init=False)
    early_specs: tuple[WindowSpec, ...] = field(init=False)
    """Those whose windows are looked at while they are open."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pane_ms", self.asked_pane_ms or pane_size_ms(self.specs, self.early_above_ms))
        object.__setattr__(self, "early_specs", early_specs(self.specs, self.early_above_ms, self.pane_ms))

    @property
    def whole_ms(self) -> int:
        """What all sizes and steps are made of."""
        return pane_size_ms(self.specs)

    @property
    def needed(self) -> Needed:
        """What it takes to judge the model's performance."""
        labelling = self.labelling or Labelling()
        return Needed(labelling.min_labels, labelling.min_coverage)

    @property
    def shortest(self) -> WindowSpec:
        """The specification by whose windows a reference is learnt."""
        return min(self.specs)


def check_pane_size(model: str, size_ms: int, settings: ModelSettings) -> None:
    """Raise StateMismatch where a pane in state has not the length of the model's panes of now."""
    if size_ms == settings.pane_ms:
        return
    then, now = duration_text(size_ms), duration_text(settings.pane_ms)
    raise StateMismatch(
        f"the state of model {model} is made of panes of {then}, and its windows now ask for panes of {now}: "
        + (
            f"add `pane: {then}` to the model to go on with it"
            if settings.whole_ms % size_ms == 0
            else f"they cannot be made of panes of {then}; restore them"
        )
        + ", or start with another `app` name to begin anew"
    )


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How a source's records are read.

    clock: `wall` lets a silent partition's clock move on, `event` does not. idle_after_ms: silence before that.
    max_future_ms: event time may be this far ahead of the record timestamp. max_delay_ms: the longest delay of live data.
    sha256: of what decides which pane a record is counted in.
    """

    topic: str
    clock: Literal["wall", "event"] = "wall"
    idle_after_ms: int = 2 * MINUTE_MS
    max_future_ms: int | None = 5 * MINUTE_MS
    max_delay_ms: int = 60 * MINUTE_MS
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the stages of one application share.

    defaults: for a model that `models` does not name. unknown_model: what happens to such a model's events.
    partials_partitions: Q. outcomes_partitions: R, 0 where there is no source of labels. retire_after_ms: how long an emitted row stays,
    real time; at least ten sessions.
    """

    app: str
    models: Mapping[str, ModelSettings]
    defaults: ModelSettings
    sources: Mapping[str, SourceSettings]
    unknown_model: Literal["observe", "dlq", "drop"] = "observe"
    max_models: int = 200
    partials_partitions: int = 8
    outcomes_partitions: int = 0
    retire_after_ms: int = 5 * MINUTE_MS
    watermark_every_ms: int = 5_000
    reference_lead_ms: int = REFERENCE_LEAD_MS

    def model(self, name: str) -> ModelSettings:
        """Return a model's own settings, or the defaults."""
        return self.models.get(name, self.defaults)

    def topic(self, name: str) -> str:
        """Return the name of one of the application's topics: partials, outcomes, results, alerts, dead-letter, references.

        >>> Settings("m", {}, ModelSettings((WindowSpec(1, 1),)), {}).topic("alerts")
        'm.alerts'
        """
        return f"{self.app}.{name}"
