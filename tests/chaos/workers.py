"""Worker processes and their supervisor, which the experiment can order about; and a scraper of their counters."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from monitor.runtime.supervisor import Backoff, die_with_parent

SCRAPE_S = 1.0
STOP_S = 40
Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A counter's name and labels."""


class Workers:
    """Processes by index; one that ends by itself is started again with the supervisor's back-off.

    command: how a worker is started, up to its options. config_of: the configuration file of an index.
    """

    def __init__(self, command: Sequence[str], config_of: Callable[[int], Path], folder: Path) -> None:
        self._command = command
        self._config_of = config_of
        self._folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.exits: list[tuple[int, int]] = []
        """(index, code) of those that ended by themselves."""
        self._started: dict[int, float] = {}
        self._backoff: dict[int, Backoff] = defaultdict(Backoff)
        self._due: dict[int, float] = {}

    @property
    def indexes(self) -> list[int]:
        """Those that are meant to run, the oldest first."""
        return list(self._started)

    def start(self, index: int) -> None:
        """Start a worker."""
        command = [*self._command, "worker", "--config", str(self._config_of(index)), "--index", str(index)]
        with (self._folder / f"worker-{index}.log").open("ab") as out:
            self.processes[index] = subprocess.Popen(command, stderr=out, stdout=out, preexec_fn=die_with_parent)
        self._started[index] = time.monotonic()
        self._due.pop(index, None)

    def revive(self) -> None:
        """Start those again that have ended by themselves, when it is time."""
        now = time.monotonic()
        for index, process in list(self.processes.items()):
            if process.poll() is None:
                continue
            if index not in self._due:
                self.exits.append((index, process.returncode))
                self._due[index] = now + self._backoff[index].after(process.returncode, now - self._started[index])
            elif now >= self._due[index]:
                self.start(index)

    def kill(self, index: int) -> None:
        """SIGKILL, and start again."""
        self.processes[index].kill()
        self.processes[index].wait()
        self.start(index)

    def wipe(self, index: int) -> None:
        """SIGKILL, take its disk, and start again."""
        self.processes[index].kill()
        self.processes[index].wait()
        shutil.rmtree(self._folder / "state" / f"worker-{index}", ignore_errors=True)
        self.start(index)

    def stop(self, index: int, number: int = signal.SIGTERM) -> None:
        """Ask a worker to end, wait for it, and leave it so."""
        process = self.processes.pop(index)
        self._started.pop(index)
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self) -> None:
        """Stop all."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for index in self.indexes:
            self.stop(index)


class Scraper(threading.Thread):
    """Reads every worker's counters once a second, and notes one that falls within a process.

    newest: by process id. fallen: what fell.
    """

    def __init__(self, workers: Workers, first_port: int) -> None:
        super().__init__(daemon=True)
        self._workers = workers
        self._first_port = first_port
        self._stopping = threading.Event()
        self.newest: dict[int, dict[Sample, float]] = {}
        self.fallen: list[str] = []

    def run(self) -> None:
        while not self._stopping.wait(SCRAPE_S):
            self.scrape()

    def stop(self) -> None:
        """End the thread, after a last look."""
        self._stopping.set()
        self.join(30)
        self.scrape()

    def scrape(self) -> None:
        """Look at every worker now."""
        for index, process in list(self._workers.processes.items()):
            if process.poll() is not None:
                continue
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._first_port + index}/metrics", timeout=2) as answer:
                    text = answer.read().decode()
            except (OSError, HTTPException):
                continue  # it starts, is paused, or has just ended, in the middle of its answer perhaps
            if process.poll() is None:
                self._compare(process.pid, index, text)

    def _compare(self, pid: int, index: int, text: str) -> None:
        families = text_string_to_metric_families(text)
        samples = [s for family in families if family.type == "counter" for s in family.samples if s.name.endswith("_total")]
        now = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}
        for sample, before in self.newest.get(pid, {}).items():
            if now.get(sample, -1.0) < before:
                self.fallen.append(f"worker {index}, process {pid}: {sample} from {before:g} to {now.get(sample)}")
        self.newest[pid] = now

    def total(self, name: str, **labels: str) -> int:
        """Return a counter's sum over all processes that were seen, over the labels not given."""
        wanted = set(labels.items())
        return int(sum(v for p in self.newest.values() for (found, of), v in p.items() if found == name and wanted <= set(of)))
