"""`monitor notify`, `monitor notify status`, `monitor ack`, and the hidden `monitor notifier`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, data, say
from monitor.config.file import load_config

notify = typer.Typer(help="Tell Alertmanager, webhooks and people of alerts.")


@notify.callback(invoke_without_command=True)
def run(context: typer.Context, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Tell Alertmanager, webhooks and people of alerts, as `notify:` says: `monitor notify --config monitor.yaml`."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    found = load_config(config)
    from monitor.notify.notifier import check_routes  # noqa: PLC0415
    from monitor.runtime.supervisor import Supervisor  # noqa: PLC0415

    routes = check_routes(found)
    say(f"{len(routes)} route{'s' * (len(routes) > 1)}; metrics at http://{found.notify.bind}/metrics")
    raise typer.Exit(Supervisor([[sys.executable, "-m", "monitor", "notifier", "--config", str(config)]]).run())


@notify.command()
def status(
    context: typer.Context, config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None
) -> None:
    """Print what fires, who looks after it, what is silenced, and how far each route has come: for people on a terminal, else JSON lines."""
    from monitor.notify.status import open_incidents, route_positions, silences_now  # noqa: PLC0415

    found = load_config(config or context.obj)
    silences, problem = silences_now(found)
    if problem is not None:
        say(f"silences are not known: {problem}")
    for record in (*open_incidents(found, silences), *route_positions(found)):
        data(line(record) if sys.stdout.isatty() else orjson.dumps(record))


def line(record: dict[str, Any]) -> str:
    """Return one line for people about an incident or a route."""
    if "route" in record:
        waits = f", {record['withheld']} held back by silences" if record["withheld"] else ""
        state = f"{record['behind']} to deliver{waits}" if record["started"] else "never ran"
        return f"route {record['route']} ({record['receiver']}): {state}" + ("" if record["enabled"] else ", switched off")
    labels = record["labels"]
    where = " ".join(
        labels[name] for name in ("model", "version", "alertname", "feature", "view", "segment", "window") if name in labels
    )
    ack, silence = record["acknowledged"], record["silenced"]
    return (
        f"{record['incident_id'][:12]} {record['since']} {labels['severity']:8} {where}"
        + (f"; {ack['by']} looks after it since {ack['at']} {ack['comment']}".rstrip() if ack else "")
        + (f"; silenced by {silence['by']}: {silence['comment']}" if silence else "")
    )


def notifier(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run all routes in this process."""
    found = load_config(config)
    from monitor.notify.notifier import Notifier  # noqa: PLC0415

    Notifier(found).run()


def ack(
    alert: Annotated[str, typer.Argument(help="Id of an alert or incident, or its first characters, at least 8.")],
    config: ConfigPath = DEFAULT_CONFIG,
    by: Annotated[str | None, typer.Option(help="Who looks after it; the user if left out.")] = None,
    comment: Annotated[str, typer.Option(help="What is to be known about it.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
) -> None:
    """Say that somebody looks after an incident: people are not told of it again until it resolves."""
    from monitor.notify.status import acknowledge  # noqa: PLC0415

    incident_id = acknowledge(load_config(config), alert, by=by, comment=comment, is_undo=undo)
    data(incident_id)
    say("taken back" if undo else "people are not told of it again until it resolves")
