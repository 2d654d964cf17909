"""What the libraries log, as events of our own log."""

from __future__ import annotations

import logging

import structlog


class Forward(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        facts = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, **facts)


def forward_libraries(level: int = logging.WARNING) -> None:
    """Send what libraries log at `level` or above to structlog, and nothing anywhere else."""
    root = logging.getLogger()
    root.handlers[:] = [Forward()]
    root.setLevel(level)
