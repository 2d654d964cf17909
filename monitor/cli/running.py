"""`monitor run`, `monitor demo`, and the hidden `monitor worker`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, say
from monitor.config.file import load_config
from monitor.errors import MonitorError


def run(
    config: ConfigPath = DEFAULT_CONFIG,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one per core.")] = 1,
    embedded: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run workers, and start one again that ends: `monitor run --config monitor.yaml --workers 2`."""
    found = load_config(config)
    from monitor.bootstrap import build_policies  # noqa: PLC0415
    from monitor.runtime.supervisor import Supervisor  # noqa: PLC0415
    from monitor.runtime.topics import check_topics  # noqa: PLC0415
    from monitor.runtime.worker import check_environment  # noqa: PLC0415

    build_policies(found)
    check_environment()
    check_topics(found, embedded=embedded)
    say(f"{workers} worker{'s' * (workers > 1)}; metrics at http://{found.http.bind}/metrics")
    command = [sys.executable, "-m", "monitor", "worker", "--config", str(config), *(["--embedded"] if embedded else [])]
    raise typer.Exit(Supervisor([[*command, "--index", str(i)] for i in range(workers)]).run())


def worker(
    config: ConfigPath = DEFAULT_CONFIG,
    index: Annotated[int, typer.Option(min=0, help="Which worker of this machine.")] = 0,
    embedded: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run one worker in this process."""
    found = load_config(config)
    from monitor.runtime.exits import EXIT_CONFIG, end_process, ending  # noqa: PLC0415
    from monitor.runtime.worker import Worker  # noqa: PLC0415

    try:
        Worker(found, index, embedded=embedded).run()
    except MonitorError:
        ending(EXIT_CONFIG)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, supervisor, metrics and log are told
        end_process(f"an error that nobody expected: {error!r}", exc_info=True)


def demo(
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the folder with configuration, state and records.")] = False,
) -> None:
    """Monitor a year of real flights with three injected faults, on an embedded broker."""
    from monitor.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(as_json=json, keep=keep))
