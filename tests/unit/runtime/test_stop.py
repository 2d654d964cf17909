"""A stop that hangs is ended by force: sooner where nothing is owned."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from monitor.runtime import worker as module
from monitor.runtime.exits import EXIT_SLOW_STOP
from monitor.runtime.readiness import Readiness


@pytest.mark.parametrize(("owns", "after_s", "code"), [(True, module.STOP_S, EXIT_SLOW_STOP), (False, module.IDLE_STOP_S, 0)])
def test_a_stop_that_hangs_is_ended_by_force(owns: bool, after_s: float, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    readiness, slept, ended = Readiness(), list[float](), list[int]()
    readiness.ask("assignment", lambda: None if owns else "no partitions are assigned yet")

    def end(_: str, with_code: int) -> None:
        ended.append(with_code)
        raise SystemExit

    monkeypatch.setattr(module, "end_process", end)
    monkeypatch.setattr(module.time, "sleep", slept.append)
    process: Any = SimpleNamespace(should_stop=True, app=SimpleNamespace(readiness=readiness))
    with pytest.raises(SystemExit):
        module._end_by_force(process)
    assert (slept, ended) == ([after_s], [code])


def test_what_another_thread_has_for_a_loop_that_has_ended_is_nobodys() -> None:
    """A record of the references that comes while a worker stops must not end it with 70."""
    worker = module.Worker.__new__(module.Worker)
    worker._loop = asyncio.new_event_loop()
    called: list[int] = []
    worker._call_soon(called.append, 1)
    worker._loop.call_soon(worker._loop.stop)
    worker._loop.run_forever()
    worker._loop.close()
    worker._call_soon(called.append, 2)
    assert called == [1]
