"""The compiled part is used where it is of this program, and left alone otherwise."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from monitor import compiled

NATIVE = Path(__file__).parents[2] / "native" / "monitor_native"
STUBS = {1: "edd8421c05a2bedfbcbd661e008b21e8c8679861562e446bc9a9b3665850c892"}
"""Interface → SHA-256 of the stubs of its modules. A changed stub asks for a new number, here, in native/ and in monitor/compiled.py."""


def test_a_change_of_what_the_modules_take_raises_the_number() -> None:
    assert runpy.run_path(str(NATIVE / "__init__.py"))["INTERFACE"] == compiled.INTERFACE == max(STUBS)
    stubs = b"".join(path.read_bytes() for path in sorted(NATIVE.glob("*.pyi")))
    assert hashlib.sha256(stubs).hexdigest() == STUBS[compiled.INTERFACE]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("raise ImportError", "stream-model-monitor-native is not installed"),
        ("columns = counting = ids = 1", "has interface 0, this program uses"),
        ("columns = counting = ids = 1; INTERFACE = 99", "has interface 99, this program uses"),
    ],
)
def test_modules_that_are_missing_or_of_another_version_are_not_used(made: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "monitor_native.py").write_text(made)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from monitor import compiled\n"
        "print(compiled.is_available, compiled.columns, compiled.ids, compiled.why_not())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False None None ") and why in done.stdout
