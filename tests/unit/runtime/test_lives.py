from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.runtime.exits import EXIT_CONFIG, EXIT_CRASH, EXIT_LOOP, EXIT_OWNERSHIP, REASONS, reason_of
from monitor.runtime.lives import FILE, SIZE, Lives


def test_each_life_counts_how_the_one_before_it_ended(tmp_path: Path) -> None:
    assert Lives(tmp_path).restarts == {}
    second = Lives(tmp_path)  # the first one said nothing
    assert second.restarts == {"killed": 1}
    second.ended(EXIT_LOOP)
    third = Lives(tmp_path)
    assert third.restarts == {"killed": 1, "loop": 1}
    third.ended(EXIT_LOOP)
    assert Lives(tmp_path).restarts == {"killed": 1, "loop": 2}


def test_a_clean_stop_is_no_restart(tmp_path: Path) -> None:
    Lives(tmp_path).ended(0)
    assert Lives(tmp_path).restarts == {}


def test_the_last_word_takes_no_room_on_a_disk_that_is_full(tmp_path: Path) -> None:
    life = Lives(tmp_path)
    assert (tmp_path / FILE).stat().st_size == SIZE
    for code in REASONS:
        life.ended(code)
        life = Lives(tmp_path)
        assert (tmp_path / FILE).stat().st_size == SIZE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"last": "loop"}', b'{"last": "loop", "restarts": {"loop": []}}']
)
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert Lives(tmp_path).restarts == {}
    assert Lives(tmp_path).restarts == {"killed": 1}


def test_a_process_that_ends_itself_leaves_its_reason(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from monitor.runtime.exits import before_end, end_process\n"
        "from monitor.runtime.lives import Lives\n"
        "before_end(Lives(Path(sys.argv[1])).ended)\n"
        f"end_process('no heartbeat', {EXIT_OWNERSHIP})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_OWNERSHIP
    assert "no heartbeat" in done.stdout + done.stderr
    assert Lives(tmp_path).restarts == {"ownership": 1}


def test_each_exit_code_has_a_word_of_its_own() -> None:
    assert len(set(REASONS.values())) == len(REASONS)
    assert reason_of(-15) == "killed by SIGTERM"
    assert reason_of(139) == "crash"
    assert all(0 <= code < 128 for code in REASONS)
    assert os.EX_CONFIG in REASONS


@pytest.mark.parametrize(
    ("error", "code", "word", "has_trace"),
    [
        ("RuntimeError('out of the blue')", EXIT_CRASH, "crash", True),
        ("StateMismatch('out of the blue')", EXIT_CONFIG, "configuration", False),
        ("ConfigError('out of the blue')", EXIT_CONFIG, "configuration", False),
    ],
)
def test_a_worker_that_cannot_start_leaves_a_word_and_the_trace_of_what_nobody_expected(
    error: str, code: int, word: str, has_trace: bool, tmp_path: Path
) -> None:
    (tmp_path / "monitor.yaml").write_text("sources: [{topic: events}]\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from monitor.cli import main\n"
        "from monitor.errors import ConfigError, StateMismatch\n"
        "from monitor.runtime import worker\n"
        "folder = Path(sys.argv[1])\n"
        "def broken(*_, **__):\n"
        "    worker.begin_life(folder)\n"
        f"    raise {error}\n"
        "worker.Worker = broken\n"
        "sys.argv[1:] = ['worker', '--config', str(folder / 'monitor.yaml')]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "out of the blue" in done.stderr and ("in broken" in done.stderr) is has_trace
    assert Lives(tmp_path).restarts == {word: 1}
