"""The compiled part (native/), where it is installed; there may have been no compiler, and nothing that is counted depends on it."""

from __future__ import annotations

from typing import Final

try:
    import monitor_native
    from monitor_native import columns, counting, ids
except ImportError:
    _found = None
else:
    _found = getattr(monitor_native, "INTERFACE", 0)

__all__ = ("INTERFACE", "columns", "counting", "ids", "is_available", "why_not")

INTERFACE: Final = 1
"""Of the modules that this program can use: one of another version of it may take other arguments."""

is_available: Final = _found == INTERFACE
"""Whether it is installed, and of this program; its modules are None where it is not."""

if not is_available:
    columns = counting = ids = None  # type: ignore[assignment]


def why_not() -> str | None:
    """Return why it is not used, None where it is."""
    if is_available:
        return None
    if _found is None:
        return "stream-model-monitor-native is not installed"
    return f"stream-model-monitor-native has interface {_found}, this program uses {INTERFACE}: install the one that came with it"
