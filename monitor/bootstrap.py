"""Configuration → objects: the only place where they meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from monitor.cells import FeatureOptions
from monitor.config.models import ModelConfig, trail_ms
from monitor.config.policy_file import read_policies
from monitor.config.rule_text import parse_false_alarms
from monitor.config.settings import Config, Source
from monitor.errors import ConfigError
from monitor.formats import FORMATS, Format
from monitor.hash_key import MIN_CHARACTERS, NO_KEY, HashKey
from monitor.pipeline import Pipeline
from monitor.policy import DEFAULT_RULES, Policies, RuleSet
from monitor.reference import Reference, References
from monitor.rules import Rule
from monitor.stages.settings import Labelling, LearningSettings, ModelSettings, Revising, Settings, SourceSettings, Trail

LABEL_FORMATS = ("native-label",)
"""Formats whose sources have no predictions: no window waits for them."""


def build_pipeline(config: Config, references: Sequence[Reference] = (), policies: Sequence[Path] | None = None) -> Pipeline:
    """Assemble the pipeline of a configuration. policies: files in the place of the configured ones.

    Raises ConfigError when a reference was built with another hash key, or a policy is wrong.
    """
    known = References(build_hash_key(config))
    for reference in references:
        known.add(reference)
    return Pipeline(build_settings(config), build_formats(config), build_policies(config, policies), known)


def build_hash_key(config: Config) -> HashKey:
    """Return the configured key, or none. Raises ConfigError when its file cannot be read, or the key is too short."""
    privacy = config.privacy
    if privacy.hash_key is not None:
        where, secret = "privacy.hash_key", privacy.hash_key.get_secret_value()
    elif privacy.hash_key_file is not None:
        where = f"privacy.hash_key_file: {privacy.hash_key_file}"
        try:
            secret = privacy.hash_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read: {error}") from error
    else:
        return NO_KEY
    if len(secret) < MIN_CHARACTERS:
        raise ConfigError(f"{where}: the key has {len(secret)} characters; at least {MIN_CHARACTERS} are needed")
    return HashKey(secret)


def missing_segments(config: Config, reference: Reference) -> str | None:
    """Return a sentence where a configuration splits a model's rows in a way that its reference does not; None where all is well."""
    built = {segmentation.keys for segmentation in reference.layout.segmentations}
    wanted = config.models.get(reference.model, config.defaults).segments
    missing = [" × ".join(map(str, segment.keys)) for segment in wanted if segment.keys not in built]
    if not missing:
        return None
    return (
        f"the reference {reference.sha256[:12]} of {reference.model} {reference.version} has no segments by {', '.join(missing)}, though the "
        "configuration has: rows are split as the reference is; build and publish it again"
    )


def build_settings(config: Config) -> Settings:
    """Return the values that the stages share."""
    idle_after = max([config.defaults.idle_after, *(model.idle_after for model in config.models.values())])
    if config.models:
        idle_after = max(model.idle_after for model in config.models.values())
    return Settings(
        app=config.app,
        models={name: _model(model, config.sources) for name, model in config.models.items()},
        defaults=_model(config.defaults, config.sources),
        sources={
            source.topic: SourceSettings(
                topic=source.topic,
                clock=source.clock,
                idle_after_ms=idle_after,
                max_future_ms=source.max_future,
                max_delay_ms=source.max_delay,
                sha256=source.content_sha256,
            )
            for source in config.sources
        },
        unknown_model=config.unknown_model,
        max_models=config.max_models,
        partials_partitions=config.partials_partitions,
        outcomes_partitions=config.outcomes_partitions if label_topics(config.sources) else 0,
        retire_after_ms=10 * config.kafka.session_timeout + PRODUCER_TIMEOUT_MS,
    )


PRODUCER_TIMEOUT_MS = 15_000
"""How long a record may be on its way to the broker."""


