"""The topics of an application: what there must be, making it, and checking it before a worker starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.bootstrap import label_topics, prediction_topics
from monitor.config.settings import Config
from monitor.errors import ConfigError
from monitor.runtime.broker import client_settings, partition_counts

DAY_MS = 86_400_000
MAX_MESSAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic. partitions None: as many as `like` has. is_source: the user's own."""

    name: str
    partitions: int | None
    settings: dict[str, str] = field(default_factory=dict)
    like: str | None = None
    is_source: bool = False


def ingest_table(source: str) -> str:
    """Return the name of a source's table."""
    return f"{source}-ingest"


MERGE_TABLE = "merge"
JOIN_TABLE = "join"
LONGEST_OUTAGE_MS = 7 * DAY_MS
"""Outcomes are kept for so much longer than labels are waited for: entries of ids can be made anew from them after it."""


def changelog(app: str, table: str) -> str:
    """Return the changelog topic of a table, as Faust names it."""
    return f"{app}-{table}-changelog"


def expected_topics(config: Config) -> list[TopicSpec]:
    """Return every topic that a configuration needs."""
    app, q = config.app, config.partials_partitions
    delete = {"cleanup.policy": "delete"}
    compact = {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "600000",
        "delete.retention.ms": str(DAY_MS),
        "segment.ms": "3600000",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    specs = []
    for source in config.sources:
        specs.append(TopicSpec(source.topic, q, {"message.timestamp.type": "LogAppendTime"}, is_source=True))
        specs.append(TopicSpec(changelog(app, ingest_table(source.topic)), None, compact, like=source.topic))
    specs += [
        TopicSpec(f"{app}.partials", q, delete | {"retention.ms": str(7 * DAY_MS), "max.message.bytes": str(MAX_MESSAGE_BYTES)}),
        TopicSpec(changelog(app, MERGE_TABLE), q, compact, like=f"{app}.partials"),
        TopicSpec(
            f"{app}.results",
            q,
            {"cleanup.policy": "compact,delete", "retention.ms": str(365 * DAY_MS), "max.message.bytes": str(MAX_MESSAGE_BYTES)},
        ),
        TopicSpec(f"{app}.alerts", q, delete | {"retention.ms": str(30 * DAY_MS)}),
        TopicSpec(f"{app}.dead-letter", q, delete),
        TopicSpec(f"{app}.acks", 1, {"cleanup.policy": "compact"}),
        TopicSpec(f"{app}.references", 1, {"cleanup.policy": "compact", "max.message.bytes": str(MAX_MESSAGE_BYTES)}),
    ]
    if label_topics(config.sources):
        retention = max(model.labels.retention for model in (config.defaults, *config.models.values()))
        kept = {"retention.ms": str(retention + LONGEST_OUTAGE_MS), "max.message.bytes": str(MAX_MESSAGE_BYTES)}
        specs.append(TopicSpec(f"{app}.outcomes", config.outcomes_partitions, delete | kept))
        specs.append(TopicSpec(changelog(app, JOIN_TABLE), config.outcomes_partitions, compact, like=f"{app}.outcomes"))
    if config.policies is None:
        specs.append(TopicSpec(f"{app}.policies", 1, {"cleanup.policy": "compact"}))
    return specs


def of_state(config: Config) -> list[str]:
    """Return the topics that state depends on. What is only written to may go and come: it is waited for (refusals.py)."""
    written_only = {f"{config.app}.{kind}" for kind in ("results", "alerts", "dead-letter")}
    return [spec.name for spec in expected_topics(config) if spec.name not in written_only]


def create_topics(config: Config) -> tuple[list[str], list[str]]:
    """Make the topics that are missing; return (made, already there). Raises ConfigError."""
    there = partition_counts(config.kafka)
    specs = expected_topics(config)
    wanted = {s.name: s.partitions or there.get(s.like or "", config.partials_partitions) for s in specs}
    new = [
        NewTopic(s.name, num_partitions=wanted[s.name], replication_factor=config.replication, config=s.settings)
        for s in specs
        if s.name not in there
    ]
    problems = []
    if new:
        admin = AdminClient(client_settings(config.kafka))
        for name, future in admin.create_topics(new, request_timeout=20).items():
            try:
                future.result(30)
            except ck.KafkaException as error:
                problems.append(f"topic {name} could not be created: {error.args[0].str()}")
    if problems:
        raise ConfigError(problems)
    return [t.topic for t in new], [s.name for s in specs if s.name in there]


def check_topics(config: Config, *, embedded: bool = False) -> dict[str, int]:
    """Return partitions by topic. Raises ConfigError with a sentence per missing topic or wrong partition count.

    embedded: the embedded broker makes a topic when it is asked for; nothing can be missing there.
    """
    specs = expected_topics(config)
    there = partition_counts(config.kafka, [s.name for s in specs] if embedded else None)
    problems = [f"topic {s.name} is missing; `monitor topics create` makes it" for s in specs if s.name not in there]
    for spec in specs:
        if spec.like is None or spec.name not in there or spec.like not in there:
            continue
        if there[spec.name] != there[spec.like]:
            problems.append(
                f"topic {spec.name} has {there[spec.name]} partitions, {spec.like} has {there[spec.like]}; they must be equal: "
                "restore the old count, or start with another `app` name"
            )
    for kind, n in (("partials", config.partials_partitions), ("outcomes", config.outcomes_partitions)):
        topic = f"{config.app}.{kind}"
        if topic in there and there[topic] != n and any(spec.name == topic for spec in specs):
            problems.append(f"topic {topic} has {there[topic]} partitions, {kind}_partitions is {n}; make them equal")
    if problems:
        raise ConfigError(problems)
    return there


def topology(config: Config, counts: dict[str, int]) -> dict[str, int]:
    """Return partitions of every source of predictions."""
    return {topic: counts[topic] for topic in prediction_topics(config)}


def changes(
    counts: Mapping[str, int], ids: Mapping[str, str | None], now: Mapping[str, int], ids_now: Mapping[str, str | None]
) -> list[str]:
    """Return a sentence per topic that is not what it was when the worker started: gone, made anew, of other partitions."""
    found = []
    for topic, n in counts.items():
        if topic not in now:
            found.append(f"topic {topic} was deleted while it was in use; restore it, or start with another `app` name")
        elif now[topic] != n:
            found.append(f"topic {topic} has {now[topic]} partitions, it had {n} when this worker started")
        elif ids.get(topic) and ids_now.get(topic) and ids[topic] != ids_now[topic]:
            found.append(f"topic {topic} was deleted and created again while it was in use; start with another `app` name")
    return found
