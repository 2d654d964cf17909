"""Performance windows of stage 2: differences that the join tells are added to their panes, and windows are reported at configured ages.

"As known at A" is the sum of the differences cut at or before A; a window is reported at its end plus each configured age, when both the
join and the windows of its events have come that far. So what is published is a function of the log, and with disorder within grace of
the events alone. A report is judged with the decision state before its window, and the windows after it again for as long as that state
is another one now, as final windows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple

import msgspec

from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.collection import Settled
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.performance_cells import OutcomeSums
from monitor.stages.merge.performance_chain import Case, reported, restate
from monitor.stages.merge.performance_rows import (
    ArrivedOutcome,
    Chain,
    Known,
    ModelOutcomes,
    OutcomeMeta,
    Reported,
    UnsentReport,
    blocks,
    known_key,
    outcome_key,
    pop_outdated,
    reported_key,
    whole,
)
from monitor.stages.partials import OutcomePartial
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED, EMITTED, Stored, key_parts
from monitor.stages.settings import Labelling, Settings
from monitor.stages.watermarks import Watermarks
from monitor.windows import FOREVER_MS, NEVER_MS, Window, WindowSpec

JudgePerformance = Callable[[ClosedOutcomes, bytes], PerformanceJudgement]
"""(what is known of a window's outcomes, decision state before it) → what to publish and the state after it."""


class PerformanceWindows:
    """Owns the rows of outcomes of a partition of stage 2. owner: meta of that partition; changed in place."""

    def __init__(self, settings: Settings, judge: JudgePerformance, sums: OutcomeSums, changes: Changes, owner: Meta) -> None:
        self._settings = settings
        self._judge = judge
        self._sums = sums
        self._changes = changes
        self._owner = owner
        self._meta = OutcomeMeta() if isinstance(owner.outcomes, msgspec.UnsetType) else owner.outcomes
        self._models: dict[str, ModelOutcomes] = {}
        self.watermarks = Watermarks({settings.topic("outcomes"): settings.outcomes_partitions}, owner.marks)

    # --- loading

    def load_arrived(self, key: bytes, stored: Stored, partial: OutcomePartial) -> None:
        """Take in a block from the store; what was added before meta's offset was about to be deleted."""
        arrived = ArrivedOutcome(key, stored.hi, partial, stored.payload)
        if partial.cut_ms <= self._finished(partial.model):
            self._changes.give_up_arrived(arrived)
        else:
            self._model(partial.model).arrivals(partial).setdefault(partial.hi, {})[partial.chunk] = arrived

    def load_row(self, key: bytes, pieces: Mapping[int, Stored], now_ms: int) -> None:
        """Take in a row of the kinds `known` and `reported` from the store."""
        kind, name, version, *rest = key_parts(key)
        model = self._model(name)
        if kind == "known":
            known = Row.load(key, pieces, Known)
            if known is not None:
                model.load_known(int(rest[0]), version, known)
            return
        reported = Row.load(key, pieces, Reported)
        if reported is not None:
            reported.sent_ms = now_ms
            model.load_reported(version, Window(*map(int, rest[:3])), reported)

    def give_up_outdated(self) -> None:
        """Give up rows that later ones had replaced before meta's offset."""
        self._changes.give_up(pop_outdated(self._models.values()))

    def has_collected(self, kind: str, parts: list[str]) -> bool:
        """Whether a row of this key belongs to what has been collected."""
        if kind not in ("known", "reported"):
            return False
        name, _, *rest = parts
        if kind == "known":
            return int(rest[0]) + int(rest[1]) <= self._meta.gc_panes.get(name, NEVER_MS)
        end, size, step = rest[:3]
        return int(end) <= self._meta.gc_windows.get(f"{name}|{size}|{step}", NEVER_MS)

    def _model(self, name: str) -> ModelOutcomes:
        self._owner.outcomes = self._meta
        return self._models.setdefault(name, ModelOutcomes())

    def _finished(self, name: str) -> int:
        return self._meta.finished.get(name, NEVER_MS)

    # --- reading

    def take(self, partial: OutcomePartial, data: bytes, offset: int) -> None:
        """Keep a difference until what it was cut for is passed; one that comes after that is a repeat."""
        arrivals = self._model(partial.model).arrivals(partial) if partial.cut_ms > self._finished(partial.model) else None
        if arrivals is None or partial.chunk in arrivals.get(partial.hi, {}) or partial.hi < max(arrivals, default=-1):
            self._meta.duplicates += 1
            return
        arrived = ArrivedOutcome(outcome_key(partial), offset, partial, data)
        arrivals.setdefault(partial.hi, {})[partial.chunk] = arrived
        self._changes.arrive(arrived)

    def pass_to(self, name: str, upto_ms: int, offset: int) -> None:
        """Go as far as the join has come, at most to where the windows of the model's events are final."""
        reached = self.watermarks.reached((), self._settings.model(name).grace_ms)
        if reached is not None:
            self.finish(name, min(upto_ms, reached), offset)

    def finish(self, name: str, upto_ms: int, offset: int) -> None:
        """Add what is cut, and report what is due, at or before `upto_ms`, in order of time."""
        done_ms = self._finished(name)
        labelling = self._settings.model(name).labelling
        if upto_ms <= done_ms or labelling is None or not (name in self._models or name in self._meta.finished):
            return
        model = self._model(name)
        due = _due(self._ages(name, labelling), model.starts(upto_ms), done_ms, upto_ms)
        cuts = [cut for cut in model.arriving if cut <= upto_ms]
        for time_ms in sorted({*due, *cuts}):
            if time_ms in model.arriving:
                self._add(name, model, time_ms, offset)
            if time_ms in due:
                self._report(name, model, due[time_ms], time_ms, offset)
        self._meta.finished[name] = upto_ms

    def _ages(self, name: str, labelling: Labelling) -> _Ages:
        settings = self._settings.model(name)
        windows_of = self._owner.windows_of
        since = {} if isinstance(windows_of, msgspec.UnsetType) else windows_of.since_ms.get(name, {})
        return _Ages(tuple(settings.specs), settings.pane_ms, labelling, since)

    def _add(self, name: str, model: ModelOutcomes, cut_ms: int, offset: int) -> None:
        """Add all differences of a cut to their panes."""
        panes = model.arriving.pop(cut_ms)
        for arrived in blocks(panes):
            self._changes.give_up_arrived(arrived)
        settings = self._settings.model(name)
        assert settings.labelling is not None
        last_ms = {start: self._ages(name, settings.labelling).last_ms(start) for start, _ in panes}
        for (start, version), places in sorted(panes.items()):
            if last_ms[start] < cut_ms:
                self._meta.late[name] = self._meta.late.get(name, 0) + len(places)
                continue
            known = model.known.get(start, {}).get(version)
            told = [block for _, arrivals in sorted(places.items()) for block in whole(arrivals)]
            cells = self._sums.added(known.value.cells if known is not None else [], told)
            if cells is None:
                continue
            row = Row(known_key(name, version, start, settings.pane_ms, cut_ms), CLOSED, offset, Known(cells, cut_ms))
            self._changes.give_up([known] if known is not None else [])
            model.known.setdefault(start, {})[version] = row
            self._changes.put(row)

    # --- reports

    def note(self, name: str, version: str, window: Window, operation: bytes, offset: int) -> None:
        """Keep how the service did in a final window, for the reports of its performance."""
        if self._settings.model(name).labelling is None:
            return
        model = self._model(name)
        chain = model.reported.setdefault((window.spec, version), {})
        known = chain[window].value if window in chain else Reported()
        if window not in chain or known.operation != operation:
            made = msgspec.structs.replace(known, operation=operation, unsent=[])
            self._put(_Report(name, version, model, chain, known.as_of_ms, offset), window, made)

    def _report(self, name: str, model: ModelOutcomes, windows: Set[Window], as_of_ms: int, offset: int) -> None:
        """Judge and publish the windows that are of an age to be reported, where something became known since they were last."""
        touched: dict[tuple[WindowSpec, str], set[Window]] = {}
        for window in windows:
            changed_ms: dict[str, int] = {}
            for pane in model.panes(window, self._settings.model(name).pane_ms):
                for version, row in pane.items():
                    changed_ms[version] = max(row.value.cut_ms, changed_ms.get(version, NEVER_MS))
            for version, known_ms in changed_ms.items():
                reported = model.reported.get((window.spec, version), {}).get(window)
                if reported is None or not reported.value.is_published or known_ms > reported.value.as_of_ms:
                    touched.setdefault((window.spec, version), set()).add(window)
        for (spec, version), of_chain in sorted(touched.items()):
            chain = model.reported.setdefault((spec, version), {})
            self._restate(_Report(name, version, model, chain, as_of_ms, offset), of_chain)

    def _restate(self, report: _Report, touched: Set[Window]) -> None:
        """Judge the touched windows, and those after them for as long as the state before them is another one than it was."""

        def judged(case: Case) -> Reported:
            closed = self._closed(report, case.window, case.old, is_fresh=case.is_fresh)._replace(
                said=case.old.said, latest=case.latest
            )
            judgement = self._judge(closed, case.before)
            made = reported(closed, case, judgement)
            if made.revision > case.old.revision:
                self._count(report.name, made, judgement)
            self._put(report, case.window, made)
            return made

        restate({window: row.value for window, row in report.chain.items()}, touched, judged)

    def _count(self, name: str, made: Reported, judgement: PerformanceJudgement) -> None:
        """Count a publication, and give it its place in the order of sending."""
        serial = self._meta.count(self._meta.serials, name)
        made.unsent = [UnsentReport(serial, list(judgement.results), list(judgement.alerts))]
        self._meta.count(self._meta.revisions if made.revision else self._meta.windows, name)
        for severity in judgement.alert_severities:
            self._owner.count_alert(name, severity)

    def _closed(self, report: _Report, window: Window, old: Reported, *, is_fresh: bool) -> ClosedOutcomes:
        settings = self._settings.model(report.name)
        assert settings.labelling is not None
        panes = report.model.panes(window, settings.pane_ms) if is_fresh else []
        cells = [pane[report.version].value.cells for pane in panes if report.version in pane]
        as_of_ms = report.as_of_ms if is_fresh else old.as_of_ms
        return ClosedOutcomes(
            model=report.name,
            version=report.version,
            window=window,
            as_of_ms=as_of_ms,
            is_final=as_of_ms == self._ages(report.name, settings.labelling).of(window)[-1],
            sums=self._sums.of_window(cells) if is_fresh else None,
            figures=b"" if is_fresh else old.figures,
            operation=old.operation,
            revision=old.revision + 1,
        )

    def _put(self, report: _Report, window: Window, value: Reported) -> None:
        """Replace a window's row by one under another key, which also has what the old one had not sent yet."""
        old = report.chain.get(window)
        if old is not None:
            value.edition = old.value.edition + 1
            value.unsent = [*old.value.unsent, *value.unsent]
            self._changes.give_up([old])
        state = CLOSED if value.unsent else EMITTED
        key = reported_key(report.name, report.version, window, value.edition)
        row = Row(key, state, report.offset, value, sent_ms=old.sent_ms if old is not None else 0)
        report.chain[window] = row
        self._changes.put(row)

    # --- collection, sending

    def collect(self, settled: Settled) -> list[bytes]:
        """Raise the marks over what no later report needs, and forget that; return the keys, to be deleted once the marks are durable."""
        collected: list[bytes] = []
        for name, model in self._models.items():
            labelling = self._settings.model(name).labelling
            if labelling is not None and name in self._meta.finished:
                ages = self._ages(name, labelling)
                collected += self._collect_panes(name, model, ages, settled)
                collected += self._collect_windows(name, model, ages, settled)
        return collected

    def _collect_panes(self, name: str, model: ModelOutcomes, ages: _Ages, settled: Settled) -> list[bytes]:
        collected: list[bytes] = []
        for start in sorted(model.known):
            rows = model.known[start].values()
            if ages.last_ms(start) > self._finished(name) or any(row.hi > settled.durable_hi for row in rows):
                break
            self._meta.gc_panes[name] = max(start + ages.pane_ms, self._meta.gc_panes.get(name, NEVER_MS))
            collected += [key for row in model.known.pop(start).values() for key in row.keys]
        return collected

    def _collect_windows(self, name: str, model: ModelOutcomes, ages: _Ages, settled: Settled) -> list[bytes]:
        collected: list[bytes] = []
        for spec in sorted({of for of, _ in model.reported}):
            chains = [chain for (of, _), chain in model.reported.items() if of == spec]
            needed_ms = self._finished(name) - ages.oldest_ms - (MAX_EMPTY_WINDOWS + 1) * spec.step_ms
            if spec not in ages.specs:
                needed_ms = FOREVER_MS
            for window in sorted({window for chain in chains for window in chain if window.end_ms < needed_ms}):
                rows = [chain[window] for chain in chains if window in chain]
                if not all(settled.is_ripe(row) for row in rows):
                    break
                mark = f"{name}|{spec.size_ms}|{spec.step_ms}"
                self._meta.gc_windows[mark] = max(window.end_ms, self._meta.gc_windows.get(mark, NEVER_MS))
                for chain in chains:
                    chain.pop(window, None)
                collected += [key for row in rows for key in row.keys]
        model.reported = {of: chain for of, chain in model.reported.items() if chain}
        return collected

    def ready(self) -> Iterator[tuple[UnsentReport, Row[Reported]]]:
        """Yield what is durable and not sent, by model and in the order in which it was decided."""
        for name in sorted(self._models):
            rows = [row for chain in self._models[name].reported.values() for row in chain.values()]
            unsent = [(one, row) for row in rows if row.state == CLOSED and row.is_durable for one in row.value.unsent]
            yield from sorted(unsent, key=lambda each: each[0].serial)

    @property
    def n_rows(self) -> int:
        """Rows of panes and windows."""
        panes = sum(len(by_version) for model in self._models.values() for by_version in model.known.values())
        return panes + sum(len(chain) for model in self._models.values() for chain in model.reported.values())


class _Report(NamedTuple):
    """Which model version is reported, when, and the offset that makes it so."""

    name: str
    version: str
    model: ModelOutcomes
    chain: Chain
    as_of_ms: int
    offset: int


class _Ages(NamedTuple):
    """When windows of a model are reported: their ends plus ages, rounded up to whole panes. since_ms: kind → none begins before."""

    specs: tuple[WindowSpec, ...]
    pane_ms: int
    labelling: Labelling
    since_ms: Mapping[WindowSpec, int]

    def of(self, window: Window) -> list[int]:
        """Return the times at which a window is reported, rising."""
        return [window.end_ms + -(-age // self.pane_ms) * self.pane_ms for age in self.labelling.report_at_ms]

    @property
    def oldest_ms(self) -> int:
        """The last age."""
        return -(-self.labelling.report_at_ms[-1] // self.pane_ms) * self.pane_ms

    def last_ms(self, start_ms: int) -> int:
        """Return when a pane is reported for the last time, in any of its windows."""
        ends = (list(spec.windows_of(start_ms, start_ms + 1))[-1].end_ms for spec in self.specs)
        return max(ends) + self.oldest_ms


def _due(ages: _Ages, starts: Set[int], done_ms: int, upto_ms: int) -> dict[int, set[Window]]:
    """Return time → windows that are of an age to be reported after `done_ms` and at or before `upto_ms`."""
    due: dict[int, set[Window]] = {}
    windows = {window for start in starts for spec in ages.specs for window in spec.windows_of(start, start + 1)}
    for window in windows:
        for time_ms in ages.of(window):
            if done_ms < time_ms <= upto_ms and window.start_ms >= ages.since_ms.get(window.spec, NEVER_MS):
                due.setdefault(time_ms, set()).add(window)
    return due
