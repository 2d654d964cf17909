"""Final windows of stage 2: judged once when their end is passed, and judged again when late rows were added to their panes.

A revision is judged with the decision state before its window, so nothing is stepped twice; and the windows after it again, for as long
as the state that they were judged with is another one now. In the end incidents are those of the restated windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from monitor.findings import ClosedWindow, Judgement
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.closing import Closer
from monitor.stages.merge.early_looks import told_of
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS, Final, history_of, window_key
from monitor.stages.merge.history import History
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.rows import ModelRows
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED, EMITTED
from monitor.stages.settings import Settings
from monitor.windows import Window, WindowSpec

Note = Callable[[str, str, Window, bytes, int], None]
"""(model, version, window, how the service did in it, offset) is told of each window that is judged."""

Judge = Callable[[ClosedWindow, bytes, Sequence[bytes]], Judgement]
"""(closed window, decision state before it, tallies of the windows before it, newest first) → what to publish and the state after it."""

_Finals = Sequence[tuple[Window, Row[Final]]]

_START = Final(after={}, live=[])
"""Before the first window."""


class _Asked(NamedTuple):
    """Which versions of a window are judged: of one that was final, those in `again`, and those that are new in it.

    latest: decision states after the newest window. old: what it was.
    Published is what is said of new versions, of those in `restated`, and of those whose alerts are others now.
    """

    latest: Mapping[str, bytes]
    old: Final | None
    again: Set[str]
    restated: Set[str]


class FinalWindows:
    """Makes and restates the rows of final windows. meta: the owner's; its counts are changed in place."""

    def __init__(
        self,
        settings: Settings,
        judge: Judge,
        closer: Closer,
        changes: Changes,
        history: History,
        meta: Meta,
        note: Note | None = None,
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._closer = closer
        self._changes = changes
        self._history = history
        self._meta = meta
        self._note = note
        self._operations: dict[str, bytes] = {}

    def finalise(self, name: str, model: ModelRows, window: Window, offset: int) -> None:
        """Judge a window and freeze everything that its end changes in one row."""
        finals = model.final.setdefault(window.spec, [])
        state = self._judged(name, model, window, finals)
        row = Row(window_key(name, window), CLOSED, offset, state)
        if state.to_send:
            row.rest(state.at_rest)  # windows of a hundred models end at the same time: their results wait packed
        finals.append((window, row))
        self._changes.put(row)
        self._meta.count_window(name)
        self._tell(name, window, offset)
        model.expect_after(window, state)
        self._history.after(name, model, window, offset)

    def restate(self, name: str, model: ModelRows, added: Mapping[int, Iterable[str]], offset: int) -> None:
        """Judge the final windows again that rows were added to; those that are not final yet become due. added: pane start → versions."""
        for spec in self._settings.model(name).specs:
            touched: dict[Window, set[str]] = {}
            for start, versions in added.items():
                for window in model.windows_of(spec, start):
                    touched.setdefault(window, set()).update(versions)
            done = model.done_ms(spec)
            model.due.update(window for window in touched if done is None or window.end_ms > done)
            final = {window: versions for window, versions in touched.items() if done is not None and window.end_ms <= done}
            if final:
                self._restate(name, model, spec, final, offset)

    def _restate(self, name: str, model: ModelRows, spec: WindowSpec, touched: Mapping[Window, set[str]], offset: int) -> None:
        """Go through the windows from the first touched one on, in order of end; one that had no rows until now is made final."""
        finals = dict(model.final[spec])
        latest = model.final[spec][-1][1].value.after
        earlier: list[tuple[Window, Row[Final]]] = []
        stale = _Stale()
        for window in sorted({*finals, *touched}):
            row = finals.get(window)
            again = touched.get(window, set())
            if row is None or again or stale:
                old = row.value if row is not None else None
                state = self._judged(name, model, window, earlier, _Asked(latest, old, again | stale.versions, again))
                stale = _Stale.between(_before(earlier) if old is None else old, state)
                row = finals[window] = self._replaced(name, window, row, state, offset)
                self._tell(name, window, offset)
            earlier.append((window, row))
        model.final[spec] = sorted(finals.items())
        window, row = model.final[spec][-1]
        model.expect_after(window, row.value)

    def _replaced(self, name: str, window: Window, row: Row[Final] | None, state: Final, offset: int) -> Row[Final]:
        """Return the row of a window's new state, which also has what the old one had not sent yet."""
        if row is None:
            self._meta.count_window(name)
            made = Row(window_key(name, window), CLOSED, offset, state)
        else:
            state.edition = row.value.edition + 1
            state.unsent = row.value.to_send
            key = window_key(name, window, state.edition)
            made = Row(key, CLOSED if state.to_send else EMITTED, offset, state, sent_ms=row.sent_ms)
            self._changes.give_up([row])
            if state.results:
                self._meta.count_revision(name)
        self._changes.put(made)
        return made

    def _judged(self, name: str, model: ModelRows, window: Window, earlier: _Finals, asked: _Asked | None = None) -> Final:
        """Return a window's state, given the final windows before it."""
        before = _before(earlier)
        present = sorted({version for pane in model.panes(window) for version in pane})
        state = Final(after={}, live=present or before.live, empty=0 if present else before.empty + 1)
        if asked is not None and asked.old is not None:
            state.remember(asked.old)
        for version in state.live:
            revision, said, latest = 0, b"", b""
            if asked is not None and asked.old is not None and version in asked.old.published:
                if version in asked.old.live:
                    state.copy(asked.old, version)
                    if version not in asked.again:
                        continue
                revision, said = asked.old.revisions.get(version, 0) + 1, asked.old.said.get(version, b"")
                latest = asked.latest.get(version, b"")
            early = b"" if revision else told_of(model, window, version)
            closed = self._closer.window(name, version, window, model)
            closed = closed._replace(revision=revision, said=said, latest=latest, early=early)
            judgement = self._judge(closed, before.after.get(version, b""), history_of(earlier, version))
            state.after[version] = judgement.after
            self._operations[version] = judgement.operation
            if judgement.tallies:
                state.tallies.setdefault(version, judgement.tallies)  # late rows change nothing for later windows
            state.alarmed = sorted({*state.alarmed, version} if judgement.is_alarmed else {*state.alarmed} - {version})
            if not revision or judgement.is_news or (asked is not None and version in asked.restated):
                self._publish(name, state, (version, revision), judgement)
        _carry(before, state)
        if self._settings.model(name).revising is not None:
            state.serial = self._meta.next_serial(name)
        return state

    def _tell(self, name: str, window: Window, offset: int) -> None:
        """Tell how the service did in a window that was judged, by version."""
        operations, self._operations = self._operations, {}
        for version, operation in operations.items():
            if self._note is not None and operation:
                self._note(name, version, window, operation, offset)

    def _publish(self, name: str, state: Final, of: tuple[str, int], judgement: Judgement) -> None:
        """Add to a window's state what is to be sent of a (version, revision)."""
        version, revision = of
        state.results += judgement.results
        state.alerts += judgement.alerts
        if self._settings.model(name).revising is not None:
            state.said[version] = judgement.said
        if revision:
            state.revisions[version] = revision
        for severity in judgement.alert_severities:
            self._meta.count_alert(name, severity)


def _before(earlier: _Finals) -> Final:
    return earlier[-1][1].value if earlier else _START


def _carry(before: Final, state: Final) -> None:
    """Keep the decision state of versions that had rows not long ago."""
    for version, after in before.after.items():
        unseen = before.unseen_for.get(version, 0) + 1
        if version not in state.after and unseen <= MAX_EMPTY_WINDOWS:
            state.after[version], state.unseen_for[version] = after, unseen
            state.alarmed += [version] if version in before.alarmed else []


class _Stale:
    """In what the state before a window differs from the one that it was judged with. versions: whose decision state."""

    def __init__(self, versions: Iterable[str] = (), *, is_other: bool = False) -> None:
        self.versions = frozenset(versions)
        self._is_other = is_other

    def __bool__(self) -> bool:
        return self._is_other or bool(self.versions)

    @classmethod
    def between(cls, old: Final, new: Final) -> _Stale:
        """Compare what a window hands on."""
        versions = {v for v in {*old.after, *new.after} if old.after.get(v, b"") != new.after.get(v, b"")}
        return cls(versions, is_other=old.handed_on != new.handed_on)
