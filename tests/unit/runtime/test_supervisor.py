from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monitor.runtime import supervisor
from monitor.runtime.supervisor import Backoff, Supervisor

RUN = """
import sys
from monitor.runtime.supervisor import Supervisor
sys.exit(Supervisor([[sys.executable, "-c", code] for code in sys.argv[1:]]).run())
"""


def supervise(*codes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, *codes])


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(path: Path, n: int) -> list[str]:
    deadline = time.monotonic() + 15
    while len(lines(path)) < n and time.monotonic() < deadline:
        time.sleep(0.05)
    return lines(path)


def test_an_unusable_configuration_ends_everything_with_78(tmp_path: Path) -> None:
    sign = tmp_path / "other"
    other = f"import signal, time, sys\nsignal.signal(15, lambda *_: (open({str(sign)!r}, 'w').write('ended'), sys.exit(0)))\ntime.sleep(60)"
    process = supervise(other, "import time, sys; time.sleep(1); sys.exit(78)")
    assert process.wait(20) == 78
    assert sign.read_text() == "ended"


def test_a_dead_worker_is_started_again(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    process = supervise(f"open({str(starts)!r}, 'a').write('x\\n'); import os; os._exit(70)")
    assert len(wait_for_lines(starts, 3)) >= 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "told"
    code = (
        "import signal, sys, time\n"
        f"def end(*_):\n    time.sleep(0.5)\n    open({str(told)!r}, 'a').write('ended\\n')\n    sys.exit(0)\n"
        f"signal.signal(15, end)\nopen({str(told)!r}, 'a').write('started\\n')\ntime.sleep(60)\n"
    )
    process = supervise(code)
    wait_for_lines(told, 1)
    process.send_signal(number)
    assert process.wait(20) == 0
    assert lines(told) == ["started", "ended"]


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    process = supervise(f"import time\nwhile True:\n    open({str(beats)!r}, 'a').write('x\\n')\n    time.sleep(0.05)")
    wait_for_lines(beats, 2)
    process.kill()
    process.wait(10)
    time.sleep(0.3)
    before = len(lines(beats))
    time.sleep(0.3)
    assert len(lines(beats)) == before


def test_waits_double_up_to_a_limit_and_shrink_again_after_a_healthy_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])

    class Ended:
        def poll(self) -> int:
            return 70

    keeper = Supervisor([["x"]])

    def dies(after_s: float) -> float:
        keeper._processes[0] = Ended()  # type: ignore[call-overload]
        keeper._started[0] = clock[0]
        clock[0] += after_s
        keeper._look(0)
        return keeper._next[0] - clock[0]

    assert [round(dies(1), 1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert dies(61) == 0.5


def test_an_outage_of_the_brokers_makes_no_worker_wait_for_long() -> None:
    backoff = Backoff()
    assert [backoff.after(code, lived_s=10) for code in (83, 75, 75, 75, 75, 75, 83)] == [0.5, 1, 2, 4, 5, 5, 5]
    assert backoff.after(70, lived_s=1) == 10
