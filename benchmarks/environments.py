"""Environments of other tools, made once under `.cache/peers`; none of them is the project's own, and none is on its path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SILENT = {"WHYLOGS_NO_ANALYTICS": "True", "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
"""Environment that keeps tools from telling their makers that they were used."""

FOLDER = Path(__file__).parents[1] / ".cache" / "peers"


def python_with(module: str, packages: list[str]) -> Path:
    """Return the interpreter of a virtual environment that has a module. Raises OSError, CalledProcessError where pip cannot install it."""
    python = FOLDER / module / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / module)], check=True)
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def java_classes(project: Path) -> str:
    """Build a Maven project into `.cache/peers/NAME`, as its pom says; return the class path. Raises OSError, CalledProcessError."""
    folder = FOLDER / project.name
    if not (folder / "classes").is_dir() or not (folder / "dependency").is_dir():
        command = ["mvn", "-q", "-B", "-f", str(project / "pom.xml"), "compile", "dependency:copy-dependencies"]
        subprocess.run([*command, "-DincludeScope=runtime"], check=True, timeout=300)
    return f"{folder / 'classes'}:{folder / 'dependency'}/*"


def tool(name: str, package: str) -> Path:
    """Return a program that a package brings. Raises OSError, CalledProcessError where pip cannot install it."""
    program = FOLDER / name / "bin" / name
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / name)], check=True)
        subprocess.run([program.with_name("python"), "-m", "pip", "install", "--quiet", package], check=True)
    return program
