"""The rows of performance windows: what is known of a pane's outcomes, and what was published of a window's performance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from monitor.stages.partials import OutcomePartial
from monitor.stages.pieces import Row
from monitor.stages.rows import row_key
from monitor.windows import NEVER_MS, Window, WindowSpec


class Known(msgspec.Struct, array_like=True):
    """All that the join has told of a pane of one model version: (reference sha256, cells), by sha256. cut_ms: when it was told last."""

    cells: list[tuple[str, bytes]]
    cut_ms: int


class UnsentReport(msgspec.Struct, array_like=True):
    """What was decided of a window's performance and is not sent yet."""

    serial: int
    results: list[tuple[bytes, bytes]]
    alerts: list[tuple[bytes, bytes]]


class Reported(msgspec.Struct, kw_only=True):
    """What was published of the performance of one model version in a window, and the decision state after it.

    revision: of the last publication, −1 before the first. as_of_ms: what was known then is in it. figures: what is judged anew when the
    windows before it are restated. operation: how the service did, from the window's own events. said: of the alerts, for the next
    revision. edition: how often the row was replaced. unsent: of all editions, in order.
    """

    revision: int = -1
    as_of_ms: int = NEVER_MS
    figures: bytes = b""
    operation: bytes = b""
    after: bytes = b""
    said: bytes = b""
    edition: int = 0
    unsent: list[UnsentReport] = []

    @property
    def is_published(self) -> bool:
        """Whether anything was; else it only holds how the service did."""
        return self.revision >= 0

    def forget_sent(self) -> None:
        """Everything is on its topic."""
        self.unsent = []


class OutcomeMeta(msgspec.Struct, kw_only=True):
    """What a partition of stage 2 knows of outcomes beside their rows; a part of its meta.

    finished: model → up to when what the join told is added and reported. gc_panes, gc_windows: as those of final windows.
    duplicates: partials that were there before. late: model → partials of panes that are reported no more. windows, revisions: published.
    serials: model → decisions so far.
    """

    finished: dict[str, int] = {}
    gc_panes: dict[str, int] = {}
    gc_windows: dict[str, int] = {}
    duplicates: int = 0
    late: dict[str, int] = {}
    windows: dict[str, int] = {}
    revisions: dict[str, int] = {}
    serials: dict[str, int] = {}

    def count(self, counts: dict[str, int], model: str) -> int:
        """Add one to a model's count; return it."""
        counts[model] = counts.get(model, 0) + 1
        return counts[model]

    def counters(self) -> dict[tuple[str, ...], int]:
        """Return monotone counts; functions of the log."""
        counts: dict[tuple[str, ...], int] = {("outcome_duplicates",): self.duplicates}
        counts |= {("outcomes_late", name): n for name, n in self.late.items()}
        counts |= {("performance_windows", name): n for name, n in self.windows.items()}
        counts |= {("performance_revisions", name): n for name, n in self.revisions.items()}
        return counts


@dataclass(slots=True)
class ArrivedOutcome:
    """One block of a difference as it stands on `partials`; immutable. at: its offset there."""

    key: bytes
    at: int
    partial: OutcomePartial
    data: bytes


Differences = dict[tuple[int, str], dict[str, dict[int, dict[int, ArrivedOutcome]]]]
"""(pane start, version) → place → hi → chunk → block."""

Chain = dict[Window, "Row[Reported]"]
"""Windows of one specification and model version, in any order; each is judged with the state after the published one before it."""


@dataclass(slots=True)
class ModelOutcomes:
    """A model's outcomes. arriving: by cut. known: pane start → version → row. outdated: rows that others have replaced."""

    arriving: dict[int, Differences] = field(default_factory=dict)
    known: dict[int, dict[str, Row[Known]]] = field(default_factory=dict)
    reported: dict[tuple[WindowSpec, str], Chain] = field(default_factory=dict)
    outdated: list[Row[Known] | Row[Reported]] = field(default_factory=list)

    def arrivals(self, partial: OutcomePartial) -> dict[int, dict[int, ArrivedOutcome]]:
        """Return what has come of the same difference so far, to be added to."""
        panes = self.arriving.setdefault(partial.cut_ms, {})
        places = panes.setdefault((partial.start_ms, partial.version), {})
        return places.setdefault(f"{partial.partition}|{partial.reference}", {})

    def load_known(self, start_ms: int, version: str, row: Row[Known]) -> None:
        """Take in a row from the store; of two of one pane the older was about to be deleted."""
        by_version = self.known.setdefault(start_ms, {})
        other = by_version.get(version)
        if other is not None:
            older, row = sorted((other, row), key=lambda each: each.value.cut_ms)
            self.outdated.append(older)
        by_version[version] = row

    def load_reported(self, version: str, window: Window, row: Row[Reported]) -> None:
        """Take in a row from the store; of two of one window the older was about to be deleted."""
        chain = self.reported.setdefault((window.spec, version), {})
        other = chain.get(window)
        if other is not None:
            older, row = sorted((other, row), key=lambda each: each.value.edition)
            self.outdated.append(older)
        chain[window] = row

    def starts(self, upto_ms: int) -> set[int]:
        """Return the panes of which something is known once what is cut by then is added."""
        arriving = (start for cut, panes in self.arriving.items() if cut <= upto_ms for start, _ in panes)
        return {*self.known, *arriving}

    def panes(self, window: Window, pane_ms: int) -> list[Mapping[str, Row[Known]]]:
        """Return what is known of a window's panes, in order of start, by version."""
        starts = range(window.start_ms, window.end_ms, pane_ms)
        return [self.known[start] for start in starts if start in self.known]


def blocks(panes: Differences) -> Iterator[ArrivedOutcome]:
    """Yield every block."""
    for places in panes.values():
        for arrivals in places.values():
            for chunks in arrivals.values():
                yield from chunks.values()


def whole(arrivals: Mapping[int, Mapping[int, ArrivedOutcome]]) -> list[tuple[str, bytes]]:
    """Return reference and cells of each block of the difference with the greatest `hi` of which every one has arrived."""
    complete = [hi for hi, chunks in arrivals.items() if len(chunks) == next(iter(chunks.values())).partial.chunks]
    chunks = arrivals[max(complete)] if complete else {}
    return [(chunks[i].partial.reference, chunks[i].partial.cells) for i in sorted(chunks)]


def outcome_key(partial: OutcomePartial) -> bytes:
    """Return the row key of a block of a difference."""
    pane = (partial.model, partial.version, partial.start_ms, partial.size_ms, partial.cut_ms)
    return row_key("outcome", *pane, partial.reference, partial.partition, partial.chunk, partial.hi)


def known_key(model: str, version: str, start_ms: int, size_ms: int, cut_ms: int) -> bytes:
    """Return the row key of what is known of a pane; with each cut it is another one, see `sealed_panes.sealed_key`."""
    return row_key("known", model, version, start_ms, size_ms, cut_ms)


def reported_key(model: str, version: str, window: Window, edition: int) -> bytes:
    """Return the row key of what was published of a window; each edition has its own, for the same reason."""
    return row_key("reported", model, version, *window, edition)


def pop_outdated(outcomes: Iterable[ModelOutcomes]) -> list[Row[Known] | Row[Reported]]:
    """Remove and return rows that others have replaced."""
    found: list[Row[Known] | Row[Reported]] = []
    for model in outcomes:
        found += model.outdated
        model.outdated = []
    return found
