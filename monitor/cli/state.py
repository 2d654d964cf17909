"""`monitor state info|verify`: what the workers' local stores on this machine hold, and whether it is as it was written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich import box
from rich.table import Table

from monitor.cli.console import DEFAULT_CONFIG, ERR, ConfigPath, data, say
from monitor.config.file import load_config

if TYPE_CHECKING:
    from monitor.runtime.state_files import StoreState

state = typer.Typer(help="Look at the state that workers keep on this machine; nothing is changed.", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option("--dir", help="A state directory; left out: state.dir of the configuration.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines in place of a table.")]
MAX_SHOWN = 20


@state.command()
def info(config: ConfigPath = DEFAULT_CONFIG, folder: Folder = None, as_json: AsJson = False) -> None:
    """List local stores: rows by kind, bytes, offsets, codec, layouts, age."""
    from monitor.runtime.state_files import read_states  # noqa: PLC0415

    found = [facts(each) for each in read_states(_folder(config, folder))]
    if as_json:
        for each in found:
            data(orjson.dumps(each))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for name in ("store", "rows", "KiB", "source", "changelog", "codec", "layouts", "age"):
        table.add_column(name, overflow="fold")
    for each in found:
        kinds = ", ".join(f"{n} {kind}" for kind, n in each["rows"].items())
        age = "" if each["age_s"] is None else f"{each['age_s']:.0f} s"
        table.add_row(
            f"{each['worker']} {each['table']}/{each['partition']}", kinds, f"{each['bytes'] / 1024:,.0f}", str(each["hi"]),
            str(each["offset"]), ", ".join(each["codecs"]), ", ".join(sha[:8] for sha in each["layouts"]), age,
        )  # fmt: skip
    ERR.print(table)
    say(f"{len(found)} stores; source: last offset that meta covers, changelog: last offset that the store holds")


@state.command()
def verify(
    config: ConfigPath = DEFAULT_CONFIG,
    folder: Folder = None,
    changelog: Annotated[bool, typer.Option(help="Compare with the changelogs too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether every row decodes, fits its checksum and layout, and agrees with the others; exit 1 if not, 78 for a later version's."""
    from monitor.runtime.state_files import compare_with_changelogs, read_states  # noqa: PLC0415

    states = read_states(_folder(config, folder))
    if changelog:
        compare_with_changelogs(load_config(config), states)
    n_rows = n_problems = 0
    for each in states:
        problems = list(each.all_problems())
        n_rows, n_problems = n_rows + len(each.held.rows), n_problems + len(problems)
        if as_json:
            data(orjson.dumps(facts(each) | {"problems": problems}))
        else:
            for problem in problems[:MAX_SHOWN]:
                data(f"{each.worker} {each.table}/{each.partition}: {problem}")
    say(f"{len(states)} stores, {n_rows:,} rows, {n_problems} problems")
    if any(each.held.is_of_later_version for each in states):
        raise typer.Exit(78)
    if n_problems:
        raise typer.Exit(1)


def _folder(config: Path, folder: Path | None) -> Path:
    return folder if folder is not None else Path(load_config(config).state.dir)


def facts(each: StoreState) -> dict[str, Any]:
    """Return what is known of a store, as JSON has it."""
    rows = each.held.rows
    return {
        "worker": each.worker,
        "table": each.table,
        "partition": each.partition,
        "path": str(each.path),
        "bytes": each.n_bytes,
        "rows": dict(sorted(Counter(row.kind for row in rows).items())),
        "hi": each.held.hi,
        "changelog": each.changelog,
        "offset": each.offset,
        "age_s": each.age_s,
        "codecs": {str(codec): n for codec, n in sorted(Counter(row.codec for row in rows).items())},
        "epochs": sorted({row.epoch for row in rows}),
        "layouts": sorted({sha for row in rows for sha in row.layouts}),
    }
