"""docker-compose.yml against the compose schema (from the docker-compose package), and the files it mounts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from monitor.config.file import load_config

ROOT = Path(__file__).parents[2]
COMPOSE = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def schema() -> dict:
    folder = ROOT / ".cache" / "compose-schema"
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", "-d", str(folder)]
        subprocess.run([*command, "docker-compose==1.29.2"], check=True, timeout=120)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        found = json.loads(wheel.read("compose/config/compose_spec.json"))
    found.pop("$schema")  # names a draft that no longer exists under that address
    return found


def test_it_is_a_valid_compose_file(schema: dict) -> None:
    jsonschema.validate(COMPOSE, schema)


def test_every_file_it_mounts_exists_and_every_service_it_waits_for_too() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])


def test_the_mounted_configuration_is_valid() -> None:
    config = load_config(ROOT / "deploy/monitor.yaml", {})
    assert (config.http.bind, config.notify.bind) == ("0.0.0.0:9464", "0.0.0.0:9474")
    assert [route.receiver for route in config.notify.routes.values()] == ["alertmanager"]


def test_prometheus_accepts_its_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    subprocess.run(["promtool", "check", "config", str(ROOT / "deploy/prometheus.yml")], check=True, timeout=30)


def test_alertmanager_accepts_its_configuration() -> None:
    if shutil.which("amtool") is None:
        pytest.skip("amtool is not installed")
    subprocess.run(["amtool", "check-config", str(ROOT / "deploy/alertmanager.yml")], check=True, timeout=30)
