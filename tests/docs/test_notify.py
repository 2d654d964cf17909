"""docs/notify.md names all there is, and its example is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitor.config.file import load_config
from monitor.config.notify import LINK_FIELDS, Alertmanager, Match, Notify, Owner, RouteConfig
from monitor.notify.receivers import OF_THE_ALERT
from monitor.notify.telemetry import METRICS

PAGE = (Path(__file__).parents[2] / "docs/notify.md").read_text()


@pytest.mark.parametrize("node", [Alertmanager, Match, Notify, Owner, RouteConfig])
def test_every_key_is_in_the_example_or_beside_it(node: type) -> None:
    missing = [name for name in node.model_fields if not re.search(rf"\b{name}\b", PAGE)]  # type: ignore[attr-defined]
    assert missing == []


def test_every_metric_status_and_field_of_the_link_is_named() -> None:
    assert [metric.name for metric in METRICS if metric.name not in PAGE] == []
    assert f"| {', '.join(map(str, sorted(OF_THE_ALERT)))} |" in PAGE
    assert [name for name in LINK_FIELDS if f"{{{name}}}" not in PAGE] == []


def test_the_example_is_valid(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "monitor.yaml").write_text(found[1])
    assert set(load_config(tmp_path / "monitor.yaml", {}).notify.routes) == {"alertmanager", "tickets", "on-call"}
