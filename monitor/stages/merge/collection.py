"""Collection of stage 2's rows: what no later window needs is deleted, and marks tell it from what was never there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.final_rows import Final, n_unneeded
from monitor.stages.merge.learning import is_forgotten
from monitor.stages.merge.performance_rows import Reported
from monitor.stages.merge.rows import ModelRows
from monitor.stages.pieces import Row
from monitor.stages.rows import EMITTED
from monitor.stages.settings import Settings
from monitor.windows import FOREVER_MS, NEVER_MS, Window


class Settled(NamedTuple):
    """Which rows may go. durable_hi: offset of the last durable checkpoint. sent_by_ms: what was sent then, long ago enough.

    upto_ms: panes that ended by then take no more late rows.
    """

    durable_hi: int
    sent_by_ms: int
    upto_ms: int = FOREVER_MS

    def is_ripe(self, row: Row[Final] | Row[Early] | Row[Reported]) -> bool:
        """Whether what is known of a window was sent, durably and long enough ago, so that it may be collected."""
        return row.state == EMITTED and row.is_durable and row.hi <= self.durable_hi and row.sent_ms <= self.sent_by_ms

    def needed_from_ms(self, finals: Sequence[tuple[Window, Row[Final]]]) -> int:
        """Return from when on panes are needed for a specification's final windows that may yet be sent again, and for the next one."""
        waiting = next((window.start_ms for window, row in finals if window.end_ms > self.upto_ms or not self.is_ripe(row)), None)
        last = finals[-1][0]
        return last.start_ms + last.step_ms if waiting is None else waiting


class Collection:
    """How far a partition's rows have been collected, and what can be.

    panes: model → end of the last pane collected. windows: model|size|step → end of the last window collected. Both are changed in
    place: they are part of the owner's meta.
    """

    def __init__(self, settings: Settings, panes: dict[str, int], windows: dict[str, int]) -> None:
        self._settings = settings
        self._panes = panes
        self._windows = windows

    def has_pane(self, name: str, end_ms: int) -> bool:
        """Whether a model's panes that end then have been collected."""
        return end_ms <= self._panes.get(name, NEVER_MS)

    def has_row(self, kind: str, parts: list[str]) -> bool:
        """Whether a row belongs to what has been collected: a paused owner wrote it again."""
        if kind in ("window", "early"):
            name, end, size, step = parts[:4]
            return int(end) <= self._windows.get(f"{name}|{size}|{step}", NEVER_MS)
        if kind in ("partial", "sealed", "found"):
            name, _, start, size = parts[:4]
            return self.has_pane(name, int(start) + int(size))
        return False  # what is kept, and learnings, outlive their panes

    def collect(self, name: str, model: ModelRows, settled: Settled) -> list[bytes]:
        """Raise a model's marks over what no later window needs, and forget that; return the keys, to be deleted once they are durable."""
        collected = self._collect_windows(name, model, settled)
        collected += self._collect_panes(name, model, settled)
        collected += self._collect_learnings(name, model)
        return collected

    def _collect_windows(self, name: str, model: ModelRows, settled: Settled) -> list[bytes]:
        collected: list[bytes] = []
        specs = self._settings.model(name).specs
        for spec, finals in list(model.final.items()):
            unneeded = (
                n_unneeded([each for each in finals if each[0].end_ms <= settled.upto_ms]) if spec in specs else len(finals)
            )
            while unneeded and settled.is_ripe(finals[0][1]) and all(map(settled.is_ripe, model.early.get(finals[0][0], ()))):
                unneeded -= 1
                window, row = finals.pop(0)
                self._windows[f"{name}|{spec.size_ms}|{spec.step_ms}"] = window.end_ms
                collected += row.keys
                collected += [key for look in model.early.pop(window, ()) for key in look.keys]
            if not finals:
                del model.final[spec]
        for window in [window for window in model.early if window.spec not in specs]:
            if all(map(settled.is_ripe, model.early[window])):
                collected += [key for look in model.early.pop(window) for key in look.keys]
        return collected

    def _collect_panes(self, name: str, model: ModelRows, settled: Settled) -> list[bytes]:
        settings = self._settings.model(name)
        if any(spec not in model.final for spec in settings.specs):
            return []
        needed_from = min(settled.needed_from_ms(model.final[spec]) for spec in settings.specs)
        collected: list[bytes] = []
        for start in sorted(model.sealed):
            rows = model.sealed[start].values()
            if start + settings.pane_ms > needed_from or any(row.hi > settled.durable_hi for row in rows):
                break
            self._panes[name] = max(start + settings.pane_ms, self._panes.get(name, NEVER_MS))
            collected += [key for row in model.sealed.pop(start).values() for key in row.keys]
        return collected

    def _collect_learnings(self, name: str, model: ModelRows) -> list[bytes]:
        """Forget versions without rows for a long time: without their row they begin anew, as they would with it."""
        finals = model.final.get(self._settings.model(name).shortest)
        if not finals:
            return []
        gone = [version for version, row in model.learning.items() if is_forgotten(row.value, finals[-1][0])]
        return [key for version in gone for key in model.learning.pop(version).keys]
