"""Configuration: what can be said, and what holds where nothing is; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from monitor.config_notify import Notify
from monitor.config_values import UNITS_MS, Duration, Name, Node, Size, duration_ms, near_miss, one_of
from monitor.distances import DISTANCES
from monitor.distances.psi import EPS
from monitor.errors import InputError
from monitor.features import AskedKind
from monitor.formats import FORMATS
from monitor.policy import DEFAULT_RULES, PERFORMANCE_CHECKS
from monitor.rule_text import RULE_CHECKS, parse_false_alarms
from monitor.rules import DEFAULT_FALSE_ALARMS, SEVERITIES, Severity
from monitor.segments import FALSE, OTHER, TRUE, Key, parse_key
from monitor.windows import WindowSpec, duration_text, pane_size_ms

MAX_PANES_PER_WINDOW = 10_000
EARLY_ABOVE_MS = 3_600_000
"""Windows of an hour close soon enough."""


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


def _false_alarms(text: str) -> str:
    parse_false_alarms(text)
    return text


class Kafka(Node):
    """How to reach the brokers. Security keys are named as librdkafka names them."""

    bootstrap_servers: str = Field("localhost:9092", description="host:port of one or more brokers, comma-separated")
    security_protocol: Annotated[str, one_of("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")] = Field(
        "plaintext", alias="security.protocol", description="plaintext, ssl, sasl_plaintext or sasl_ssl"
    )
    sasl_mechanism: Annotated[str, one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")] = Field(
        "PLAIN", alias="sasl.mechanisms", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    sasl_username: str | None = Field(None, alias="sasl.username", description="user")
    sasl_password: SecretStr | None = Field(None, alias="sasl.password", description="password; better as a file")
    sasl_password_file: Path | None = Field(None, alias="sasl.password.file", description="file that holds the password")
    ssl_ca_location: Path | None = Field(None, alias="ssl.ca.location", description="CA certificates, PEM")
    allow_plaintext_sasl: bool = Field(False, description="send a password without TLS")
    session_timeout: Duration = Field(10_000, description="silence after which a worker's partitions are given away")
    heartbeat_interval: Duration = Field(3_000, description="how often a worker says that it lives")

    @model_validator(mode="after")
    def _safe(self) -> Kafka:
        if self.security_protocol == "sasl_plaintext" and not self.allow_plaintext_sasl:
            raise ValueError("sasl_plaintext sends the password unencrypted; use sasl_ssl, or set allow_plaintext_sasl: true")
        if self.session_timeout < 3 * self.heartbeat_interval:
            raise ValueError("session_timeout must be at least three times heartbeat_interval")
        return self


class Time(Node):
    """Where an event's time is."""

    field: str = Field("time", description="name of the field")
    unit: Literal["s", "ms", "us", "ns", "iso8601"] = Field("ms", description="s, ms, us, ns or iso8601")


class Source(Node):
    """A topic of raw events."""

    topic: Name = Field(description="name of the topic")
    format: Annotated[str, one_of(*FORMATS)] = Field("native", description="wire format: " + ", ".join(FORMATS))
    time: Time = Field(Time(), description="where an event's time is")
    clock: Literal["wall", "event"] = Field(
        "wall", description="wall: live traffic, a silent partition's clock moves on; event: a backfill, only events move it"
    )
    max_future: Duration = Field(300_000, description="how far ahead of its record an event's time may be")
    max_delay: Duration = Field(3_600_000, description="the longest delay of live data")
    max_event_bytes: Size = Field(1 << 20, description="longer records are rejected unparsed")

    @property
    def content_sha256(self) -> str:
        """Hash of what decides which pane a record is counted in, if in any."""
        how = [self.format, self.time.field, self.time.unit, self.clock, self.max_future, self.max_delay, self.max_event_bytes]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]


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
        description="windows longer than 1h are looked at about 48 times while they are open, and severe breaks told then; panes are short enough",
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
        return pane_size_ms([window.spec for window in self.windows], self.early_above_ms)

    @property
    def content_sha256(self) -> str:
        """Hash of what changes the content of windows' state."""
        specs = sorted(window.spec for window in self.windows)
        pane = [self.pane_ms] if self.pane_ms != pane_size_ms(specs) else []
        return hashlib.sha256(json.dumps([specs, self.grace, *pane]).encode()).hexdigest()[:16]


