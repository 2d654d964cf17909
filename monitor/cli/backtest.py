"""`monitor backtest`: what another policy would have told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from pydantic import Field, ValidationError, model_validator

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, data, say
from monitor.cli.reference import optional_config
from monitor.config.file import problems, read_yaml
from monitor.config.settings import Config
from monitor.config.values import Node
from monitor.errors import ConfigError, InputError
from monitor.event_time import text_ms
from monitor.policy import Policies


class IncidentFile(Node):
    """Something that is known to have been wrong."""

    model: str = Field(description="name")
    version: str | None = Field(None, description="any if left out")
    feature: str | None = Field(None, description="any if left out")
    from_: str = Field(alias="from", description="ISO 8601 moment of event time")
    to: str = Field(description="likewise")
    name: str = Field("", description="what it was")

    @model_validator(mode="after")
    def _valid(self) -> IncidentFile:
        try:
            bounds = text_ms(self.from_), text_ms(self.to)
        except InputError as error:
            raise ValueError(str(error)) from None
        if bounds[1] <= bounds[0]:
            raise ValueError(f"to {self.to} is not after from {self.from_}")
        return self


class IncidentsFile(Node):
    """Known incidents."""

    incidents: tuple[IncidentFile, ...] = Field(description="each with model, from, to; feature, version and name if known")


def backtest(
    policy: Annotated[list[Path], typer.Option(help="A policy file, or a folder of them; repeatable.")],
    results: Annotated[
        Path | None, typer.Argument(help="Result records, NDJSON; the results topic if left out.", show_default=False)
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="The same; what the configuration has in force if left out.", show_default=False)
    ] = None,
    incidents: Annotated[
        Path | None, typer.Option(help="YAML file of known incidents, for precision and recall.", show_default=False)
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Judge published results by another policy: `monitor backtest --policy new.yaml --against old.yaml results.ndjson`.

    Standard output has an alert a line, with what became of it: added, removed, changed or kept.
    """
    from monitor.backtest import backtest as judge  # noqa: PLC0415
    from monitor.backtest import backtest_reports, differences, read_looks, read_reports, read_results, score  # noqa: PLC0415
    from monitor.bootstrap import build_policies, build_settings  # noqa: PLC0415
    from monitor.decision.early import SHOWN  # noqa: PLC0415

    found = optional_config(config)
    new = build_policies(found, policy)
    old = build_policies(found, against) if against is not None else _in_force(found, is_topic=results is None)
    known = read_incidents(incidents) if incidents is not None else None
    lines = list(_lines(found, results))
    windows, looks, reports, settings = read_results(lines), read_looks(lines), read_reports(lines), build_settings(found)
    before, after = (
        judge(windows, policies, looks).and_of(backtest_reports(reports, policies, lambda model: settings.model(model).needed))
        for policies in (old, new)
    )
    changes = differences(before, after)
    for one in changes:
        data(msgspec.json.encode({"change": one.change, "alert": msgspec.to_builtins(one.alert)}))
    counts = {change: sum(one.change == change for one in changes) for change in ("added", "removed", "changed", "kept")}
    others = f", {len(looks):,} looks into open ones" if looks else ""
    others += f", {len(reports):,} reports of performance" if reports else ""
    say(
        f"{len(windows):,} windows{others}: {len(before.fired)} incidents before, {len(after.fired)} after; alerts: "
        + ", ".join(f"{n} {change}" for change, n in counts.items())
    )
    if before.changed:
        say(f"note: in {before.changed:,} windows other rules were in force than those that are compared against")
    for name in sorted(after.unmeasured):
        say(f"warning: segment {name}: no rule was for it live, so that nothing was measured of it")
    if after.hidden:
        say(
            f"warning: early alarms in {after.hidden:,} windows are not all known: looks publish what chance explains once in "
            f"{1 / SHOWN:.0f} windows or less, and the budget of a rule believes more"
        )
    for name, outcome in (("before", before), ("after", after)) if known is not None else ():
        found_score = score(outcome, known or ())
        missed = ", ".join(one.name or f"{one.model} {one.feature or ''}".strip() for one in found_score.missed)
        say(
            f"{name}: precision {_share(found_score.precision)} of {found_score.fired} incidents, recall {_share(found_score.recall)} of "
            f"{found_score.known} known ones" + (f"; missed: {missed}" if missed else "")
        )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _in_force(config: Config, *, is_topic: bool) -> Policies:
    from monitor.bootstrap import build_policies  # noqa: PLC0415

    found = build_policies(config)
    if is_topic and config.policies is None:
        from monitor.runtime import policies, topics  # noqa: PLC0415

        counts = topics.check_topics(config)
        policies.read_policies(config, counts[policies.policies_topic(config)], found)
    return found


def _lines(config: Config, results: Path | None) -> Iterable[bytes]:
    if results is not None:
        if not results.exists():
            raise InputError(f"{results}: no such file; `monitor replay` or `monitor tail results` makes one")
        return results.read_bytes().splitlines()
    from monitor.runtime.broker import read_to_end  # noqa: PLC0415
    from monitor.runtime.topics import check_topics  # noqa: PLC0415

    topic = f"{config.app}.results"
    return [message.value() or b"" for message in read_to_end(config.kafka, topic, partitions=check_topics(config)[topic])]


def read_incidents(path: Path) -> list[Any]:
    """Read known incidents. Raises ConfigError with every problem."""
    from monitor.backtest import KnownIncident  # noqa: PLC0415

    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    document, content = read_yaml(
        path, example="`incidents: [{model: credit, from: 2025-01-03, to: 2025-01-04}]`", times_as_text=True
    )
    try:
        given = IncidentsFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(list(problems(path, document, error, IncidentsFile))) from error
    return [
        KnownIncident(one.model, text_ms(one.from_), text_ms(one.to), one.version, one.feature, one.name)
        for one in given.incidents
    ]
