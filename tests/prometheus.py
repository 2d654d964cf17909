"""A real Prometheus in the tests, with the alert rules of deploy/: the Debian package's program, on a free loopback port."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kafka import free_port
from tests.servers import serving

PROGRAM = shutil.which("prometheus")

CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs: [{{job_name: monitor, static_configs: [{{targets: ["{target}"]}}]}}]
"""


class Prometheus:
    """Its API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    def firing(self) -> list[dict[str, Any]]:
        """Return the alerts that fire, with labels and annotations."""
        return [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]


@contextmanager
def running(folder: Path, target: str, rules: str) -> Iterator[Prometheus]:
    """Run a Prometheus that asks `target` (host:port) each second, for as long as the context lasts."""
    assert PROGRAM is not None
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
    (folder / "alerts.yml").write_text(rules)
    port = free_port()
    command = [
        PROGRAM, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    found = Prometheus(port)
    with serving(command, folder / "prometheus.log", lambda: found.ask("status/runtimeinfo")):
        yield found
