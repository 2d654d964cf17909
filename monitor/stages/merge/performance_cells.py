"""How outcomes are added in stage 2: differences to what is known of a pane, and panes to a window, each under its own reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from monitor.errors import StateMismatch
from monitor.judgement.performance import WindowCells
from monitor.performance import OutcomeCells, PerformanceSpec
from monitor.reference import Reference, References
from monitor.stages.kept import KeptReferences
from monitor.windows import NEVER_MS

ByReference = Sequence[tuple[str, bytes]]
"""(reference sha256, cells), by sha256."""


class OutcomeSums:
    """Adds cells by the reference that lays them out; `kept` is told which references the state names.

    Raises StateMismatch when such a reference is not known.
    """

    def __init__(self, references: References, kept: KeptReferences, topic: str) -> None:
        self._references = references
        self._kept = kept
        self._topic = topic

    def added(self, known: ByReference, told: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]] | None:
        """Return what is known once differences are added; None where they come to nothing."""
        sums = self._sums(told)
        sums = {sha256: cells for sha256, cells in sums.items() if not cells.is_zero}
        if not sums:
            return None
        after = dict(known)
        for sha256, cells in sums.items():
            if sha256 in after:
                cells.add(OutcomeCells.from_bytes(cells.spec, after[sha256]))
            after[sha256] = cells.to_bytes()
        return sorted(after.items())

    def of_window(self, panes: Iterable[ByReference]) -> WindowCells:
        """Return the sum of a window's panes under the newest of their references, and how many predictions came under others."""
        sums = self._sums(one for pane in panes for one in pane)
        judged = max(sums, key=self._age)
        cells = sums.pop(judged)
        return WindowCells(self._reference(judged), cells, sum(other.n_made() for other in sums.values()))

    def _sums(self, told: Iterable[tuple[str, bytes]]) -> dict[str, OutcomeCells]:
        sums: dict[str, OutcomeCells] = {}
        for sha256, data in told:
            spec = _spec(self._reference(sha256))
            if sha256 in sums:
                sums[sha256].add(OutcomeCells.from_bytes(spec, data))
            else:
                sums[sha256] = OutcomeCells.from_bytes(spec, data)
        return sums

    def _age(self, sha256: str) -> tuple[int, str]:
        reference = self._references.by_sha256(sha256)
        return (reference.effective_from_ms if reference else NEVER_MS, sha256)

    def _reference(self, sha256: str) -> Reference:
        reference = self._references.by_sha256(sha256)
        if reference is None:
            raise StateMismatch(f"reference {sha256[:12]} is named by outcomes but is not on {self._topic}")
        self._kept.use(reference)
        return reference


@lru_cache(maxsize=256)
def _spec_of(sha256: str, reference: Reference) -> PerformanceSpec:
    return PerformanceSpec.of(reference)


def _spec(reference: Reference) -> PerformanceSpec:
    return _spec_of(reference.sha256, reference)
