"""What the page to read first promises about itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pipeline_imports_no_broker() -> None:
    code = "import sys, monitor.pipeline; print(*[m for m in sys.modules if m.split('.')[0] in ('faust', 'confluent_kafka', 'aiokafka')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_pipeline_is_a_page() -> None:
    assert len((ROOT / "monitor/pipeline.py").read_text().splitlines()) <= 150


def test_the_import_contracts_have_no_exceptions() -> None:
    assert "ignore_imports" not in (ROOT / "pyproject.toml").read_text()
