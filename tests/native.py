"""The compiled part (native/): tests of it are skipped where it could not be built, unless it is required."""

from __future__ import annotations

import os

import pytest

from monitor.compiled import is_available

REQUIRED = os.environ.get("REQUIRE_NATIVE") == "1"

needs_native = pytest.mark.skipif(not is_available and not REQUIRED, reason="monitor_native is not installed: it had no compiler")
