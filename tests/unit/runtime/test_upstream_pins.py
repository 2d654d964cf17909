"""The upstream source that the overrides replace: another version of it must be read again before it is used."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import faust
import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.utils import DefaultSchedulingStrategy

PINS: dict[str, tuple[Any, str]] = {
    "scheduler": (DefaultSchedulingStrategy.iterate, "aa1147fa5c2101b8"),
    "add_gap": (Consumer._add_gap, "4df2573ded7c1c2c"),
    "new_offset": (Consumer._new_offset, "1d2c7ea89a7ad4f1"),
    "revoked": (Consumer.on_partitions_revoked, "d04b7ae72c6fc206"),
    "expire": (Collection._should_expire_keys, "ac578d5af0a404f6"),
    "recovery": (Recovery.on_recovery_completed, "6ef567acf072e46d"),
    "manager": (TableManager.recovery.fget, "f0bf5de78b4c3d23"),
    "stop": (faust.App.on_stop, "bfe5a933defb2324"),
    "heartbeat": (GroupCoordinator._do_heartbeat, "dc1d6632aaa68e96"),
}


def fingerprint(function: Any) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PINS)
def test_what_is_overridden_has_not_changed(name: str) -> None:
    function, expected = PINS[name]
    assert fingerprint(function) == expected, "read the new source, check the override, then pin it anew"


def test_the_version_is_the_one_that_was_read() -> None:
    assert faust.__version__ == "0.15.3"
