"""What is monitored in an experiment: the models, their windows and the rules, as the configuration and the oracle both need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from monitor.columns import ColumnBatch
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.policy import DEFAULT_RULES
from monitor.profiles import Profile
from monitor.reference import Reference
from tests.shapes import number_feature_of

SESSION_S = 6
COLOURS = ("red", "green", "blue")
UNKNOWN_COLOUR = "violet"
MISSING, NEVER_SEEN, TRAFFIC = CHECKS = "health.missing", "health.never_seen", "traffic.high"
PARTITIONS = 4
"""Of every topic."""


@dataclass(frozen=True)
class Plan:
    """The models of an experiment. Times in milliseconds. Each model has the rule of one check: an incident then has one finding.

    windows: (size, step). graces: by model. clock: of the source. idle_after: as configured.
    rows_above: `traffic.high` fires above it. missing_above, never_seen_above: likewise; in_a_row: windows that open and close an incident
    of `health.missing`.
    """

    models: tuple[str, ...] = ("credit", "fraud", "churn")
    windows: tuple[tuple[int, int], ...] = ((10_000, 10_000), (20_000, 5_000))
    grace: int = 5_000
    graces: Mapping[str, int] = field(default_factory=dict)
    clock: Literal["wall", "event"] = "wall"
    idle_after: int = 10_000
    rows_above: int = 5_300
    missing_above: float = 0.2
    never_seen_above: float = 0.1
    in_a_row: int = 2
    replication: int = 1

    def grace_of(self, model: str) -> int:
        """Return the grace of a model."""
        return self.graces.get(model, self.grace)

    def models_of(self, check: str) -> list[str]:
        """Return the models that a check's rule is for."""
        return [model for i, model in enumerate(self.models) if CHECKS[i % len(CHECKS)] == check]

    def config(self, app: str, bootstrap: str, folder: Path, port: int) -> str:
        """Return the configuration file; every default rule but the ones that the oracle can compute is switched off."""
        windows = ", ".join(f"{{size: {size}ms, step: {step}ms}}" for size, step in self.windows)

        def model(name: str, grace: int) -> str:
            return f"{name}: {{windows: [{windows}], grace: {grace}ms, idle_after: {self.idle_after}ms, learning: {{enabled: false}}}}"

        rules = {check: "{enabled: false}" for check in DEFAULT_RULES}
        rules |= {
            check: f"{{{rule}, models: [{', '.join(self.models_of(check))}]}}"
            for check, rule in (
                (MISSING, f"above: {self.missing_above}, windows: {self.in_a_row}, features: [x]"),
                (NEVER_SEEN, f"above: {self.never_seen_above}, features: [colour]"),
                (TRAFFIC, f"above: {self.rows_above}, severity: notice"),
            )
        }
        lines = [
            f"app: {app}",
            f'kafka: {{bootstrap_servers: "{bootstrap}", session_timeout: {SESSION_S}s, heartbeat_interval: 1s}}',
            f"sources: [{{topic: {app}-events, clock: {self.clock}}}]",
            model("defaults", self.grace),
            *(["models:"] if self.graces else []),
            *(f"  {model(name, grace)}" for name, grace in self.graces.items()),
            f"partials_partitions: {PARTITIONS}",
            f"replication: {self.replication}",
            "rules:",
            *(f"  {check}: {rule}" for check, rule in rules.items()),
            f'state: {{dir: "{folder}/state", checkpoint: 500ms}}',
            f'http: {{bind: "127.0.0.1:{port}"}}',
        ]
        return "\n".join(lines) + "\n"


def reference(model: str) -> Reference:
    """Return a reference of 5,000 standard normal values and three colours, none missing."""
    dice = np.random.default_rng(7)
    values = dice.normal(size=5_000)
    layout = layout_of([number_feature_of("x", values), CategoryFeature(name="colour", values=COLOURS)])
    profile = Profile(layout)
    profile.update(ColumnBatch(5_000, values[None, :], None, [dice.choice(COLOURS, 5_000).tolist()]))
    return Reference.build(model, "1", profile)
