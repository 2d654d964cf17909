"""The compiled part (native/), where it is installed; there may have been no compiler, and nothing that is counted depends on it."""

from __future__ import annotations

from typing import Final

try:
    from monitor_native import columns, counting, ids
except ImportError:
    columns = counting = ids = None  # type: ignore[assignment]

__all__ = ("columns", "counting", "ids", "is_available")

is_available: Final = columns is not None
"""Whether it is installed; its modules are None where it is not."""
