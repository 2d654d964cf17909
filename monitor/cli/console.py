"""Where commands write: data to standard output, words to standard error, colours and bars on a terminal only."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

ERR = Console(stderr=True, highlight=False)

ConfigPath = Annotated[Path, typer.Option("--config", help="Configuration file.")]
DEFAULT_CONFIG = Path("monitor.yaml")


def log_json() -> None:
    """Send logs to standard error, one JSON object a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def say(text: str) -> None:
    """Write a line for people."""
    ERR.print(text, soft_wrap=True)


def data(line: str | bytes) -> None:
    """Write a line of data."""
    sys.stdout.buffer.write((line.encode() if isinstance(line, str) else line) + b"\n")
    sys.stdout.buffer.flush()
