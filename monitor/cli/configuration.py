"""`monitor init`, `monitor config check|show`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, data, say
from monitor.config.file import load_config
from monitor.errors import InputError

config = typer.Typer(help="Check or show the configuration.", no_args_is_help=True)

TEMPLATE = """\
# Configuration of the monitor. Durations: 250ms, 90s, 5m, 1h30m, 7d. Environment variables go over it: MONITOR_KAFKA__BOOTSTRAP_SERVERS=…
app: monitor                                  # consumer group, and prefix of the topics it makes
kafka:
  bootstrap_servers: "localhost:9092"         # security.protocol, sasl.mechanisms … as librdkafka names them
sources:                                      # topics of raw events
  - topic: predictions
    format: native                            # native, native-label
    time: {{field: time, unit: ms}}             # s, ms, us, ns, iso8601
    clock: wall                               # wall: live traffic; event: a backfill, only events move its clock
    max_future: 5m                            # an event further ahead of its record is rejected
    max_delay: 1h                             # the longest delay of live data
models:
  {model}:
    windows:                                  # aligned to the epoch, UTC; 7-day windows begin on Thursdays
      - {{size: 1h}}                            # tumbling
      - {{size: 24h, step: 1h}}                 # hopping
    early: true                               # windows longer than 1h tell severe breaks while they are open; docs/decisions.md
    grace: 2m                                 # how much disorder is waited for
    late: drop                                # revise: windows are published anew with late events, for revise_for: 1d
    deduplicate: false                        # true: an id counts once
    idle_after: 2m                            # silence after which a partition holds nothing back
    features: {{}}                              # zip: {{kind: category, pii: hash}}; `monitor reference infer` proposes all
    segments: []                              # country, [country, channel], age >= 60, tags.region: profiled apart, fixed by the reference
    labels: {{retention: 30d}}                  # with a source of labels: so long a prediction waits for its own; docs/labels.md
    learning: {{rows: 5000, windows: 24}}       # without a reference, one is learnt from so much traffic; enabled: false
    reference: own                            # trailing(7d), hour_of_week(4): compare with earlier windows, on the reference's cells
rules:                                        # over the defaults; `monitor config show` prints all
  drift.distribution: {{above: 0.0075, levels: {{warning: 0.1, critical: 0.25}}}}   # by size of the effect; `notice` below
  traffic.low: {{below: 1, severity: warning}}
false_alarms: 1 per 100d                      # what a model may raise by chance; docs/decisions.md
# policies: policies/                         # files with rules for models, features, segments, mutes, owners (docs/policies.md);
                                              # left out: `monitor policy publish` puts them on the topic {{app}}.policies
distances: {{psi_eps: 0.0001}}                  # psi_eps: smaller shares are taken as this one
# privacy: {{hash_key_file: /run/secrets/hash_key}}   # values that the reference does not have are known by hashes made with it
state: {{dir: ./state, memory: 512MiB, checkpoint: 2s}}
http: {{bind: "127.0.0.1:9464"}}                # /livez, /readyz, /metrics
watchdog: {{progress: 2m, recovery: 10m, loop: 30s}}    # a worker that stands still for so long ends, to be started again
# notify:                                     # who is told, by `monitor notify`; docs/notify.md
#   alertmanager: {{urls: ["http://alertmanager:9093"]}}
#   routes: {{alertmanager: {{receiver: alertmanager}}}}   # others: webhook, people
metrics: {{distances: [psi, js], max_series: 2000}}   # gauges of the last final window; [] leaves features out
"""


def init(
    file: Annotated[Path, typer.Argument(help="Where to write.")] = DEFAULT_CONFIG,
    model: Annotated[str, typer.Option(help="Name of the model.")] = "credit",
) -> None:
    """Write a commented configuration file; an existing one is not touched."""
    if file.exists():
        raise InputError(f"{file} exists; name another file, or remove it")
    file.write_text(TEMPLATE.format(model=model))
    say(f"wrote {file}")


@config.command()
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Say what is wrong with a configuration file and the policies that it names, all at once."""
    from monitor.bootstrap import build_policies  # noqa: PLC0415
    from monitor.config.policy_lint import configured_warnings  # noqa: PLC0415

    found = load_config(config)
    for warning in configured_warnings(found, build_policies(found).default):
        say(f"warning: {warning}")
    for source in found.sources:
        if source.clock == "wall":
            say(f"note: {source.topic}: on a topic with producers' timestamps the future guard also compares with the clock")
    say(f"{config}: ok, {len(found.sources)} sources, {len(found.models)} models")


@config.command()
def show(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the effective configuration; secrets are masked."""
    from monitor.bootstrap import build_rules  # noqa: PLC0415

    found = load_config(config)
    tree: dict[str, Any] = found.model_dump(mode="json", by_alias=True)
    rules = build_rules(found).rules
    tree["rules"] = {
        name: {
            "above": r.above,
            "below": r.below,
            **{change: limit for change, limit in (("drop", r.drop), ("rise", r.rise)) if limit is not None},
            "severity": r.severity,
            "levels": r.levels,
            "windows": r.windows,
            "enabled": r.enabled,
        }
        for name, r in rules.items()
    }
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, text)
    data(text.getvalue().rstrip())
