"""Configuration: what can be said, and what holds where nothing is; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from monitor.config.models import ModelConfig
from monitor.config.notify import Notify
from monitor.config.rule_text import RuleConfig, parse_false_alarms
from monitor.config.values import Duration, Name, Node, Size, near_miss, one_of
from monitor.distances import DISTANCES
from monitor.distances.psi import EPS
from monitor.formats import FORMATS
from monitor.rules import DEFAULT_FALSE_ALARMS


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
    checkpoint: Duration = Field(
        2_000,
        description="so much is read again after a crash; up to ten times as much where checkpoints cost over 5 % of a processor",
    )


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
