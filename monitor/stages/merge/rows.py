"""A model's rows in stage 2, by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from monitor.stages import partials
from monitor.stages.merge.arrivals import Arrivals, Arrived, newest
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS, Final
from monitor.stages.merge.learning import Found, Learning
from monitor.stages.merge.performance_rows import Known, Reported
from monitor.stages.merge.sealed_panes import Sealed, Share
from monitor.stages.merge.trail import Kept
from monitor.stages.partials import place_of
from monitor.stages.pieces import Row
from monitor.stages.rows import EMITTED, Stored, key_parts
from monitor.stages.settings import Revising
from monitor.windows import FOREVER_MS, NEVER_MS, Window, WindowSpec

T = TypeVar("T")
AnyRow = Row[Sealed] | Row[Final] | Row[Found] | Row[Learning] | Row[Kept] | Row[Early] | Row[Known] | Row[Reported]


@dataclass(slots=True)
class ModelRows:
    """A model's rows.

    arriving: (pane start, version) → place → what has arrived. late: the same of rows that came late, and of partials that came after
    their pane was sealed or passed, where they are to be counted. sealed: pane start → version → pane.
    final: specification → final windows kept, by end; the last one carries the decision state.
    due: windows that have rows, or may be published empty, and are not final.
    found: pane start → version → what was discovered, until a window has learnt from it. learning: by version.
    kept: pane start → version → what later windows are compared with. outdated: rows that others have replaced.
    early: window → the looks into it that saw something, in order. since_ms: specification → no window of it begins before.
    """

    arriving: dict[tuple[int, str], dict[str, Arrivals]] = field(default_factory=dict)
    late: dict[tuple[int, str], dict[str, Arrivals]] = field(default_factory=dict)
    sealed: dict[int, dict[str, Row[Sealed]]] = field(default_factory=dict)
    final: dict[WindowSpec, list[tuple[Window, Row[Final]]]] = field(default_factory=dict)
    due: set[Window] = field(default_factory=set)
    found: dict[int, dict[str, Row[Found]]] = field(default_factory=dict)
    learning: dict[str, Row[Learning]] = field(default_factory=dict)
    kept: dict[int, dict[str, Row[Kept]]] = field(default_factory=dict)
    outdated: list[Row[Any]] = field(default_factory=list)
    early: dict[Window, list[Row[Early]]] = field(default_factory=dict)
    since_ms: Mapping[WindowSpec, int] = field(default_factory=dict)

    def load(self, key: bytes, pieces: Mapping[int, Stored]) -> Row[Any] | None:
        """Take in a row from the store, in any order of final windows; None when its first piece is not there."""
        kind, _, *parts = key_parts(key)
        row: Row[Any] | None = Row.load(key, pieces, KINDS[kind])
        if row is None:
            return None
        if kind == "window":
            self._load_final(Window(*map(int, parts[:3])), row)
        elif kind == "early":
            rows = self.early.setdefault(Window(*map(int, parts[:3])), [])
            rows.append(row)
            rows.sort(key=lambda each: each.value.upto_ms)
        elif kind == "learning":
            self._load_learning(parts[0], row)
        elif kind == "sealed":
            by_version = self.sealed.setdefault(int(parts[1]), {})
            by_version[parts[0]] = self._newer(by_version.get(parts[0]), row, lambda sealed: sealed.cut_ms)
        else:
            by_start: dict[str, dict[int, dict[str, Row[Any]]]] = {"found": self.found, "kept": self.kept}
            by_start[kind].setdefault(int(parts[1]), {})[parts[0]] = row
        return row

    def _newer(self, known: Row[T] | None, row: Row[T], age: Callable[[T], int]) -> Row[T]:
        """Return the one of two rows of the same thing that replaces the other, which was about to be deleted."""
        if known is None:
            return row
        older, newer = sorted((known, row), key=lambda each: age(each.value))
        self.outdated.append(older)
        return newer

    def _load_final(self, window: Window, row: Row[Final]) -> None:
        finals = self.final.setdefault(window.spec, [])
        known = next((i for i, (of, _) in enumerate(finals) if of == window), None)
        if known is None:
            finals.append((window, row))
        else:
            finals[known] = (window, self._newer(finals[known][1], row, lambda final: final.edition))

    def _load_learning(self, version: str, row: Row[Learning]) -> None:
        """Keep the learning that has seen most."""
        self.learning[version] = self._newer(self.learning.get(version), row, lambda learning: learning.seen_ms)

    def done_ms(self, spec: WindowSpec) -> int | None:
        """Return the end of the last final window of a specification."""
        finals = self.final.get(spec)
        return finals[-1][0].end_ms if finals else None

    def is_passed(self, start_ms: int) -> bool:
        """Whether a window that the pane belongs to is already final."""
        for spec in self.final:
            done = self.done_ms(spec)
            first = next(spec.windows_of(start_ms, start_ms + 1))
            if done is not None and first.end_ms <= done:
                return True
        return False

    def sealed_ms(self, pane_ms: int) -> int:
        """Return up to when panes were sealed, of windows that are final or in rows that are here."""
        done = (finals[-1][0].end_ms for finals in self.final.values())
        return max([*done, *(start + pane_ms for start in self.sealed)], default=NEVER_MS)

    def has(self, window: Window) -> bool:
        """Whether all of a window is of the time since there are windows of its kind."""
        return window.start_ms >= self.since_ms.get(window.spec, NEVER_MS)

    def windows_of(self, spec: WindowSpec, start_ms: int) -> Iterator[Window]:
        """Yield, by end, the windows of a specification that a pane is part of."""
        return filter(self.has, spec.windows_of(start_ms, start_ms + 1))

    def expect(self, specs: Iterable[WindowSpec], start_ms: int) -> None:
        """Make due the windows of a pane with rows that are not final."""
        for spec in specs:
            done = self.done_ms(spec)
            self.due.update(w for w in self.windows_of(spec, start_ms) if done is None or w.end_ms > done)

    def expect_after(self, window: Window, final: Final) -> None:
        """Make due the window after a final one: it may be published though it is empty."""
        after = window.spec.after(window)
        if final.empty < MAX_EMPTY_WINDOWS and self.has(after):
            self.due.add(after)

    def expect_all(self, specs: Sequence[WindowSpec]) -> None:
        """Sort the final windows by end, and make due what the rows loaded ask for of some specifications."""
        for finals in self.final.values():
            finals.sort(key=lambda item: item[0])
        for start, version in self.arriving:
            if version not in self.sealed.get(start, {}):
                self.expect(specs, start)
        for start in self.sealed:
            self.expect(specs, start)
        for spec, finals in self.final.items():
            if spec in specs:
                self.expect_after(finals[-1][0], finals[-1][1].value)

    def panes(self, window: Window) -> list[dict[str, Row[Sealed]]]:
        """Return the sealed panes of a window, by version, in order of start."""
        return [self.sealed[start] for start in sorted(self.sealed) if window.start_ms <= start < window.end_ms]

    def is_sealed(self, partial: partials.Partial) -> bool:
        """Whether a pane takes partials no more but as late ones: it is sealed, or part of a final window."""
        return partial.version in self.sealed.get(partial.start_ms, {}) or self.is_passed(partial.start_ms)

    def share(self, partial: partials.Partial) -> Share | None:
        """Return what the partial's place has put into its pane."""
        sealed = self.sealed.get(partial.start_ms, {}).get(partial.version)
        return None if sealed is None else sealed.value.shares.get(place_of(partial))

    def sort_arrived(self) -> list[Arrived]:
        """Tell what came late from what did not; return what is of a place that is part of a sealed pane."""
        arriving, self.arriving = self.arriving, {}
        given_up: list[Arrived] = []
        for arrived in (
            a for places in arriving.values() for hi in places.values() for chunks in hi.values() for a in chunks.values()
        ):
            partial = arrived.partial
            if self.share(partial) is not None:
                given_up.append(arrived)
                continue
            arrivals = self.arrivals(partial, is_late=partial.cut_ms is not None or self.is_sealed(partial))
            arrivals.setdefault(partial.hi, {})[partial.chunk] = arrived
        return given_up

    def arrivals(self, partial: partials.Partial, *, is_late: bool = False) -> Arrivals:
        """Return what has come of the partial's place so far, to be added to."""
        rows = self.late if is_late else self.arriving
        return rows.setdefault((partial.start_ms, partial.version), {}).setdefault(place_of(partial), {})

    def pop_late(
        self, before_ms: int, revising: Revising, upto_ms: int
    ) -> list[tuple[int, dict[tuple[int, str], dict[str, Arrivals]]]]:
        """Remove and return what is due: (time, (pane start, version) → place → what has come, whole), by time.

        A partial that came after the watermark had passed it is due with the next cut. before_ms: what is finished.
        """
        by_time: dict[int, dict[tuple[int, str], dict[str, Arrivals]]] = {}
        for pane, places in self.late.items():
            for place, arrivals in places.items():
                due = next((a.partial.due_ms for a in newest(arrivals)), FOREVER_MS)
                due = due if due > before_ms else revising.next_cut_ms(before_ms)
                if due <= upto_ms:
                    by_time.setdefault(due, {}).setdefault(pane, {})[place] = arrivals
        for pane, place in [(pane, place) for panes in by_time.values() for pane, places in panes.items() for place in places]:
            self._pop_late(pane, place)
        return sorted(by_time.items())

    def _pop_late(self, pane: tuple[int, str], place: str) -> Arrivals:
        places = self.late[pane]
        arrivals = places.pop(place)
        if not places:
            del self.late[pane]
        return arrivals

    def pop_unfinished(self, pane_ms: int, settled_ms: int) -> list[Arrivals]:
        """Remove and return what came late, and never whole, to panes that end by then: they take no more."""
        gone = [
            (pane, place)
            for pane, places in self.late.items()
            for place, arrivals in places.items()
            if pane[0] + pane_ms <= settled_ms and not newest(arrivals)
        ]
        return [self._pop_late(*at) for at in gone]

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about: what is bytes in them, which is all but a little; of a partial that arrived, twice."""
        places = [place for panes in (self.arriving, self.late) for at in panes.values() for place in at.values()]
        arrived = (len(a.data) for arrivals in places for chunks in arrivals.values() for a in chunks.values())
        panes: list[Row[Any]] = [row for by in (self.sealed, self.kept) for rows in by.values() for row in rows.values()]
        profiles = (len(data) for row in panes for _, data in row.value.profiles)
        return 2 * sum(arrived) + sum(profiles) + sum(row.held_bytes for finals in self.final.values() for _, row in finals)

    def rest(self) -> None:
        """Pack the final windows that are sent, durably, and not the last: their bytes are asked for once a window at most."""
        for finals in self.final.values():
            for _, row in finals[:-1]:
                if row.state == EMITTED and row.is_durable and not row.is_at_rest:
                    row.rest(row.value.at_rest)

    def pop_outdated(self) -> list[Row[Any]]:
        """Remove and return rows that others have replaced."""
        outdated, self.outdated = self.outdated, []
        return outdated

    def pop_found(self, before_ms: int) -> dict[str, list[Row[Found]]]:
        """Remove and return, by version, what was discovered in panes that start before a time."""
        by_version: dict[str, list[Row[Found]]] = {}
        for start in sorted(start for start in self.found if start < before_ms):
            for version, row in self.found.pop(start).items():
                by_version.setdefault(version, []).append(row)
        return by_version


KINDS: dict[str, type] = {
    "sealed": Sealed,
    "window": Final,
    "found": Found,
    "learning": Learning,
    "kept": Kept,
    "early": Early,
    "known": Known,
    "reported": Reported,
}
