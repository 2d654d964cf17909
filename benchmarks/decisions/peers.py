"""Other tools on the same streams, each in a virtual environment of its own under `.cache/peers`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.decisions.streams import Array
from benchmarks.environments import python_with
from monitor.columns import Int

PEERS = {
    "Evidently 0.7.23": ("evidently", ["evidently==0.7.23", "pandas<2.3"]),
    "NannyML 0.13.1": ("nannyml", ["nannyml==0.13.1", "statsmodels"]),
}
"""Name → script and folder, what pip installs."""

Column = tuple[Array, Array]
"""A feature's reference rows (m,), and its windows (w, n)."""


def install() -> dict[str, Path]:
    """Return the interpreters of the tools that pip can install, by name; say of the others that they are left out."""
    found = {}
    for name, (script, packages) in PEERS.items():
        try:
            found[name] = python_with(script, packages)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def flags(pythons: dict[str, Path], columns: Sequence[Column]) -> dict[str, list[list[bool]]]:
    """Return per tool a flag of each column and window."""
    return _asked(
        pythons,
        {f"{kind}_{i}": part for i, column in enumerate(columns) for kind, part in zip(("ref", "win"), column, strict=True)},
    )


def daily_flags(
    pythons: dict[str, Path], reference: Sequence[Array], rows: Sequence[Array], reference_rows: Int, window_rows: Int
) -> dict[str, list[list[bool]]]:
    """Return them of windows that differ in length; by column all rows of the reference, (m,), and of the windows, (n,)."""
    arrays = {f"{kind}_{i}": part for kind, parts in (("ref", reference), ("win", rows)) for i, part in enumerate(parts)}
    return _asked(pythons, arrays | {"reference_rows": reference_rows, "window_rows": window_rows})


def _asked(pythons: dict[str, Path], arrays: Mapping[str, Array]) -> dict[str, list[list[bool]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        np.savez(path, **arrays)
        found = {}
        for name, python in pythons.items():
            script = Path(__file__).with_name(f"peer_{PEERS[name][0]}.py")
            made = subprocess.run([python, script, path], capture_output=True, text=True, check=True)
            found[name] = json.loads(made.stdout.splitlines()[-1])
        return found
