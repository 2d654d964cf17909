"""A real Alertmanager in the tests: the Debian package's program, on a free loopback port, ended with this process."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.kafka import free_port
from tests.servers import serving

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

CONFIG = """\
route: {{receiver: told, group_by: ["..."], group_wait: 0s, group_interval: 1s, repeat_interval: 12h}}
receivers:
  - name: told
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Alertmanager:
    """Its API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def incidents(self) -> dict[str, str]:
        """Return state (active or suppressed) by incident id of what is not resolved."""
        return {a["annotations"]["incident_id"]: a["status"]["state"] for a in self.ask("/api/v2/alerts")}

    def silence(self, minutes: int = 10, **labels: str) -> str:
        """Silence what has these labels; return the silence's id."""
        now = datetime.now(UTC)
        matchers = [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in labels.items()]
        times = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(minutes=minutes)).isoformat()}
        found: dict[str, str] = self.ask(
            "/api/v2/silences", {"matchers": matchers, **times, "createdBy": "eva", "comment": "moving"}
        )
        return found["silenceID"]

    def expire(self, silence_id: str) -> None:
        request = urllib.request.Request(f"{self.url}/api/v2/silence/{silence_id}", method="DELETE")
        urllib.request.urlopen(request, timeout=5).close()


@contextmanager
def running(folder: Path, receiver_url: str) -> Iterator[Alertmanager]:
    """Run an Alertmanager that tells `receiver_url` of each alert by itself, for as long as the context lasts."""
    assert PROGRAM is not None
    folder.mkdir(exist_ok=True)
    (folder / "alertmanager.yml").write_text(CONFIG.format(url=receiver_url))
    port = free_port()
    command = [
        PROGRAM, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]  # fmt: skip
    found = Alertmanager(port)
    with serving(command, folder / "alertmanager.log", lambda: found.ask("/api/v2/status")):
        yield found
