"""What a worker holds in memory is what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from monitor.runtime import memory
from monitor.runtime.memory import MemoryWatch, Trimmer

MIB = 1 << 20


def test_a_worker_does_not_load_what_only_reads_files() -> None:
    """pyarrow alone takes 40 MiB of each worker."""
    program = "import sys, monitor.cli, monitor.runtime.worker; print({'pyarrow', 'pandas', 'polars'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "set()"


def test_the_parts_that_state_memory_is_divided_into_leave_half_of_it() -> None:
    """For references, panes, windows and the program."""
    for limit in (128 * MIB, 512 * MIB, 8 << 30):
        batches = 2 * memory.max_batches(limit) * memory.FETCH_BYTES
        assert memory.stores_limit(limit) + memory.waiting_limit(limit) + batches <= limit // 2


def test_what_no_part_has_is_told_as_other() -> None:
    parts = MemoryWatch(100).look(90, {"stores": 30, "panes": 10})
    assert parts == {"stores": 30, "panes": 10, "other": 50}


def test_a_limit_that_is_passed_is_told_once_each_time_with_the_part_that_takes_most() -> None:
    watch = MemoryWatch(100)
    with capture_logs() as said:
        for resident in (100, 101, 150, 90, 120):
            watch.look(resident, {"stores": 30, "panes": 60})
    assert [(one["event"], one["log_level"], one["part"], one["resident"]) for one in said] == [
        ("memory_beyond_limit", "warning", "panes", 101),
        ("memory_beyond_limit", "warning", "panes", 120),
    ]


def test_freed_memory_goes_back_to_the_machine() -> None:
    held = [bytes(100_000) for _ in range(2_000)]
    keep = held[::50]  # so that the heap cannot just shrink from its end
    del held
    before = memory.resident_bytes()
    memory.trim()
    assert len(keep) == 40
    assert memory.resident_bytes() <= before


def test_it_does_whenever_the_process_has_grown_by_a_sixteenth_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = iter([300, 331, 332, 280, 311, 290, 312])
    monkeypatch.setattr(memory, "resident_bytes", lambda: next(takes))
    monkeypatch.setattr(memory, "trim", lambda: None)
    trimmer = Trimmer(limit=512)
    assert [trimmer.is_due, trimmer.is_due, trimmer.is_due] == [False, False, True]
    trimmer.trim()
    assert [trimmer.is_due, trimmer.is_due, trimmer.is_due, trimmer.is_due] == [False, False, False, True]


def test_what_is_taken_again_at_once_was_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    takes, n_trims = iter([300, 340, 338, 341, 339, 371]), 0
    monkeypatch.setattr(memory, "resident_bytes", lambda: next(takes))
    monkeypatch.setattr(memory, "trim", lambda: None)
    trimmer = Trimmer(limit=512)
    for _ in range(6):
        if trimmer.is_due:
            trimmer.trim()
            n_trims += 1
    assert n_trims == 2
