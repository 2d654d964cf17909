"""The README's path from an own CSV to the first alert, run as it is written."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DAY_MS = 86_400_000
START_MS = 1_735_689_600_000


def block(heading: str) -> str:
    """Return the shell block under a heading."""
    section = README.split(f"## {heading}")[1].split("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def write_rows(path: Path, start_ms: int, older_by: int) -> None:
    dice = random.Random(start_ms)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["time", "age", "income", "country", "prediction"])
        for i in range(20_000):
            income = "" if dice.random() < 0.02 else round(dice.lognormvariate(10, 0.5), 2)
            country, answer = dice.choice(["DE", "FR", "US"]), dice.choice(["paid", "default"])
            out.writerow([start_ms + i * DAY_MS // 10_000, dice.randint(18, 90) + older_by, income, country, answer])


def test_the_path_from_an_own_csv_to_the_first_alert(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", START_MS, 0)
    write_rows(tmp_path / "new.csv", START_MS + 30 * DAY_MS, 15)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", block("From your own CSV to the first alert, without Kafka")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alerts = [json.loads(line) for line in (tmp_path / "alerts.ndjson").read_text().splitlines()]
    assert {a["data"]["feature"] for a in alerts if a["data"]["severity"] != "notice"} == {"age"}
    results = [json.loads(line) for line in (tmp_path / "results.ndjson").read_text().splitlines()]
    assert sum(r["n"] for r in results if r["window"]["size_ms"] == 3_600_000) == 20_000


def test_every_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from monitor.cli import app

    root = get_command(app)
    for line in (block("From your own CSV to the first alert, without Kafka") + block("At your own Kafka")).splitlines():
        words = line.split()
        if words and words[0] == "monitor":
            command = root.commands[words[1]]  # type: ignore[attr-defined]
            options = getattr(command, "commands", {}).get(words[2] if len(words) > 2 else "", command).params
            known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
            assert {word for word in words if word.startswith("-")} <= known, line
