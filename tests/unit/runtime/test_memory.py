"""What a worker holds in memory is what it needs."""

from __future__ import annotations

import subprocess
import sys


def test_a_worker_does_not_load_what_only_reads_files() -> None:
    """pyarrow alone takes 40 MiB of each worker."""
    program = "import sys, monitor.cli, monitor.runtime.worker; print({'pyarrow', 'pandas', 'polars'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "set()"
