"""`monitor policy check|publish|remove|show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, data, say
from monitor.cli.reference import optional_config, read_reference
from monitor.config.file import load_config
from monitor.config.policy_file import read_policies, read_policy, to_record
from monitor.errors import ConfigError, InputError
from monitor.false_alarms import Expected, totals

policy = typer.Typer(help="Rules, when they apply, and who is told.", no_args_is_help=True)

PolicyPaths = Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.")]
References = Annotated[
    list[Path] | None, typer.Option("--reference", help="A reference file; repeatable: what features there are.")
]


@policy.command()
def check(
    files: PolicyPaths,
    config: ConfigPath = DEFAULT_CONFIG,
    reference: References = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of a window; the reference's own windows tell if left out.", show_default=False),
    ] = None,
) -> None:
    """Say what is wrong with policies, and how often they would alarm though nothing has changed.

    `monitor policy check policies/ --reference reference.json --rows 1000`
    """
    from monitor.bootstrap import build_rules  # noqa: PLC0415
    from monitor.config.policy_lint import lint  # noqa: PLC0415

    given = optional_config(config)
    reads = read_policies(files)
    references = [read_reference(path) for path in reference or ()]
    found = lint(reads, build_rules(given), given if config.exists() else None, references, rows)
    if found.problems:
        raise ConfigError(found.problems)
    for warning in found.warnings:
        say(f"warning: {warning}")
    _say_expected(found.expected)
    if not references:
        say("note: features, segments and false alarms were not looked at: give --reference")
    for read in reads:
        say(f"{read.path}: ok, {len(read.policy.rules)} rules")
        data(f"{read.policy.name}\t{read.policy.effective_from_ms}\t{read.policy.sha256}")


def _say_expected(found: Sequence[Expected]) -> None:
    """Say the sums, and of each rule on a distance what its threshold alone would do."""
    from monitor.config.policy_lint import spec_text  # noqa: PLC0415

    for name, per_month, unknown in totals(found):
        say(
            f"policy {name}: up to {per_month:.2g} false alarms in 30 days"
            + (f", besides {', '.join(unknown)}, of which no law tells" if unknown else "")
        )
    for one in found:
        if one.bare_ratio is not None and one.bare_ratio >= MENTIONED:
            say(
                f"  {one.check} of {one.model}, windows of {spec_text(one.spec)}, n = {one.n:,}: chance alone is beyond the threshold "
                f"in {one.bare_ratio:.1%} of quiet windows; the critical value holds it back"
            )


MENTIONED = 0.001
"""Share of quiet windows beyond a threshold from which it is worth a line."""


@policy.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A policy file.")],
    config: ConfigPath = DEFAULT_CONFIG,
    effective_from: Annotated[
        str | None,
        typer.Option(help="Event time from which it applies, ISO 8601; the file's, or always, if left out.", show_default=False),
    ] = None,
) -> None:
    """Put a policy on the policies topic. A later one of the same name must say from when it applies."""
    from monitor.event_time import text_ms  # noqa: PLC0415
    from monitor.policy import Policies  # noqa: PLC0415
    from monitor.runtime import policies, topics  # noqa: PLC0415

    found = load_config(config)
    if found.policies is not None:
        raise InputError(f"policies are files here, of {found.policies}: leave `policies` out of {config} to read the topic")
    if effective_from is not None:
        text_ms(effective_from)
    key, value, made = to_record(read_policy(file), effective_from)
    counts = topics.check_topics(found)
    known = Policies()
    policies.read_policies(found, counts[policies.policies_topic(found)], known)
    others = [one for one in known.of_name(made.name) if one.sha256 != made.sha256]
    if others and not made.effective_from_ms:
        raise InputError(
            f"there is a policy {made.name} already ({others[-1].sha256[:12]}); say from which event time the new one applies: "
            "--effective-from 2025-06-01T00:00:00Z"
        )
    policies.publish(found, key, value)
    say(f"published {key.decode()} to {policies.policies_topic(found)}")
    data(made.sha256)


@policy.command()
def remove(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Take all versions of a policy off the topic. Windows that were judged stay as they are."""
    from monitor.policy import Policies  # noqa: PLC0415
    from monitor.runtime import policies, topics  # noqa: PLC0415

    found = load_config(config)
    counts, known = topics.check_topics(found), Policies()
    policies.read_policies(found, counts[policies.policies_topic(found)], known)
    versions = known.of_name(name)
    if not versions:
        raise InputError(f"there is no policy {name} on {policies.policies_topic(found)}")
    for version in versions:
        policies.publish(found, version.key, None)
    say(f"removed {len(versions)} versions of {name}")


@policy.command()
def show(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the policies that workers read, one JSON object a line."""
    from monitor.bootstrap import build_policies  # noqa: PLC0415
    from monitor.runtime import policies, topics  # noqa: PLC0415

    found = load_config(config)
    known = build_policies(found)
    if found.policies is None:
        counts = topics.check_topics(found)
        policies.read_policies(found, counts[policies.policies_topic(found)], known)
    for version in known.versions():
        data(msgspec.json.encode({"sha256": version.sha256, **msgspec.structs.asdict(version)}))
