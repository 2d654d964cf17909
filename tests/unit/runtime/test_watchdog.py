from __future__ import annotations

import faulthandler
import subprocess
import sys
import threading
from collections.abc import Hashable
from typing import Any

import pytest

from monitor.runtime import watchdog as module
from monitor.runtime.watchdog import Rule, Watchdog


class Ended(Exception):
    def __init__(self, reason: str, code: int, **facts: Any) -> None:
        super().__init__(reason, code)
        self.facts = facts


class Scene:
    """A worker with two rules, watched by hand."""

    def __init__(self) -> None:
        self.is_waiting = False
        self.loop: dict[str, Hashable] = {"turns": 0}
        self.partitions: dict[str, Hashable] = {}

        def end(reason: str, code: int, **facts: Any) -> None:
            raise Ended(reason, code, **facts)

        rules = (
            Rule("event loop", lambda: self.loop, 5, 80),
            Rule("progress", lambda: self.partitions, 8, 82, can_wait=True),
        )
        self.watchdog = Watchdog(rules, end, lambda: self.is_waiting, held_s=60)

    def look(self, times: int, elapsed_s: float = 1.0) -> None:
        for _ in range(times):
            self.watchdog.look(elapsed_s)


def test_what_moves_is_left_alone_however_slowly_it_moves() -> None:
    scene = Scene()
    for turn in range(20):
        scene.loop = {"turns": turn}
        scene.look(5)


def test_what_stands_still_ends_the_process_with_its_own_code_and_says_where_the_loop_is() -> None:
    scene = Scene()
    scene.look(6)
    with pytest.raises(Ended, match=r"event loop: turns stood still for 6 s.*80") as caught:
        scene.look(1)
    assert any("test_watchdog.py" in line for line in caught.value.facts["stack"])


def test_one_partition_that_stands_still_is_seen_beside_one_that_moves() -> None:
    scene = Scene()

    def look(turn: int) -> None:
        scene.loop = {"turns": turn}
        scene.partitions = {"t/0": turn, "t/1": 7}
        scene.look(1)

    for turn in range(9):
        look(turn)
    with pytest.raises(Ended, match="progress: t/1 stood still for 9 s"):
        look(9)


def test_what_is_not_waited_for_any_more_begins_anew_when_it_is() -> None:
    scene = Scene()
    for turn in range(40):
        scene.loop = {"turns": turn}
        scene.partitions = {"t/0": 7} if turn % 8 else {}
        scene.look(1)


def test_who_waits_on_purpose_is_left_alone_and_its_time_runs_from_the_end_of_that() -> None:
    scene = Scene()
    scene.partitions = {"t/0": 7}
    for turn in range(40):
        scene.loop = {"turns": turn}
        scene.is_waiting = turn < 30
        if turn < 38:
            scene.look(1)
    with pytest.raises(Ended, match="progress"):
        scene.look(1)


def test_a_loop_that_does_not_turn_has_no_excuse() -> None:
    scene = Scene()
    scene.is_waiting = True
    with pytest.raises(Ended, match="event loop"):
        scene.look(10)


def test_a_pause_of_the_whole_process_is_not_held_against_it() -> None:
    """After SIGSTOP or a machine's sleep the loop has had no time either."""
    scene = Scene()
    scene.look(2)
    scene.look(1, elapsed_s=3_600)
    scene.loop = {"turns": 1}
    scene.look(5)


def test_a_question_that_fails_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    said: list[str] = []

    def end(reason: str) -> None:
        said.append(reason)
        raise SystemExit

    def unknown() -> dict[str, Hashable]:
        raise RuntimeError("?")

    thread = Watchdog((Rule("x", unknown, 9, 1),), end, lambda: False, held_s=60)
    try:
        with pytest.raises(SystemExit):
            thread.run()
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert said == ["the watchdog failed: RuntimeError('?')"]
    assert threading.current_thread() is not thread


def test_an_interpreter_that_is_held_ends_too() -> None:
    """`re` holds the interpreter's lock for hours here: no thread of Python gets a turn."""
    code = (
        "import re, time\n"
        "from monitor.runtime.watchdog import Rule, Watchdog\n"
        "Watchdog((Rule('event loop', lambda: {}, 60, 80),), print, lambda: False, held_s=2).start()\n"
        "time.sleep(0.2)\n"
        "re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
