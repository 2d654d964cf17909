"""What becomes of partials: a pane takes them until the watermark seals it; what comes later is added with a cut, or counted as late.

Everything is decided at an offset of the log of partials, whatever has been stored, collected or restarted in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitor.stages import partials
from monitor.stages.merge.arrivals import Arrivals, Arrived, begun, newest
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.closing import Closer
from monitor.stages.merge.collection import Collection
from monitor.stages.merge.history import History
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.rows import ModelRows
from monitor.stages.merge.sealed_panes import sealed_key, share_of
from monitor.stages.partials import partial_key
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED
from monitor.stages.settings import Settings, check_pane_size
from monitor.stages.watermarks import Watermarks
from monitor.windows import FOREVER_MS, NEVER_MS

LatePanes = Mapping[tuple[int, str], Mapping[str, Arrivals]]
"""(pane start, version) → place → what came late."""


class Sealing:
    """Takes the partials of one partition in, and seals panes.

    meta: the owner's; late and repeated partials, and what is finished, are changed in place.
    """

    def __init__(
        self,
        settings: Settings,
        closer: Closer,
        changes: Changes,
        history: History,
        collection: Collection,
        watermarks: Watermarks,
        meta: Meta,
    ) -> None:
        self._settings = settings
        self._closer = closer
        self._changes = changes
        self._history = history
        self._collection = collection
        self._watermarks = watermarks
        self._meta = meta

    def begin(self, name: str, model: ModelRows) -> None:
        """Go on with a model that revises: tell what came late from what did not; what is counted already was about to be deleted."""
        for arrived in model.sort_arrived():
            self._changes.give_up_arrived(arrived)
        for arrivals in model.pop_unfinished(self._settings.model(name).pane_ms, self.settled_ms(name)):
            self._changes.give_up_arrivals(arrivals)

    def take(self, model: ModelRows, partial: partials.Partial, data: bytes, offset: int) -> None:
        """Keep a partial, if its pane still takes any."""
        name, start = partial.model, partial.start_ms
        check_pane_size(name, partial.size_ms, self._settings.model(name))
        share = model.share(partial)
        is_gone = self._collection.has_pane(name, partial.end_ms)
        is_late = partial.cut_ms is not None or is_gone or model.is_sealed(partial)
        if share is not None or is_gone or (is_late and not self._may_revise(partial)):
            if share is None and self._watermarks.is_repeat(partial, self._settings.model(name).grace_ms):
                self._meta.duplicates += 1
            else:
                self._meta.count_late(partial, share)
            return
        arrivals = model.arrivals(partial, is_late=is_late)
        known = newest(arrivals)
        if partial.chunk in arrivals.get(partial.hi, {}) or (known and partial.hi < known[0].partial.hi):
            self._meta.duplicates += 1
            return
        arrived = Arrived(partial_key(partial), offset, partial, data)
        arrivals.setdefault(partial.hi, {})[partial.chunk] = arrived
        self._changes.arrive(arrived)
        if not is_late:
            model.expect(self._settings.model(name).specs, start)

    def _may_revise(self, partial: partials.Partial) -> bool:
        """Whether a pane still takes late rows: a function of the log, whatever has been collected."""
        revising = self._settings.model(partial.model).revising
        return revising is not None and partial.end_ms > self.settled_ms(partial.model)

    def settled_ms(self, name: str) -> int:
        """Return up to when a model's panes have ended that take no more late rows."""
        revising = self._settings.model(name).revising
        return FOREVER_MS if revising is None else revising.settled_ms(self._meta.finished.get(name, NEVER_MS))

    # --- on time

    def seal(self, name: str, model: ModelRows, upto_ms: int, offset: int) -> None:
        """Seal the panes that end at or before `upto_ms`."""
        for start, version in sorted(model.arriving):
            if start + self._settings.model(name).pane_ms <= upto_ms:
                self._seal(name, model, start, version, offset)

    def _seal(self, name: str, model: ModelRows, start: int, version: str, offset: int) -> None:
        """Merge what the source partitions sent of a pane before `offset` into one row, which nothing changes any more."""
        places = model.arriving.pop((start, version))
        if version in model.sealed.get(start, {}):  # before a crash: these rows were about to be deleted
            for arrivals in places.values():
                self._changes.give_up_arrivals(arrivals)
            return
        settings = self._settings.model(name)
        for place, arrivals in places.items():
            if settings.revising is not None and not newest(arrivals):
                model.late.setdefault((start, version), {})[place] = arrivals  # what is missing of it is taken yet
            else:
                self._give_up(arrivals)
        pane, found = self._closer.pane(places)
        row = Row(sealed_key(name, version, start, settings.pane_ms), CLOSED, offset, pane)
        model.sealed.setdefault(start, {})[version] = row
        self._changes.put(row)
        self._history.find(name, model, (start, version), found, offset)

    def _give_up(self, arrivals: Arrivals) -> None:
        """Forget what has come of a place for a pane; what it has only begun to tell is late."""
        whole = newest(arrivals)
        share = share_of(whole[0].partial) if whole else None
        first = begun(arrivals, share.hi if share else -1)
        if first is not None:
            self._meta.count_late(first.partial, share)
        self._changes.give_up_arrivals(arrivals)

    # --- late

    def pop_late(self, name: str, model: ModelRows, upto_ms: int) -> Sequence[tuple[int, LatePanes]]:
        """Remove and return what was cut off up to a time, by when; nothing where late rows are not counted."""
        revising = self._settings.model(name).revising
        return () if revising is None else model.pop_late(self._meta.finished.get(name, NEVER_MS), revising, upto_ms)

    def add_late(self, name: str, model: ModelRows, cut_ms: int, panes: LatePanes, offset: int) -> dict[int, set[str]]:
        """Add what came late to its panes; return their versions by start."""
        added: dict[int, set[str]] = {}
        for (start, version), places in sorted(panes.items()):
            for arrivals in places.values():
                self._give_up(arrivals)
            known = model.sealed.get(start, {}).get(version)
            pane, _ = self._closer.pane(places, known.value if known else None)
            pane.cut_ms = cut_ms
            row = Row(sealed_key(name, version, start, self._settings.model(name).pane_ms, cut_ms), CLOSED, offset, pane)
            self._changes.give_up([known] if known else [])
            model.sealed.setdefault(start, {})[version] = row
            self._changes.put(row)
            added.setdefault(start, set()).add(version)
        return added

    def settle(self, name: str, model: ModelRows, upto_ms: int) -> None:
        """Note that all up to a time is sealed and added; what panes that now take no more were only begun to be told is late."""
        settings = self._settings.model(name)
        if settings.revising is None:
            return
        self._meta.finished[name] = max(upto_ms, self._meta.finished.get(name, NEVER_MS))
        for arrivals in model.pop_unfinished(settings.pane_ms, self.settled_ms(name)):
            self._give_up(arrivals)
