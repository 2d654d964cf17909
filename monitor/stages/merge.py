"""Stage 2: one partition of the `partials` topic → sealed panes, final windows, results and alerts.

Everything is decided at an offset of the partition's log: a window is final at the watermark record that passes its end, made of the
partials that stand before that record, never because a timer ran. Two owners therefore publish the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from monitor.errors import OffsetGap, StateMismatch
from monitor.findings import ClosedWindow, Judgement
from monitor.layout import Layout
from monitor.ports import Checkpoint, Message, Outbox, Record
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages import partials
from monitor.stages.rows import CLOSED, EMITTED, META, OPEN, Versions, row_key
from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS, Window, WindowSpec

MAX_EMPTY_WINDOWS = 24
"""Windows without a row that are still published after the last one with rows: enough for a traffic alert, then silence."""

Judge = Callable[[ClosedWindow, bytes], Judgement]
"""(closed window, decision state before it) → what to publish and the state after it."""


class _Meta(msgspec.Struct, kw_only=True):
    """What a partition knows beside its rows; a function of the log up to `hi`."""

    partition: int
    topic_id: str | None = None
    started: bool = False
    marks: dict[str, partials.Watermark] = {}
    late: dict[str, int] = {}
    late_shares: dict[str, tuple[int, int]] = {}
    """pane and source partition → (hi, rows) of the newest partial that came too late"""
    duplicates: int = 0
    gaps: int = 0
    lost: int = 0
    windows: dict[str, int] = {}
    alerts: dict[str, dict[str, int]] = {}
    gc_panes: dict[str, int] = {}
    gc_windows: dict[str, int] = {}


class _Version(msgspec.Struct, array_like=True):
    """One cumulative partial as it arrived: at which offset of `partials`, and its bytes."""

    arrived: int
    hi: int
    n: int
    data: bytes


class _Share(msgspec.Struct, array_like=True):
    """What a source partition put into a sealed pane: its last offset folded and its rows."""

    hi: int
    n: int
    first: int
    last: int


class _Sealed(msgspec.Struct, array_like=True):
    """A pane of one model version, merged over source partitions: profiles by reference sha256, in the order of their references."""

    profiles: list[tuple[str, bytes]]
    shares: dict[str, _Share]
    lost: int


class _WindowState(msgspec.Struct, kw_only=True):
    """A final window: frozen bytes until they are sent, and the decision state after it (per version), which the next one starts from."""

    after: dict[str, bytes]
    live: list[str]
    unseen_for: dict[str, int] = {}
    empty: int = 0
    results: list[tuple[bytes, bytes]] = []
    alerts: list[tuple[bytes, bytes]] = []


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(_Meta).decode
_decode_versions = msgspec.msgpack.Decoder(list[_Version]).decode
_decode_sealed = msgspec.msgpack.Decoder(_Sealed).decode
_decode_window = msgspec.msgpack.Decoder(_WindowState).decode


@dataclass(slots=True)
class _Row:
    """Any row of this stage. `value` is what its payload decodes to; `hi` an offset of `partials`."""

    key: bytes
    state: int
    hi: int
    value: list[_Version] | _Sealed | _WindowState
    sent_ms: int = 0
    durable: tuple[int, int] | None = None


@dataclass(slots=True)
class _Model:
    """A model's rows, by what they are for."""

    arriving: dict[tuple[int, str], dict[str, _Row]]
    """(pane start, version) → source/partition/chunk → row of versions."""
    sealed: dict[int, dict[str, _Row]]
    """pane start → version → sealed row."""
    final: dict[WindowSpec, list[tuple[Window, _Row]]]
    """specification → final windows kept, by end; the last one carries the decision state."""
    due: set[Window]
    """Windows that have rows, or may be published empty, and are not final."""


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
        self._hi = -1
        self._meta = _Meta(partition=partition, topic_id=topic_id)
        self._meta_dirty = False
        self._models: dict[str, _Model] = {}
        self._kept_references: set[str] = set()
        self._new_references: list[Reference] = []
        self._dirty: dict[bytes, _Row] = {}
        self._collected: list[bytes] = []
        self._snapshot: list[tuple[_Row, int, int]] = []
        self._resume_at: set[int] = set()
        self._versions = Versions(rows, epoch)
        self._load()
        self._loaded_ms = now_ms
        self._durable_hi = self._hi

    # --- loading

    def _load(self) -> None:
        """Take every row as it was at `meta.hi`: a crash may have left some that are ahead, and reading on makes them again."""
        best = self._versions.best
        if META in best:
            self._hi = best[META].hi
            stored = _decode_meta(best[META].payload)
            if stored.topic_id and self._meta.topic_id and stored.topic_id != self._meta.topic_id:
                raise StateMismatch(
                    f"topic {self._settings.topic('partials')} was deleted and created again since its state was written; "
                    "start with another `app` name to begin anew"
                )
            stored.topic_id = stored.topic_id or self._meta.topic_id
            self._meta = stored
        for key, stored_row in list(best.items()):
            kind, *parts = key.decode().split("|")
            if kind == "reference":
                reference = Reference.from_bytes(stored_row.payload)
                self._kept_references.add(reference.sha256)
                self._references.keep(reference)
            elif kind in ("pane", "sealed"):
                name, version, start, size = parts[0], parts[1], int(parts[2]), int(parts[3])
                if start + size <= self._meta.gc_panes.get(name, NEVER_MS):
                    self._versions.drop(key)
                    continue
                self._check_pane(name, size)
                if kind == "pane":
                    versions = [v for v in _decode_versions(stored_row.payload) if v.arrived <= self._hi]
                    if versions:
                        row = _Row(key, OPEN, versions[-1].arrived, versions)
                        self._model(name).arriving.setdefault((start, version), {})["|".join(parts[4:])] = row
                elif stored_row.hi <= self._hi:
                    row = _Row(key, stored_row.state, stored_row.hi, _decode_sealed(stored_row.payload))
                    self._model(name).sealed.setdefault(start, {})[version] = row
            elif kind == "window" and stored_row.hi <= self._hi:
                self._load_window(key, parts, stored_row.state, stored_row.hi, stored_row.payload)
        best.clear()
        for name, model in self._models.items():
            self._rebuild_due(name, model)

    def _load_window(self, key: bytes, parts: list[str], state: int, hi: int, payload: bytes) -> None:
        model, end, size, step = parts[0], int(parts[1]), int(parts[2]), int(parts[3])
        if end <= self._meta.gc_windows.get(f"{model}|{size}|{step}", NEVER_MS):
            self._versions.drop(key)
            return
        row = _Row(key, state, hi, _decode_window(payload), sent_ms=self._now_ms)
        row.durable = (state, hi)
        window = Window(end, size, step)
        self._model(model).final.setdefault(window.spec, []).append((window, row))

    def _check_pane(self, model: str, size_ms: int) -> None:
        if size_ms != self._settings.model(model).pane_ms:
            raise StateMismatch(
                f"the windows of model {model} were changed while state of the old ones is kept; "
                "restore them, or start with another `app` name"
            )

    def _rebuild_due(self, name: str, model: _Model) -> None:
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

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model({}, {}, {}, set()))

    # --- reading

    @property
    def next_offset(self) -> int:
        """Offset to read next; -1 when nothing was read yet."""
        return self._hi + 1 if self._meta.started else -1

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare that no record lies between here and `offset`; `lost`: there were some, retention took them."""
        n = offset - (self._hi + 1)
        if not self._meta.started or lost or self._gap_expected == self._hi + 1:
            if self._meta.started:
                self._meta.lost += n if lost else 0
                self._meta.gaps += 0 if lost else n
            self._hi = offset - 1
        else:
            self._resume_at.add(offset)
        self._meta.started = self._meta_dirty = True

    _gap_expected = -1

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Apply partials and watermarks in order; see ports.PartitionStage."""
        self._now_ms = now_ms
        records = [r for r in records if r.offset > self._hi]
        expected = self._hi + 1 if self._meta.started else (records[0].offset if records else 0)
        for record in records:
            if record.offset != expected and record.offset not in self._resume_at:
                self._gap_expected = expected
                raise OffsetGap(expected, record.offset)
            expected = record.offset + 1
        self._resume_at.clear()
        for record in records:
            self._meta.gaps += record.offset - self._hi - 1 if self._meta.started else 0
            if record.value:
                item = partials.decode(record.value)
                if isinstance(item, partials.Partial):
                    self._take(item, record.value, record.offset)
                else:
                    self._pass(item, record.offset)
            self._hi = record.offset
            self._meta.started = self._meta_dirty = True

    def _take(self, partial: partials.Partial, data: bytes, offset: int) -> None:
        """Keep a partial, if its pane still takes any."""
        name, start = partial.model, partial.start_ms
        model = self._model(name)
        self._check_pane(name, partial.size_ms)
        source = f"{partial.source}|{partial.partition}"
        sealed = model.sealed.get(start, {}).get(partial.version)
        if sealed is not None:
            assert isinstance(sealed.value, _Sealed)
            self._count_late(partial, sealed.value.shares.get(source))
            return
        if start + partial.size_ms <= self._meta.gc_panes.get(name, NEVER_MS) or self._is_passed(model, start):
            self._count_late(partial, None)
            return
        place = f"{source}|{partial.chunk}"
        rows = model.arriving.setdefault((start, partial.version), {})
        row = rows.get(place)
        if row is None:
            key = row_key("pane", name, partial.version, start, partial.size_ms, source, partial.chunk)
            row = rows[place] = _Row(key, OPEN, -1, [])
        assert isinstance(row.value, list)
        if row.value and partial.hi <= row.value[-1].hi:
            self._meta.duplicates += 1
            return
        row.value.append(_Version(offset, partial.hi, partial.n, data))
        row.hi = offset
        self._dirty[row.key] = row
        self._expect(name, model, start)

    def _count_late(self, partial: partials.Partial, share: _Share | None) -> None:
        """Count the rows by which a partial exceeds what its pane was sealed with."""
        place = f"{partial.model}|{partial.version}|{partial.start_ms}|{partial.source}|{partial.partition}"
        hi, n = self._meta.late_shares.get(place, (share.hi, share.n) if share else (-1, 0))
        if partial.hi <= hi:
            self._meta.duplicates += 1
            return
        self._meta.late_shares[place] = (partial.hi, partial.n)
        self._meta.late[partial.model] = self._meta.late.get(partial.model, 0) + partial.n - n

    def _is_passed(self, model: _Model, start_ms: int) -> bool:
        """Whether a window that the pane belongs to is already final."""
        for spec, finals in model.final.items():
            first = next(spec.windows_of(start_ms, start_ms + 1))
            if finals and first.end_ms <= finals[-1][0].end_ms:
                return True
        return False

    def _expect(self, name: str, model: _Model, start_ms: int) -> None:
        for spec in self._settings.model(name).specs:
            finals = model.final.get(spec)
            done = finals[-1][0].end_ms if finals else NEVER_MS
            model.due.update(w for w in spec.windows_of(start_ms, start_ms + 1) if w.end_ms > done)

    def _expect_empty(self, model: _Model, window: Window, row: _Row) -> None:
        assert isinstance(row.value, _WindowState)
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
            self._hi += 1
            for start, version in sorted(model.arriving):
                self._seal(name, model, start, version, self._hi)
            for window in sorted(model.due):
                if any(window.start_ms <= start < window.end_ms for start in model.sealed):
                    self._finalise(name, model, window, self._hi)
            model.due.clear()
        self._meta_dirty = True

    def _seal(self, name: str, model: _Model, start: int, version: str, offset: int) -> None:
        """Merge what the source partitions sent of a pane before `offset` into one row, which nothing changes any more."""
        rows = model.arriving.pop((start, version))
        if version in model.sealed.get(start, {}):  # sealed before a crash; these rows were about to be deleted
            self._collected += [row.key for row in rows.values()]
            return
        pane_ms = self._settings.model(name).pane_ms
        by_reference: dict[str, Profile] = {}
        shares: dict[str, _Share] = {}
        lost = 0
        for place in sorted(rows):
            versions = rows[place].value
            assert isinstance(versions, list)
            partial = partials.decode(versions[-1].data)
            assert isinstance(partial, partials.Partial)
            profile = Profile.from_bytes(partial.profile, self._layout(partial.reference))
            if partial.reference in by_reference:
                by_reference[partial.reference].merge(profile)
            else:
                by_reference[partial.reference] = profile
            shares[f"{partial.source}|{partial.partition}"] = _Share(partial.hi, partial.n, partial.first, partial.last)
            lost += partial.lost
        profiles = [(sha, by_reference[sha].to_bytes()) for sha in sorted(by_reference, key=self._age)]
        key = row_key("sealed", name, version, start, pane_ms)
        row = _Row(key, CLOSED, offset, _Sealed(profiles, shares, lost))
        model.sealed.setdefault(start, {})[version] = row
        self._dirty[key] = row
        self._collected += [r.key for r in rows.values()]

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
        if sha256 not in self._kept_references:
            self._kept_references.add(sha256)
            self._new_references.append(reference)
        return reference.layout

    # --- final windows

    def _finalise(self, name: str, model: _Model, window: Window, offset: int) -> None:
        """Judge a window and freeze everything that its end changes in one row."""
        finals = model.final.setdefault(window.spec, [])
        before = finals[-1][1].value if finals else _WindowState(after={}, live=[])
        assert isinstance(before, _WindowState)
        panes = [model.sealed[s] for s in sorted(model.sealed) if window.start_ms <= s < window.end_ms]
        present = sorted({version for pane in panes for version in pane})
        state = _WindowState(after={}, live=present or before.live, empty=0 if present else before.empty + 1)
        for version in state.live:
            sealed = [pane[version].value for pane in panes if version in pane]
            closed = self._closed_window(name, version, window, sealed)
            judgement = self._judge(closed, before.after.get(version, b""))
            state.after[version] = judgement.after
            state.results += judgement.results
            state.alerts += judgement.alerts
            for severity in judgement.alert_severities:
                per_model = self._meta.alerts.setdefault(name, {})
                per_model[severity] = per_model.get(severity, 0) + 1
        for version, after in before.after.items():
            unseen = before.unseen_for.get(version, 0) + 1
            if version not in state.after and unseen <= MAX_EMPTY_WINDOWS:
                state.after[version], state.unseen_for[version] = after, unseen
        key = row_key("window", name, window.end_ms, window.size_ms, window.step_ms)
        row = _Row(key, CLOSED, offset, state)
        finals.append((window, row))
        self._dirty[key] = row
        self._meta.windows[name] = self._meta.windows.get(name, 0) + 1
        self._expect_empty(model, window, row)

    def _closed_window(self, name: str, version: str, window: Window, sealed: Sequence[object]) -> ClosedWindow:
        """Merge a window's panes under the newest of their references."""
        by_reference: dict[str, Profile] = {}
        offsets: dict[str, dict[str, list[int]]] = {}
        lost = 0
        for pane in sealed:
            assert isinstance(pane, _Sealed)
            lost += pane.lost
            for sha, data in pane.profiles:
                profile = Profile.from_bytes(data, self._layout(sha))
                if sha in by_reference:
                    by_reference[sha].merge(profile)
                else:
                    by_reference[sha] = profile
            for place, share in pane.shares.items():
                source, partition = place.split("|")
                span = offsets.setdefault(source, {}).setdefault(partition, [share.first, share.last])
                span[:] = [min(span[0], share.first), max(span[1], share.last)]
        judged = max(by_reference, key=self._age, default=None)
        if judged is None:
            reference = self._references.at(name, version, window.start_ms)
            profile = Profile(reference.layout if reference else Layout())
        else:
            reference = self._references.by_sha256(judged) if judged else None
            profile = by_reference.pop(judged)
        return ClosedWindow(
            model=name,
            version=version,
            window=window,
            segment="all",
            profile=profile,
            reference=reference,
            revision=0,
            rows_other_layout=sum(other.n for other in by_reference.values()),
            lost_offsets=lost,
            source_offsets=offsets,
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
        return any(isinstance(row.value, _WindowState) and row.state == CLOSED for row in self._dirty.values())

    def checkpoint(self) -> Checkpoint | None:
        """Return what changed since the last checkpoint."""
        for key in self._collected_durable:
            self._versions.drop(key)
        self._collected_durable, self._collected = self._collected + self._collect(), []
        self._collected_durable = [key for key in self._collected_durable if key not in self._dirty]
        if not (self._dirty or self._meta_dirty or self._versions.has_dropped):
            return None
        rows = [(row.key, row.state, row.hi, _encode(row.value)) for row in self._dirty.values()]
        rows += [(row_key("reference", r.sha256), OPEN, 0, r.to_bytes()) for r in self._new_references]
        self._snapshot = [(row, row.state, row.hi) for row in self._dirty.values()]
        meta = (self._hi, _encode(self._meta))
        checkpoint = self._versions.snapshot(rows, meta, retire=self._may_retire)
        self._dirty, self._meta_dirty, self._new_references = {}, False, []
        return checkpoint

    _collected_durable: Sequence[bytes] = ()

    @property
    def _may_retire(self) -> bool:
        """Whether owners before this one are surely gone: a paused one ends itself well before."""
        return self._now_ms - self._loaded_ms >= self._settings.retire_after_ms

    def _collect(self) -> list[bytes]:
        """Raise the collection marks over what no later window needs; the rows are deleted one checkpoint later."""
        collected: list[bytes] = []
        for name, model in self._models.items():
            specs = self._settings.model(name).specs
            for spec, finals in model.final.items():
                while len(finals) > 1 and self._is_ripe(finals[0][1]):
                    window, row = finals.pop(0)
                    self._meta.gc_windows[f"{name}|{spec.size_ms}|{spec.step_ms}"] = window.end_ms
                    collected.append(row.key)
            if any(spec not in model.final for spec in specs):
                continue
            needed_from = min(self._needed_from(model.final[spec][0]) for spec in specs)
            pane_ms = self._settings.model(name).pane_ms
            for start in sorted(model.sealed):
                rows = model.sealed[start].values()
                if start + pane_ms > needed_from or any(row.hi > self._durable_hi for row in rows):
                    break
                self._meta.gc_panes[name] = max(start + pane_ms, self._meta.gc_panes.get(name, NEVER_MS))
                collected += [row.key for row in model.sealed.pop(start).values()]
        if collected:
            self._meta_dirty = True
        return collected

    def _needed_from(self, oldest: tuple[Window, _Row]) -> int:
        window, row = oldest
        return window.start_ms + (window.step_ms if self._is_ripe(row) else 0)

    def _is_ripe(self, row: _Row) -> bool:
        return (
            row.state == EMITTED
            and row.durable == (EMITTED, row.hi)
            and row.hi <= self._durable_hi
            and row.sent_ms + self._settings.retire_after_ms <= self._now_ms
        )

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable."""
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        for row, state, hi in self._snapshot:
            row.durable = (state, hi)
        self._snapshot = []

    def outbox(self, now_ms: int) -> Outbox:
        """Results and alerts of durable final windows, in order of end."""
        self._now_ms = now_ms
        ready = [
            (window, name, row)
            for name, model in self._models.items()
            for finals in model.final.values()
            for window, row in finals
            if row.state == CLOSED and row.durable == (CLOSED, row.hi)
        ]
        ready.sort(key=lambda item: item[:2])
        messages: list[Message] = []
        for window, _, row in ready:
            assert isinstance(row.value, _WindowState)
            for topic, records in (("results", row.value.results), ("alerts", row.value.alerts)):
                messages += [Message(self._settings.topic(topic), key, value) for key, value in records]
        return Outbox(tuple(messages), (), [row for _, _, row in ready])

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """Results and alerts are on their topics: their bytes need not be kept."""
        rows = outbox.token
        assert isinstance(rows, list)
        for row in rows:
            row.state, row.sent_ms = EMITTED, now_ms
            row.value.results, row.value.alerts = [], []
            self._dirty[row.key] = row

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read."""
        meta = self._meta
        counts: dict[tuple[str, ...], int] = {("duplicates",): meta.duplicates, ("gaps",): meta.gaps, ("lost",): meta.lost}
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