def _model(model: ModelConfig, sources: Sequence[Source]) -> ModelSettings:
    trail = trail_ms(model.reference)
    revising = _revising(model) if model.late == "revise" else None
    return ModelSettings(
        specs=tuple(sorted(window.spec for window in model.windows)),
        grace_ms=model.grace,
        sources=model.sources,
        sha256=model.content_sha256,
        learning=_learning(model) if model.learning.enabled else None,
        trail=Trail(*trail) if trail is not None else None,
        revising=revising,
        labelling=_labelling(model) if label_topics(sources) else None,
        early_above_ms=model.early_above_ms,
        asked_pane_ms=model.pane,
        remember_ids_ms=_remember_ids_ms(model, revising, sources) if model.deduplicate else 0,
    )


def _remember_ids_ms(model: ModelConfig, revising: Revising | None, sources: Sequence[Source]) -> int:
    """Return after what time on its partition's clock no window counts an event any more: it may have been that far ahead of the clock."""
    ahead = max(source.max_future for source in sources)
    revised = revising.for_ms + revising.every_ms if revising is not None else 0
    return max(window.size for window in model.windows) + model.grace + ahead + revised


def _labelling(model: ModelConfig) -> Labelling:
    """Return how labels are waited for: a report after the retention would have nothing new, the last one is at its end."""
    labels = model.labels
    ages = tuple(dict.fromkeys(min(at, labels.retention) for at in labels.report_at))
    return Labelling(labels.retention, ages, labels.min_labels, labels.min_coverage)


def _revising(model: ModelConfig) -> Revising:
    every = model.revise_every or model.pane_ms
    return Revising(model.revise_for, every)


def _learning(model: ModelConfig) -> LearningSettings:
    return LearningSettings(
        min_rows=model.learning.rows,
        min_windows=model.learning.windows,
        keep_texts=model.learning.texts,
        left_out=frozenset(name for name, feature in model.features.items() if feature.pii == "drop"),
        hashed=frozenset(name for name, feature in model.features.items() if feature.pii == "hash"),
        options=feature_options(model),
    )


def feature_options(model: ModelConfig) -> dict[str, FeatureOptions]:
    """Return what a configuration says of a model's features."""
    return {name: FeatureOptions(**feature.model_dump()) for name, feature in model.features.items()}


def build_formats(config: Config) -> dict[str, Format]:
    """Return the format of each source topic."""
    return {s.topic: FORMATS[s.format](s.time.field, s.time.unit, s.max_event_bytes) for s in config.sources}


def label_topics(sources: Iterable[Source]) -> list[str]:
    """Return the sources that labels come from; where there is one, they are joined."""
    return [source.topic for source in sources if source.format in LABEL_FORMATS]


def prediction_topics(config: Config) -> list[str]:
    """Return the sources that windows are made of."""
    return [source.topic for source in config.sources if source.format not in LABEL_FORMATS]


def build_policies(config: Config, files: Sequence[Path] | None = None) -> Policies:
    """Return the configured rules, and policies over them: of files and folders, the configured ones if left out.

    Raises ConfigError with every problem of the files.
    """
    found = Policies(build_rules(config))
    configured = [config.policies] if config.policies is not None else []
    for read in read_policies(configured if files is None else files):
        found.add(read.policy)
    return found


def build_rules(config: Config) -> RuleSet:
    """Return the default rules with the configured ones over them."""
    rules = dict(DEFAULT_RULES)
    for check, given in config.rules.items():
        changes = given.model_dump(exclude_none=True, exclude_unset=True)
        if given.limits:
            changes = {"above": None, "below": None, "drop": None, "rise": None} | changes
        if "severity" in changes:
            changes.setdefault("levels", {})
        rules[check] = msgspec.structs.replace(rules.get(check, Rule()), **changes)
    named = {check: Rule(**msgspec.structs.asdict(rule)) for check, rule in rules.items()}
    return RuleSet(named, config.distances.psi_eps, false_alarms=parse_false_alarms(config.false_alarms))
