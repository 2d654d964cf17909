"""The `monitor` command. Standard output is data, standard error is for people.

Exit codes: 0 ok, 1 findings (where asked for), 2 usage, 78 configuration or environment.
"""

from __future__ import annotations

import sys

import typer

from monitor.cli import backtest, configuration, kafka, notify, policy, reference, replay, running, state
from monitor.cli.console import log_json
from monitor.errors import ConfigError, InputError, MonitorError

app = typer.Typer(
    name="monitor",
    help="A streaming monitor for machine-learning models on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(configuration.init)
app.add_typer(configuration.config, name="config")
app.add_typer(reference.reference, name="reference")
app.command()(replay.replay)
app.add_typer(policy.policy, name="policy")
app.command()(backtest.backtest)
app.add_typer(kafka.topics, name="topics")
app.command()(kafka.tail)
app.command()(kafka.traffic)
app.command()(running.run)
app.add_typer(state.state, name="state")
app.command(hidden=True)(running.worker)
app.add_typer(notify.notify, name="notify")
app.command(hidden=True)(notify.notifier)
app.command()(notify.ack)
app.command()(running.demo)


def main() -> None:
    """Run the command; a user's mistake is one sentence per problem and an exit code, never a traceback."""
    log_json()
    try:
        app()
    except (ConfigError, InputError, MonitorError) as error:
        for line in str(error).splitlines():
            print(f"monitor: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, InputError) else 78)
    except KeyboardInterrupt:
        sys.exit(130)