class RuleConfig(Node):
    """When a check's value is bad. What is left out stays as it is by default."""

    above: float | None = Field(None, description="bad above this value")
    below: float | None = Field(None, description="bad below this value")
    drop: float | None = Field(
        None, description="of performance: bad where it is lower than the reference's own by this share, 0.05"
    )
    rise: float | None = Field(None, description="of performance: bad where it is higher than the reference's own by this share")
    severity: Severity | None = Field(
        None, description=", ".join(SEVERITIES) + "; given without levels, it is that of every value"
    )
    levels: dict[Severity, float] | None = Field(None, description="severity by the value above which it holds, over `severity`")
    windows: int | None = Field(None, ge=1, description="so many in a row open an incident, and as many quiet ones close it")
    features: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    models: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    segments: tuple[str, ...] = Field((), description="names or wildcards; all rows only if empty")
    enabled: bool = Field(True, description="false switches the rule off")

    @model_validator(mode="after")
    def _one_threshold(self) -> RuleConfig:
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        if len(self.limits) > 1:
            raise ValueError(f"give one of {', '.join(self.limits)}")
        if self.levels and self.limits and "above" not in self.limits:
            raise ValueError("levels are of values above a threshold")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The threshold, by which of the four it is."""
        given = {"above": self.above, "below": self.below, "drop": self.drop, "rise": self.rise}
        return {name: value for name, value in given.items() if value is not None}

    def problem(self, check: str) -> str | None:
        """Return what is wrong with it as a rule of a check."""
        if check not in RULE_CHECKS:
            return f"no such check{near_miss(check, RULE_CHECKS)}; checks are {', '.join(RULE_CHECKS)}"
        if check not in DEFAULT_RULES and not self.limits and self.enabled:
            others = ", drop or rise" if check in PERFORMANCE_CHECKS else ""
            return f"no rule is in force for it by default; give above{',' if others else ' or'} below{others}"
        if check not in PERFORMANCE_CHECKS and {"drop", "rise"} & {*self.limits}:
            return f"only of performance a drop or rise against the reference is known: {', '.join(PERFORMANCE_CHECKS)}"
        if check in PERFORMANCE_CHECKS and self.features:
            return f"{check} is of the model as a whole; leave out features"
        return None


class Privacy(Node):
    """What values of categories that the reference does not have are known by."""

    hash_key: SecretStr | None = Field(
        None, description="secret that they are hashed with; references must be built with the same one"
    )
    hash_key_file: Path | None = Field(None, description="file that holds it")

    @model_validator(mode="after")
    def _one_key(self) -> Privacy:
        if self.hash_key is not None and self.hash_key_file is not None:
            raise ValueError("give hash_key or hash_key_file, not both")
        return self


class Distances(Node):
    """Parameters of distances."""

    psi_eps: float = Field(EPS, gt=0, le=0.1, description="share that psi_eps puts in place of smaller ones")


class State(Node):
    """Local state."""

    dir: Path = Field(Path("state"), description="folder; one per worker below it")
    memory: Size = Field(
        512 << 20,
        description="what a worker is to stay within; an eighth is for its local stores, a sixth for events that wait",
    )
    checkpoint: Duration = Field(2_000, description="at most so much is read again after a crash")


class Watchdog(Node):
    """When a worker ends itself to be started again; each time runs only while nothing at all gets on."""

    progress: Duration = Field(120_000, ge=20_000, description="records wait on a partition, and none is read")
    recovery: Duration = Field(600_000, ge=1_000, description="state is being recovered, and no record of it arrives")
    loop: Duration = Field(30_000, ge=5_000, description="the event loop does not turn")


class Metrics(Node):
    """What Prometheus is told of final windows."""

    distances: tuple[str, ...] = Field(("psi", "js"), description="told for every feature; [] leaves features out")
    max_series: int = Field(
        2_000, ge=0, le=100_000, description="series of windows per worker; segments have at most half of them"
    )

    @model_validator(mode="after")
    def _known(self) -> Metrics:
        known = [distance.name for distance in DISTANCES]
        for name in self.distances:
            if name not in known:
                raise ValueError(f"distances: no such distance{near_miss(name, known)}: {name}; they are {', '.join(known)}")
        return self


class Http(Node):
    """Probes and metrics."""

    bind: Annotated[str, Field(pattern=r"^[^:]+:\d{1,5}$")] = Field(
        "127.0.0.1:9464", description="address:port; worker i listens at port + i"
    )


class Config(Node):
    """Everything."""

    app: Name = Field("monitor", description="application id: consumer group and prefix of the topics")
    kafka: Kafka = Field(Kafka(), description="brokers")
    sources: tuple[Source, ...] = Field((Source(topic="predictions"),), min_length=1, description="topics of raw events")
    models: dict[Name, ModelConfig] = Field({}, description="by name")
    defaults: ModelConfig = Field(ModelConfig(), description="for a model that `models` does not name")
    unknown_model: Literal["observe", "dlq", "drop"] = Field(
        "observe", description="events of a model that `models` does not name: observe, dlq or drop"
    )
    max_models: int = Field(200, ge=1, description="models that are observed per partition; more are rejected")
    rules: dict[str, RuleConfig] = Field({}, description="by check, over the defaults")
    false_alarms: Annotated[str, AfterValidator(_false_alarms)] = Field(
        str(DEFAULT_FALSE_ALARMS),
        description="how many a model may raise by chance, such as 1 per 100d; of each of its window lengths; policies may say otherwise",
    )
    policies: Path | None = Field(None, description="a policy file, or a folder of them; the policies topic if left out")
    privacy: Privacy = Field(Privacy(), description="hashes of values")
    distances: Distances = Field(Distances(), description="parameters of distances")
    partials_partitions: int = Field(8, ge=1, description="partitions of the application's own topics")
    outcomes_partitions: int = Field(
        8, ge=1, description="partitions of the topic by which predictions and labels meet, where there is a source of labels"
    )
    replication: int = Field(1, ge=1, description="replicas of the application's own topics")
    state: State = Field(State(), description="local state")
    http: Http = Field(Http(), description="probes and metrics")
    watchdog: Watchdog = Field(Watchdog(), description="standstills that end a worker")
    metrics: Metrics = Field(Metrics(), description="gauges of final windows")
    notify: Notify = Field(Notify(), description="who is told of alerts")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        topics = [source.topic for source in self.sources]
        problems = [f"sources: topic {t} stands twice" for t in sorted({t for t in topics if topics.count(t) > 1})]
        for name, model in self.models.items():
            problems += [
                f"models.{name}.sources: {t} is not one of the sources: {', '.join(topics)}"
                for t in model.sources
                if t not in topics
            ]
        problems += [
            f"rules.{check}: {wrong}" for check, rule in self.rules.items() if (wrong := rule.problem(check)) is not None
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self
