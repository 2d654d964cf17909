"""Stage 2 looks into windows that are open: at fixed times of theirs, with the panes sealed before, never because a timer ran.

When a watermark passes several of these times at once, each has its look, as it would have had one by one; so what is told, and with which
bytes, is a function of the sources' logs, and a replay tells the same. A look that saw something is a row of its own: the close reads what was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from monitor.decision.early import OpenWindow
from monitor.findings import ClosedWindow
from monitor.judgement.looks import Before, Looked
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.closing import Closer, Merged
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.final_rows import history_of
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.rows import ModelRows
from monitor.stages.merge.sealed_panes import Sealed
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED, row_key
from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS, Window, WindowSpec, next_look_ms

Look = Callable[[OpenWindow, Callable[[int], ClosedWindow], Before], Looked]
"""(open window, its newest rows, what is known before) → what to tell; see pipeline.look."""


MAX_RUNNING = 64
"""Open windows of which the rows so far are kept merged, about 100 kB each with 50 features; of others they are merged at each look."""


@dataclass(slots=True)
class _Running:
    """The panes of an open window so far, merged. rows: whose."""

    merged: Merged
    rows: list[Row[Sealed]]


class EarlyLooks:
    """Makes the rows of looks. meta: the owner's; its counts are changed in place. look: None where no window is looked at."""

    def __init__(self, settings: Settings, look: Look | None, closer: Closer, changes: Changes, meta: Meta) -> None:
        self._settings = settings
        self._look = look
        self._closer = closer
        self._changes = changes
        self._meta = meta
        self._done: dict[str, int] = {}
        self._running: dict[tuple[str, str, WindowSpec], _Running] = {}

    def begin(self, name: str, upto_ms: int | None) -> None:
        """Note that a model's windows were looked at up to a time: that of the watermark at which its state stands."""
        self._done[name] = max(NEVER_MS if upto_ms is None else upto_ms, self._meta.finished.get(name, NEVER_MS))

    def pass_to(self, name: str, model: ModelRows, upto_ms: int, offset: int) -> None:
        """Take the looks that are due up to a time. Windows that end before it are final; those that end then may be or not."""
        specs, done_ms = self._settings.model(name).early_specs, self._done.get(name, NEVER_MS)
        if not specs or self._look is None or upto_ms <= done_ms:
            return
        self._done[name] = upto_ms
        for at_ms, spec in sorted(self._due(name, model, done_ms, upto_ms)):
            self._take(name, model, (at_ms, spec), offset)

    def _due(self, name: str, model: ModelRows, done_ms: int, upto_ms: int) -> set[tuple[int, WindowSpec]]:
        """Return the times, by kind of window, at which panes are looked at that were not before."""
        settings, found = self._settings.model(name), set()
        for start in model.sealed:
            for spec in settings.early_specs:
                at_ms = next_look_ms(spec, settings.pane_ms, start)
                is_of_pane = at_ms - at_ms % spec.step_ms <= start
                if done_ms < at_ms <= upto_ms and is_of_pane and model.has(_open_at(at_ms, spec)):
                    found.add((at_ms, spec))
        return found

    def _take(self, name: str, model: ModelRows, of: tuple[int, WindowSpec], offset: int) -> None:
        """Look at the window that ends next, and keep what there is to tell."""
        assert self._look is not None
        at_ms, spec = of
        window = _open_at(at_ms, spec)
        earlier = model.early.get(window, [])
        if earlier and earlier[-1].value.upto_ms >= at_ms:
            return  # looked at before the watermark went back
        so_far = Window(at_ms, at_ms - window.start_ms, spec.step_ms)
        told = dict(earlier[-1].value.told) if earlier else {}
        finals = model.final.get(spec, [])
        after = finals[-1][1].value.after if finals else {}
        state = Early(upto_ms=at_ms, told=told)
        versions = _fresh(model, so_far)
        for key in [key for key in self._running if key[0] == name and key[1] not in versions]:
            del self._running[key]
        for version in versions:
            merged = self._so_far((name, version, spec), so_far, model)
            closed = self._closer.closed(name, version, so_far, model, merged)._replace(window=window)
            before = Before(after.get(version, b""), history_of(finals, version), told.get(version, b""))
            looked = self._look(OpenWindow(closed, at_ms), self._newest((name, version), so_far, model), before)
            state.results += looked.results
            if looked.alerts:
                state.told[version] = looked.told
                state.alerts += looked.alerts
                for severity in looked.severities:
                    self._meta.count_alert(name, severity)
        if state.alerts or state.results:
            if self._settings.model(name).revising is not None:
                state.serial = self._meta.next_serial(name)
            row = Row(early_key(name, window, at_ms), CLOSED, offset, state)
            model.early.setdefault(window, []).append(row)
            self._changes.put(row)

    def _so_far(self, of: tuple[str, str, WindowSpec], so_far: Window, model: ModelRows) -> Merged:
        """Return the panes of a window so far: what the look before had, if its rows are still the same, and the new ones."""
        version = of[1]
        rows = [pane[version] for pane in model.panes(so_far) if version in pane]
        running = self._running.get(of)
        if running is None or any(known is not row for known, row in zip_longest(running.rows, rows[: len(running.rows)])):
            running = _Running(Merged(), [])
        for row in rows[len(running.rows) :]:
            self._closer.add(running.merged, row.value)
        running.rows = rows
        is_whole = len(running.merged.by_reference) == 1
        if is_whole and (of in self._running or len(self._running) < MAX_RUNNING):
            self._running[of] = running
        else:
            self._running.pop(of, None)
        return running.merged

    def _newest(self, of: tuple[str, str], so_far: Window, model: ModelRows) -> Callable[[int], ClosedWindow]:
        """Return what returns the newest panes of a version that have a number of rows, or all of them."""
        name, version = of

        def newest(rows: int) -> ClosedWindow:
            starts = sorted(
                (s for s in model.sealed if so_far.start_ms <= s < so_far.end_ms and version in model.sealed[s]), reverse=True
            )
            found, start = 0, so_far.start_ms
            for start in starts:
                found += sum(share.n for share in model.sealed[start][version].value.shares.values())
                if found >= rows:
                    break
            return self._closer.window(name, version, Window(so_far.end_ms, so_far.end_ms - start, so_far.step_ms), model)

        return newest


def _open_at(at_ms: int, spec: WindowSpec) -> Window:
    """Return the window that ends next."""
    return Window((at_ms // spec.step_ms + 1) * spec.step_ms, *spec)


def _fresh(model: ModelRows, so_far: Window) -> Sequence[str]:
    """Return the versions with rows in a window so far."""
    return sorted({version for pane in model.panes(so_far) for version in pane})


def early_key(model: str, window: Window, upto_ms: int) -> bytes:
    """Return the row key of a look; each has its own, for what one told must not be lost before meta covers the next."""
    return row_key("early", model, window.end_ms, window.size_ms, window.step_ms, upto_ms)


def told_of(model: ModelRows, window: Window, version: str) -> bytes:
    """Return what was told of a version's window while it was open."""
    rows = model.early.get(window)
    return rows[-1].value.told.get(version, b"") if rows else b""


def unsent_looks(model: ModelRows) -> Iterator[tuple[Window, Row[Early]]]:
    """Yield the durable looks whose alerts are not sent."""
    for window, rows in model.early.items():
        for row in rows:
            if row.state == CLOSED and row.is_durable:
                yield window, row
