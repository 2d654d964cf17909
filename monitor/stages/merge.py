"""Stage 2: one partition of the `partials` topic → sealed panes, final windows, results and alerts.

Everything is decided at an offset of the partition's log: a window is final at the watermark record that passes its end, made of the
partials that stand before that record, never because a timer ran. Two owners therefore publish the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from monitor.errors import StateMismatch
from monitor.findings import ClosedWindow, Judgement
from monitor.layout import Layout
from monitor.ports import Checkpoint, Message, Outbox, Record
from monitor.profiles import Profile
from monitor.reference import References
from monitor.stages import codec_1, partials
from monitor.stages.cursor import Cursor, Position
from monitor.stages.kept import KeptReferences
from monitor.stages.learning import Found, Learner, Learning, after_window, ended, is_forgotten, merged
from monitor.stages.merge_rows import (
    Arrived,
    Final,
    ModelRows,
    Row,
    Sealed,
    Share,
    count_rows,
    is_ripe,
    newest,
    partial_key,
    place_of,
    share_of,
    spans,
    window_key,
)
from monitor.stages.panes import windows_changed
from monitor.stages.rows import CLOSED, CODEC_VERSION, EMITTED, META, OPEN, Stored, Versions, key_parts, row_key
from monitor.stages.settings import Settings
from monitor.stages.trail import Kept, counted_on, is_needed, trailing
from monitor.windows import NEVER_MS, Window

MAX_EMPTY_WINDOWS = 24
"""Windows without a row that are still published after the last one with rows: enough for a traffic alert, then silence."""

Judge = Callable[[ClosedWindow, bytes], Judgement]
"""(closed window, decision state before it) → what to publish and the state after it."""


AnyRow = Row[Sealed] | Row[Final] | Row[Found] | Row[Learning] | Row[Kept]


class _Meta(msgspec.Struct, kw_only=True):
    """What a partition knows beside its rows; a function of the log up to `hi`."""

    partition: int
    topic_id: str | None = None
    position: Position = msgspec.field(default_factory=Position)
    marks: dict[str, partials.Watermark] = {}
    late: dict[str, int] = {}
    late_shares: dict[str, tuple[int, int]] = {}
    """pane and source partition → (hi, rows) of the newest partial that came too late"""
    duplicates: int = 0
    windows: dict[str, int] = {}
    alerts: dict[str, dict[str, int]] = {}
    gc_panes: dict[str, int] = {}
    gc_windows: dict[str, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(_Meta).decode


class MergePartition:
    """State machine of one partition of `partials` (ports.PartitionStage).

    topology: partitions of every source of predictions. judge: see pipeline.judge_window.
    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        *,
        topology: Mapping[str, int],
        epoch: int,
        judge: Judge,
        references: References,
        rows: Iterable[tuple[bytes, bytes]] = (),
        topic_id: str | None = None,
        now_ms: int = 0,
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._judge = judge
        self._references = references
        self._now_ms = now_ms
        self._meta = _Meta(partition=partition, topic_id=topic_id)
        self._cursor = Cursor(self._meta.position)
        self._meta_dirty = False
        self._models: dict[str, ModelRows] = {}
        self._arrived: dict[bytes, Arrived] = {}
        self._dirty: dict[bytes, AnyRow] = {}
        self._leftover: list[bytes] = []
        self._collected: list[bytes] = []
        self._snapshot: list[tuple[AnyRow, int, int]] = []
        self._versions = Versions(rows, epoch)
        self._kept = KeptReferences(references, self._versions.best)
        self._load()
        self._loaded_ms = now_ms
        self._durable_hi = self._cursor.hi

    # --- loading

    def _load(self) -> None:
        """Take every row as it was at meta's offset: a crash may have left some that are ahead, and reading on makes them again."""
        best = self._versions.best
        if META in best:
            stored = _decode_meta(best[META].payload)
            if stored.topic_id and self._meta.topic_id and stored.topic_id != self._meta.topic_id:
                raise StateMismatch(
                    f"topic {self._settings.topic('partials')} was deleted and created again since its state was written; "
                    "start with another `app` name to begin anew"
                )
            stored.topic_id = stored.topic_id or self._meta.topic_id
            self._meta = stored
            self._cursor = Cursor(stored.position, best[META].hi)
        self._leftover += codec_1.upgrade(best)
        pieces: dict[bytes, dict[int, Stored]] = {}
        for key in list(best):
            kind, *parts = key_parts(key)
            if kind == "reference" or key == META:
                continue
            if self._is_collected(kind, parts):
                self._versions.drop(key)
            elif best[key].hi <= self._cursor.hi:
                if kind == "partial":
                    self._load_partial(key, best[key])
                else:
                    whole, _, piece = key.rpartition(b"|")
                    pieces.setdefault(whole, {})[int(piece)] = best[key]
        for key, of_row in pieces.items():
            self._load_row(key, of_row)
        best.clear()
        for name, model in self._models.items():
            self._rebuild_due(name, model)
            self._give_up_learnt(name, model)

    def _give_up_learnt(self, name: str, model: ModelRows) -> None:
        """Give up what windows before meta's offset have learnt from: it was about to be deleted."""
        self._give_up(model.pop_outdated())
        done = model.done_ms(self._settings.model(name).shortest)
        if done is not None:
            self._give_up(row for rows in model.pop_found(done).values() for row in rows)

    def _is_collected(self, kind: str, parts: list[str]) -> bool:
        """Whether a row belongs to what has been collected: a paused owner wrote it again."""
        if kind == "window":
            name, end, size, step = parts[:4]
            return int(end) <= self._meta.gc_windows.get(f"{name}|{size}|{step}", NEVER_MS)
        if kind in ("partial", "sealed", "found"):
            name, _, start, size = parts[:4]
            return int(start) + int(size) <= self._meta.gc_panes.get(name, NEVER_MS)
        return False  # what is kept, and learnings, outlive their panes

    def _load_partial(self, key: bytes, stored: Stored) -> None:
        partial = partials.decode(stored.payload)
        assert isinstance(partial, partials.Partial)
        self._check_pane(partial.model, partial.size_ms)
        arrivals = self._model(partial.model).arrivals(partial)
        arrived = arrivals.setdefault(partial.hi, {})[partial.chunk] = Arrived(key, stored.hi, partial, stored.payload)
        if stored.codec != CODEC_VERSION:
            self._arrived[key] = arrived

    def _load_row(self, key: bytes, pieces: Mapping[int, Stored]) -> None:
        kind, name, *parts = key_parts(key)
        if kind in ("sealed", "found", "kept"):
            self._check_pane(name, int(parts[2]))
        row = self._model(name).load(key, pieces)
        if row is None:
            return
        if isinstance(row.value, Final):
            row.sent_ms = self._now_ms
        if pieces[0].codec != CODEC_VERSION:
            self._dirty[key] = row

    def _check_pane(self, model: str, size_ms: int) -> None:
        if size_ms != self._settings.model(model).pane_ms:
            raise windows_changed(model)

    def _rebuild_due(self, name: str, model: ModelRows) -> None:
        for finals in model.final.values():
            finals.sort(key=lambda item: item[0])
        for start, version in model.arriving:
            if version not in model.sealed.get(start, {}):
                self._expect(name, model, start)
        for start in model.sealed:
            self._expect(name, model, start)
        for finals in model.final.values():
            window, row = finals[-1]
            self._expect_empty(model, window, row)

    def _model(self, name: str) -> ModelRows:
        return self._models.setdefault(name, ModelRows())

    # --- reading

    @property
    def next_offset(self) -> int:
        """Offset to read next; -1 when nothing was read yet."""
        return self._cursor.next_offset

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare that no record lies between here and `offset`; `lost`: there were some, retention took them."""
        self._cursor.skip_to(offset, lost=lost)
        self._meta_dirty = True

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Apply partials and watermarks in order; see ports.PartitionStage."""
        self._now_ms = now_ms
        records = [record for record in records if record.offset >= self.next_offset]
        if not records:
            return
        self._cursor.take(np.array([record.offset for record in records], np.int64))
        self._meta_dirty = True
        for record in records:
            if not record.value:
                continue
            item = partials.decode(record.value)
            if isinstance(item, partials.Partial):
                self._take(item, record.value, record.offset)
            else:
                self._pass(item, record.offset)

    def _take(self, partial: partials.Partial, data: bytes, offset: int) -> None:
        """Keep a partial, if its pane still takes any."""
        name, start = partial.model, partial.start_ms
        model = self._model(name)
        self._check_pane(name, partial.size_ms)
        sealed = model.sealed.get(start, {}).get(partial.version)
        if sealed is not None:
            self._count_late(partial, sealed.value.shares.get(place_of(partial)))
            return
        if start + partial.size_ms <= self._meta.gc_panes.get(name, NEVER_MS) or self._is_passed(model, start):
            self._count_late(partial, None)
            return
        arrivals = model.arrivals(partial)
        known = newest(arrivals)
        if partial.chunk in arrivals.get(partial.hi, {}) or (known and partial.hi < known[0].partial.hi):
            self._meta.duplicates += 1
            return
        arrived = Arrived(partial_key(partial), offset, partial, data)
        arrivals.setdefault(partial.hi, {})[partial.chunk] = self._arrived[arrived.key] = arrived
        self._expect(name, model, start)

    def _count_late(self, partial: partials.Partial, share: Share | None) -> None:
        """Count the rows by which a partial exceeds what its pane was sealed with."""
        if partial.chunk:
            return  # the first block says how many rows the others are of
        place = f"{partial.model}|{partial.version}|{partial.start_ms}|{place_of(partial)}"
        hi, n = self._meta.late_shares.get(place, (share.hi, share.n) if share else (-1, 0))
        if partial.hi <= hi:
            self._meta.duplicates += 1
            return
        self._meta.late_shares[place] = (partial.hi, partial.n)
        self._meta.late[partial.model] = self._meta.late.get(partial.model, 0) + partial.n - n

    def _is_passed(self, model: ModelRows, start_ms: int) -> bool:
        """Whether a window that the pane belongs to is already final."""
        for spec in model.final:
            done = model.done_ms(spec)
            first = next(spec.windows_of(start_ms, start_ms + 1))
            if done is not None and first.end_ms <= done:
                return True
        return False

    def _expect(self, name: str, model: ModelRows, start_ms: int) -> None:
        for spec in self._settings.model(name).specs:
            done = model.done_ms(spec)
            model.due.update(w for w in spec.windows_of(start_ms, start_ms + 1) if done is None or w.end_ms > done)

    def _expect_empty(self, model: ModelRows, window: Window, row: Row[Final]) -> None:
        if row.value.empty < MAX_EMPTY_WINDOWS:
            model.due.add(window.spec.after(window))

    # --- the watermark

    def _pass(self, mark: partials.Watermark, offset: int) -> None:
        """Take a watermark: a younger owner's replaces, an older one's is ignored, the same owner's moves on."""
        expected = self._topology.get(mark.source)
        if expected is None or mark.partition >= expected:
            return  # a source that is configured no longer
        place = f"{mark.source}|{mark.partition}"
        known = self._meta.marks.get(place)
        if known is not None and mark.epoch < known.epoch:
            return
        self._meta.marks[place] = mark
        reached: dict[tuple[tuple[str, ...], int], int | None] = {}
        for name in sorted(self._models):
            settings = self._settings.model(name)
            group = (settings.sources, settings.grace_ms)
            if group not in reached:
                reached[group] = self._reached(*group)
            upto = reached[group]
            if upto is not None:
                self._finish(name, upto, offset)

    def _reached(self, sources: tuple[str, ...], grace_ms: int) -> int | None:
        """Return up to when all partitions of `sources` are closed: the least of those that are not idle, else the greatest."""
        busy: list[int] = []
        idle: list[int] = []
        for source in sources or self._topology:
            for partition in range(self._topology.get(source, 0)):
                mark = self._meta.marks.get(f"{source}|{partition}")
                closed = mark.closed.get(grace_ms) if mark is not None else None
                if mark is not None and mark.idle:
                    idle.append(NEVER_MS if closed is None else closed)
                elif closed is None:
                    return None  # nobody has said anything of it yet
                else:
                    busy.append(closed)
        upto = min(busy) if busy else max(idle, default=NEVER_MS)
        return upto if upto > NEVER_MS else None

    def _finish(self, name: str, upto_ms: int, offset: int) -> None:
        """Seal the panes and finalise the windows of a model that end at or before `upto_ms`, in order of end."""
        model = self._models[name]
        pane_ms = self._settings.model(name).pane_ms
        for start, version in sorted(model.arriving):
            if start + pane_ms <= upto_ms:
                self._seal(name, model, start, version, offset)
        while model.due:
            window = min(model.due)
            if window.end_ms > upto_ms:
                break
            model.due.discard(window)
            self._finalise(name, model, window, offset)

    def finish_input(self) -> None:
        """No more input will come: finalise every window that has rows, whatever the watermark says."""
        for name in sorted(self._models):
            model = self._models[name]
            self._cursor.hi += 1
            for start, version in sorted(model.arriving):
                self._seal(name, model, start, version, self._cursor.hi)
            for window in sorted(model.due):
                if any(window.start_ms <= start < window.end_ms for start in model.sealed):
                    self._finalise(name, model, window, self._cursor.hi)
            model.due.clear()
        self._meta_dirty = True

    def _seal(self, name: str, model: ModelRows, start: int, version: str, offset: int) -> None:
        """Merge what the source partitions sent of a pane before `offset` into one row, which nothing changes any more."""
        places = model.arriving.pop((start, version))
        for arrived in (a for arrivals in places.values() for chunks in arrivals.values() for a in chunks.values()):
            if self._arrived.pop(arrived.key, None) is None:
                self._leftover.append(arrived.key)  # written before: deleted once the sealed pane is durable
        if version in model.sealed.get(start, {}):
            return  # sealed before a crash; these rows were about to be deleted
        by_reference: dict[str, Profile] = {}
        shares: dict[str, Share] = {}
        lost = 0
        found: list[bytes] = []
        for place in sorted(places):
            for arrived in newest(places[place]):
                partial = arrived.partial
                self._merged(by_reference, partial.reference).add_block(partial.profile)
                if not partial.chunk:
                    shares[place] = share_of(partial)
                    lost += partial.lost
                    found.append(partial.discovery)
        profiles = [(sha, by_reference[sha].to_bytes()) for sha in sorted(by_reference, key=self._age)]
        key = row_key("sealed", name, version, start, self._settings.model(name).pane_ms)
        row = Row(key, CLOSED, offset, Sealed(profiles, shares, lost))
        model.sealed.setdefault(start, {})[version] = row
        self._dirty[key] = row
        learning = model.learning.get(version)
        if any(found) and not (learning is not None and learning.value.is_done):
            key = row_key("found", name, version, start, self._settings.model(name).pane_ms)
            data = merged(found, self._references.hash_key)
            self._dirty[key] = model.found.setdefault(start, {})[version] = Row(key, CLOSED, offset, Found(data))

    def _give_up(self, rows: Iterable[AnyRow]) -> None:
        """What these rows hold is not needed from this offset on: they are deleted if they were written, and else never are."""
        for row in rows:
            self._leftover += row.keys
            self._dirty.pop(row.key, None)

    def _merged(self, by_reference: dict[str, Profile], sha256: str) -> Profile:
        """Return the profile that everything of one reference is added to."""
        if sha256 not in by_reference:
            by_reference[sha256] = Profile(self._layout(sha256))
        return by_reference[sha256]

    def _age(self, sha256: str) -> tuple[int, str]:
        reference = self._references.by_sha256(sha256)
        return (reference.effective_from_ms if reference else NEVER_MS, sha256)

    def _layout(self, sha256: str) -> Layout:
        if not sha256:
            return Layout()
        reference = self._references.by_sha256(sha256)
        if reference is None:
            raise StateMismatch(
                f"reference {sha256[:12]} is named by a partial but is not on {self._settings.topic('references')}"
            )
        self._kept.use(reference)
        return reference.layout

    # --- final windows

    def _finalise(self, name: str, model: ModelRows, window: Window, offset: int) -> None:
        """Judge a window and freeze everything that its end changes in one row."""
        finals = model.final.setdefault(window.spec, [])
        before = finals[-1][1].value if finals else Final(after={}, live=[])
        panes = [model.sealed[s] for s in sorted(model.sealed) if window.start_ms <= s < window.end_ms]
        present = sorted({version for pane in panes for version in pane})
        state = Final(after={}, live=present or before.live, empty=0 if present else before.empty + 1)
        for version in state.live:
            sealed = [pane[version].value for pane in panes if version in pane]
            closed = self._closed_window(name, version, window, sealed)
            judgement = self._judge(closed, before.after.get(version, b""))
            state.after[version] = judgement.after
            state.results += judgement.results
            state.alerts += judgement.alerts
            state.alarmed += [version] if judgement.is_alarmed else []
            for severity in judgement.alert_severities:
                per_model = self._meta.alerts.setdefault(name, {})
                per_model[severity] = per_model.get(severity, 0) + 1
        for version, after in before.after.items():
            unseen = before.unseen_for.get(version, 0) + 1
            if version not in state.after and unseen <= MAX_EMPTY_WINDOWS:
                state.after[version], state.unseen_for[version] = after, unseen
                state.alarmed += [version] if version in before.alarmed else []
        key = window_key(name, window)
        row = Row(key, CLOSED, offset, state)
        finals.append((window, row))
        self._dirty[key] = row
        self._meta.windows[name] = self._meta.windows.get(name, 0) + 1
        self._expect_empty(model, window, row)
        if window.spec == self._settings.model(name).shortest:
            alarmed = {version for finals in model.final.values() for version in finals[-1][1].value.alarmed}
            self._learn(name, model, window, offset, alarmed)
            if self._settings.model(name).trail is not None or model.kept:
                self._keep(name, model, window, offset, alarmed)

    def _learn(self, name: str, model: ModelRows, window: Window, offset: int, alarmed: set[str]) -> None:
        """Let versions without a reference learn from a window that is final, less those under alarm."""
        panes = [model.sealed[start] for start in model.sealed if window.start_ms <= start < window.end_ms]
        others = {v for pane in panes for v in pane if any(sha for sha, _ in pane[v].value.profiles)}
        found = model.pop_found(window.end_ms)
        self._give_up(row for rows in found.values() for row in rows)
        settings, lead_ms = self._settings.model(name), self._settings.reference_lead_ms
        for version in sorted(found.keys() | (others & model.learning.keys())):
            known = model.learning.get(version)
            before = known.value if known else Learning()
            parts = [] if version in alarmed else [each.value.data for each in found.get(version, ())]
            if version in others:
                after = ended(before, window)
            else:
                learner = Learner(name, version, settings, lead_ms, self._references.hash_key)
                after = after_window(learner, before, window, parts)
            if after is before:
                continue
            self._give_up([known] if known else [])
            key = row_key("learning", name, version, window.end_ms)
            row = model.learning[version] = Row(key, CLOSED if after.record else OPEN, offset, after)
            self._dirty[key] = row

    def _keep(self, name: str, model: ModelRows, window: Window, offset: int, alarmed: set[str]) -> None:
        """Keep the panes with which a window ends, less those under alarm, and give up those that no later window needs."""
        settings = self._settings.model(name)
        for start in [s for s in model.kept if not is_needed(s, settings, window)]:
            self._give_up(model.kept.pop(start).values())
        for start in sorted(s for s in model.sealed if window.end_ms - window.step_ms <= s < window.end_ms):
            if not is_needed(start, settings, window):
                continue
            for version, pane in model.sealed[start].items():
                profiles = [(sha, data) for sha, data in pane.value.profiles if sha]
                if profiles and version not in alarmed:
                    key = row_key("kept", name, version, start, settings.pane_ms)
                    self._dirty[key] = model.kept.setdefault(start, {})[version] = Row(key, CLOSED, offset, Kept(profiles))

    def _closed_window(self, name: str, version: str, window: Window, sealed: Sequence[Sealed]) -> ClosedWindow:
        """Merge a window's panes under the newest of their references."""
        by_reference: dict[str, Profile] = {}
        offsets: dict[str, dict[str, list[int]]] = {}
        rows: dict[str, dict[str, int]] = {}
        for pane in sealed:
            spans(pane.shares, offsets)
            count_rows(pane.shares, rows)
            for sha, data in pane.profiles:
                self._merged(by_reference, sha).add_block(data)
        judged = max(by_reference, key=self._age, default=None)
        if judged is None:
            reference = self._references.at(name, version, window.start_ms)
            profile = Profile(reference.layout if reference else Layout())
        else:
            reference = self._references.by_sha256(judged) if judged else None
            profile = by_reference.pop(judged)
        for other in by_reference.values():
            profile.stream.merge(other.stream)  # whatever their layout, they are rows of this window
        trail = self._settings.model(name).trail
        if reference is not None and trail is not None:
            kept = self._models[name].kept
            earlier = (kept[start].get(version) for start in trailing(trail, window, sorted(kept)))
            reference = counted_on(reference, [row.value.profiles for row in earlier if row is not None])
        return ClosedWindow(
            model=name,
            version=version,
            window=window,
            profile=profile,
            reference=reference,
            revision=0,
            rows_other_layout=sum(other.n for other in by_reference.values()),
            lost_offsets=sum(pane.lost for pane in sealed),
            source_offsets=offsets,
            partition_rows=rows,
        )

    # --- time, checkpoint, sending

    def is_quiet(self, now_ms: int) -> bool:
        """Never: this stage does nothing because of silence."""
        return False

    def advance(self, now_ms: int, *, at_end: bool) -> None:
        """Note the time, by which emitted rows are retired."""
        self._now_ms = now_ms

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a final window waits to become durable."""
        return any(isinstance(row.value, Final) and row.state == CLOSED for row in self._dirty.values())

    def checkpoint(self) -> Checkpoint | None:
        """Return what changed since the last checkpoint."""
        for key in self._collected:  # the marks that cover them became durable with the last checkpoint
            self._versions.drop(key)
        self._collected = self._leftover + self._collect()
        self._leftover = []
        if not (self._dirty or self._arrived or self._meta_dirty or self._versions.has_dropped):
            return None
        rows = [(a.key, OPEN, a.at, a.data) for a in self._arrived.values()]
        for row in self._dirty.values():
            rows += row.pieces()
        self._snapshot = [(row, row.state, row.hi) for row in self._dirty.values()]
        meta = (self._cursor.hi, _encode(self._meta))
        checkpoint = self._versions.snapshot(rows + self._kept.new_rows(), meta, retire=self._may_retire)
        self._arrived, self._dirty, self._meta_dirty = {}, {}, False
        return checkpoint

    @property
    def _may_retire(self) -> bool:
        """Whether owners before this one are surely gone: a paused one ends itself well before."""
        return self._now_ms - self._loaded_ms >= self._settings.retire_after_ms

    def _collect(self) -> list[bytes]:
        """Raise the collection marks over what no later window needs; the rows are deleted one checkpoint later."""
        collected: list[bytes] = []
        for name, model in self._models.items():
            collected += self._collect_windows(name, model)
            collected += self._collect_panes(name, model)
            collected += self._collect_learnings(name, model)
        if collected:
            self._meta_dirty = True
        return collected

    def _collect_windows(self, name: str, model: ModelRows) -> list[bytes]:
        collected = []
        for spec, finals in model.final.items():
            while len(finals) > 1 and self._is_ripe(finals[0][1]):
                window, row = finals.pop(0)
                self._meta.gc_windows[f"{name}|{spec.size_ms}|{spec.step_ms}"] = window.end_ms
                collected += row.keys
        return collected

    def _collect_panes(self, name: str, model: ModelRows) -> list[bytes]:
        settings = self._settings.model(name)
        if any(spec not in model.final for spec in settings.specs):
            return []
        needed_from = min(self._needed_from(*model.final[spec][0]) for spec in settings.specs)
        collected: list[bytes] = []
        for start in sorted(model.sealed):
            rows = model.sealed[start].values()
            if start + settings.pane_ms > needed_from or any(row.hi > self._durable_hi for row in rows):
                break
            self._meta.gc_panes[name] = max(start + settings.pane_ms, self._meta.gc_panes.get(name, NEVER_MS))
            collected += [key for row in model.sealed.pop(start).values() for key in row.keys]
        return collected

    def _collect_learnings(self, name: str, model: ModelRows) -> list[bytes]:
        """Forget versions without rows for a long time: without their row they begin anew, as they would with it."""
        finals = model.final.get(self._settings.model(name).shortest)
        if not finals:
            return []
        gone = [version for version, row in model.learning.items() if is_forgotten(row.value, finals[-1][0])]
        return [key for version in gone for key in model.learning.pop(version).keys]

    def _needed_from(self, window: Window, row: Row[Final]) -> int:
        return window.start_ms + (window.step_ms if self._is_ripe(row) else 0)

    def _is_ripe(self, row: Row[Final]) -> bool:
        return is_ripe(row, self._durable_hi, self._now_ms, self._settings.retire_after_ms)

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable."""
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        for row, state, hi in self._snapshot:
            row.durable = (state, hi)
        self._snapshot = []

    def outbox(self, now_ms: int) -> Outbox:
        """Results and alerts of durable final windows, in order of end; then learnt references."""
        self._now_ms = now_ms
        ready = [
            (window, name, row)
            for name, model in self._models.items()
            for finals in model.final.values()
            for window, row in finals
            if row.state == CLOSED and row.is_durable
        ]
        ready.sort(key=lambda item: item[:2])
        messages: list[Message] = []
        for _, _, row in ready:
            for topic, records in (("results", row.value.results), ("alerts", row.value.alerts)):
                messages += [Message(self._settings.topic(topic), key, value) for key, value in records]
        learnt = [
            row for model in self._models.values() for row in model.learning.values() if row.value.record and row.is_durable
        ]
        messages += [Message(self._settings.topic("references"), *row.value.record) for row in learnt if row.value.record]
        return Outbox(tuple(messages), (), [*(row for _, _, row in ready), *learnt])

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """Everything is on its topic: its bytes need not be kept."""
        rows = outbox.token
        assert isinstance(rows, list)
        for row in rows:
            row.state, row.sent_ms = EMITTED, now_ms
            if isinstance(row.value, Learning):
                row.value.record = None
            else:
                row.value.results, row.value.alerts = [], []
            self._dirty[row.key] = row

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read."""
        meta = self._meta
        counts: dict[tuple[str, ...], int] = {
            ("duplicates",): meta.duplicates,
            ("gaps",): meta.position.gaps,
            ("lost",): meta.position.lost,
        }
        counts |= {("events", name, "late_after_final"): n for name, n in meta.late.items()}
        counts |= {("windows", name): n for name, n in meta.windows.items()}
        counts |= {("alerts", m, severity): n for m, by in meta.alerts.items() for severity, n in by.items()}
        return counts

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values."""
        return {
            ("open_rows",): float(sum(len(model.arriving) for model in self._models.values())),
            ("rows",): float(sum(len(m.sealed) + sum(map(len, m.final.values())) for m in self._models.values())),
        }
