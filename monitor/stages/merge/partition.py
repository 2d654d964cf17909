"""Stage 2: one partition of the `partials` topic → sealed panes, final windows, results and alerts.

Everything is decided at an offset of the partition's log: a window is final at the watermark record that passes its end, made of the
partials that stand before that record, never because a timer ran. Two owners therefore publish the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from monitor.columns import offsets_of
from monitor.ports import Checkpoint, Outbox, Record
from monitor.reference import References
from monitor.stages import codec_1, partials
from monitor.stages.cursor import Cursor
from monitor.stages.kept import KeptReferences
from monitor.stages.merge.arrivals import Arrived
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.closing import Closer
from monitor.stages.merge.collection import Collection, Settled
from monitor.stages.merge.early_looks import EarlyLooks, Look
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.final_rows import Final
from monitor.stages.merge.final_windows import FinalWindows, Judge
from monitor.stages.merge.history import History
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.performance_cells import OutcomeSums
from monitor.stages.merge.performance_windows import JudgePerformance, PerformanceWindows
from monitor.stages.merge.rows import ModelRows
from monitor.stages.merge.sealing import Sealing
from monitor.stages.merge.sending import outbox_of
from monitor.stages.merge.windows_of import WindowsOf
from monitor.stages.rows import CODEC_VERSION, EMITTED, META, Predecessors, Stored, Versions, check_kinds, key_parts
from monitor.stages.settings import Settings, check_pane_size
from monitor.stages.topology import change_sources, is_ahead, refuse_other_sources
from monitor.stages.watermarks import Watermarks
from monitor.windows import FOREVER_MS, NEVER_MS


class MergePartition:
    """State machine of one partition of `partials` (ports.PartitionStage).

    topology: partitions of every source of predictions. judge, look, judge_performance: see pipeline; without `look` there are no early
    alarms, without `judge_performance` labels are not joined.
    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        *,
        topology: Mapping[str, int],
        epoch: int,
        judge: Judge,
        look: Look | None = None,
        judge_performance: JudgePerformance | None = None,
        references: References,
        rows: Iterable[tuple[bytes, bytes]] = (),
        topic_id: str | None = None,
        now_ms: int = 0,
    ) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._predecessors = Predecessors(now_ms, settings.retire_after_ms)
        self._versions = Versions(rows, epoch)
        self._kept = KeptReferences(references, self._versions.best)
        topic = settings.topic("partials")
        self._meta, hi = Meta.load(self._versions.best, partition, topic, topic_id)
        self._meta_dirty = change_sources(
            topic, self._meta.sources, topology, self._meta.marks, ahead=is_ahead(self._versions.best)
        )
        self._meta.sources = dict(topology)
        self._known_sources = frozenset((*settings.sources, *topology, settings.topic("outcomes")))
        self._cursor = Cursor(self._meta.position, hi)
        self._durable_hi = hi
        self._watermarks = Watermarks(topology, self._meta.marks)
        self._collection = Collection(settings, self._meta.gc_panes, self._meta.gc_windows)
        self._collected: list[bytes] = []
        self._changes = Changes()
        self._history = History(settings, references.hash_key, self._changes)
        self._closer = Closer(settings, references, self._kept)
        self._sealing = Sealing(
            settings, self._closer, self._changes, self._history, self._collection, self._watermarks, self._meta
        )
        self._outcomes: PerformanceWindows | None = None
        if judge_performance is not None:
            sums = OutcomeSums(references, self._kept, settings.topic("references"))
            self._outcomes = PerformanceWindows(settings, judge_performance, sums, self._changes, self._meta)
        note = self._outcomes.note if self._outcomes is not None else None
        self._windows = FinalWindows(settings, judge, self._closer, self._changes, self._history, self._meta, note)
        self._early = EarlyLooks(settings, look, self._closer, self._changes, self._meta)
        self._models: dict[str, ModelRows] = {}
        self._load()

    # --- loading

    def _take_windows(self) -> None:
        """Go on with the windows of now; a kind that was not there before begins after all that was sealed."""
        sealed: dict[str, int] = {}
        for name, model in self._models.items():
            gone = max(self._meta.gc_panes.get(name, NEVER_MS), self._meta.finished.get(name, NEVER_MS))
            sealed[name] = max(gone, model.sealed_ms(self._settings.model(name).pane_ms))
        stored, windows_of = self._meta.windows_of, WindowsOf.configured(self._settings)
        then = windows_of if isinstance(stored, msgspec.UnsetType) else stored
        self._meta.windows_of = windows_of.after(then, sealed)
        self._meta_dirty |= self._meta.windows_of != stored
        for name, model in self._models.items():
            model.since_ms = self._meta.windows_of.since_ms.get(name, {})

    def _load(self) -> None:
        """Take every row as it was at meta's offset: a crash may have left some that are ahead, and reading on makes them again."""
        best = self._versions.best
        check_kinds(best)
        self._changes.outdate(codec_1.upgrade(best))
        pieces: dict[bytes, dict[int, Stored]] = {}
        for key in list(best):
            kind, *parts = key_parts(key)
            if kind == "reference" or key == META:
                continue
            if self._collection.has_row(kind, parts) or (self._outcomes and self._outcomes.has_collected(kind, parts)):
                self._versions.drop(key)
            elif best[key].hi <= self._cursor.hi:
                if kind in ("partial", "outcome"):
                    self._load_partial(key, best[key])
                else:
                    whole, _, piece = key.rpartition(b"|")
                    pieces.setdefault(whole, {})[int(piece)] = best[key]
        for key, of_row in pieces.items():
            self._load_row(key, of_row)
        best.clear()
        if self._outcomes is not None:
            self._outcomes.give_up_outdated()
        self._take_windows()
        for name, model in self._models.items():
            settings = self._settings.model(name)
            if settings.revising is not None:
                self._sealing.begin(name, model)
            model.expect_all(settings.specs)
            self._history.give_up_learnt(name, model)
            self._early.begin(name, self._watermarks.reached(settings.sources, settings.grace_ms))

    def _load_partial(self, key: bytes, stored: Stored) -> None:
        partial = partials.decode(stored.payload)
        if isinstance(partial, partials.OutcomePartial) and self._outcomes is not None:
            self._outcomes.load_arrived(key, stored, partial)
        if not isinstance(partial, partials.Partial):
            return
        check_pane_size(partial.model, partial.size_ms, self._settings.model(partial.model))
        arrivals = self._model(partial.model).arrivals(partial)
        arrived = arrivals.setdefault(partial.hi, {})[partial.chunk] = Arrived(key, stored.hi, partial, stored.payload)
        if stored.codec != CODEC_VERSION:
            self._changes.arrive(arrived)

    def _load_row(self, key: bytes, pieces: Mapping[int, Stored]) -> None:
        kind, name, *parts = key_parts(key)
        if kind in ("known", "reported"):
            if self._outcomes is not None:
                self._outcomes.load_row(key, pieces, self._now_ms)
            return
        if kind in ("sealed", "found", "kept"):
            check_pane_size(name, int(parts[2]), self._settings.model(name))
        row = self._model(name).load(key, pieces)
        if row is None:
            return
        if isinstance(row.value, Final | Early):
            row.sent_ms = self._now_ms
        if pieces[0].codec != CODEC_VERSION:
            self._changes.put(row)

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
        for _ in self.steps(records, now_ms):
            pass

    def steps(self, records: Sequence[Record], now_ms: int) -> Iterator[None]:
        """Do the same, with a pause after each record and each window; see ports.Stepwise."""
        self._now_ms = now_ms
        records = [record for record in records if record.offset >= self.next_offset]
        if not records:
            return
        self._cursor.take(offsets_of(records))
        self._meta_dirty = True
        for record in records:
            if not record.value:
                continue
            item = partials.decode(record.value)
            if isinstance(item, partials.Partial):
                self._sealing.take(self._model(item.model), item, record.value, record.offset)
            elif isinstance(item, partials.Watermark):
                yield from self._pass(item, record.offset)
            elif self._outcomes is not None:
                check_pane_size(item.model, item.size_ms, self._settings.model(item.model))
                self._outcomes.take(item, record.value, record.offset)
            yield

    # --- the watermark

    def _pass(self, mark: partials.Watermark, offset: int) -> Iterator[None]:
        """Take a watermark, and finish what it passes."""
        refuse_other_sources(mark, self._known_sources, self._versions.epoch)
        is_of_outcomes = self._outcomes is not None and self._outcomes.watermarks.take(mark)
        if not is_of_outcomes and not self._watermarks.take(mark):
            return
        reached: dict[tuple[tuple[str, ...], int], int | None] = {}
        for name in sorted(self._models):
            settings = self._settings.model(name)
            group = (settings.sources, settings.grace_ms)
            if group not in reached:
                reached[group] = self._watermarks.reached(*group)
            upto = reached[group]
            if upto is not None and not is_of_outcomes:
                yield from self._finish(name, upto, offset)
            if upto is not None and self._outcomes is not None:
                self._outcomes.pass_to(name, upto, offset)
                yield

    def _finish(self, name: str, upto_ms: int, offset: int, *, with_empty: bool = True) -> Iterator[None]:
        """Seal the panes and finalise the windows of a model that end at or before `upto_ms`, in order of end; add late rows in between.

        What was cut off at a time is added to the windows that end then or later before they are final, and restates those before.
        """
        model = self._models[name]
        self._sealing.seal(name, model, upto_ms, offset)
        for cut_ms, panes in self._sealing.pop_late(name, model, upto_ms):
            yield from self._finalise(name, model, cut_ms - 1, offset, with_empty=with_empty)
            self._windows.restate(name, model, self._sealing.add_late(name, model, cut_ms, panes, offset), offset)
        self._sealing.settle(name, model, upto_ms)
        yield from self._finalise(name, model, upto_ms, offset, with_empty=with_empty)

    def _finalise(self, name: str, model: ModelRows, upto_ms: int, offset: int, *, with_empty: bool) -> Iterator[None]:
        while model.due:
            window = min(model.due)
            if window.end_ms > upto_ms:
                break
            if with_empty:
                self._early.pass_to(name, model, window.end_ms - 1, offset)
            model.due.discard(window)
            if with_empty or model.panes(window):
                self._windows.finalise(name, model, window, offset)
                yield
        if with_empty:
            self._early.pass_to(name, model, upto_ms, offset)

    def finish_input(self) -> None:
        """No more input will come: finalise every window that has rows, whatever the watermark says."""
        for name in sorted(self._models):
            self._cursor.hi += 1
            for _ in self._finish(name, FOREVER_MS, self._cursor.hi, with_empty=False):
                pass
            if self._outcomes is not None:
                self._outcomes.finish(name, FOREVER_MS, self._cursor.hi)
        self._meta_dirty = True

    # --- time, checkpoint, sending

    def is_quiet(self, now_ms: int) -> bool:
        """Never: this stage does nothing because of silence."""
        return False

    def advance(self, now_ms: int, *, at_end: bool, end: int | None = None) -> None:
        """Note the time, by which emitted rows are retired."""
        self._now_ms = now_ms
        self._predecessors.note(now_ms, end)

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a final window waits to become durable."""
        return self._changes.has_final

    def checkpoint(self) -> Checkpoint | None:
        """Return what changed since the last checkpoint."""
        for key in self._collected:  # the marks that cover them became durable with the last checkpoint
            self._versions.drop(key)
        self._collected = self._changes.pop_outdated() + self._collect()
        if not (self._changes or self._meta_dirty or self._versions.has_dropped):
            return None
        rows = self._changes.pop_rows() + self._kept.new_rows()
        self._meta_dirty = False
        return self._versions.snapshot(
            rows, (self._cursor.hi, self._meta.to_bytes()), retire=self._predecessors.are_overtaken(self._durable_hi)
        )

    def _collect(self) -> list[bytes]:
        """Raise the collection marks over what no later window needs; the rows are deleted one checkpoint later."""
        collected: list[bytes] = []
        for name, model in self._models.items():
            settled = Settled(self._durable_hi, self._now_ms - self._settings.retire_after_ms, self._sealing.settled_ms(name))
            collected += self._collection.collect(name, model, settled)
        if self._outcomes is not None:
            collected += self._outcomes.collect(Settled(self._durable_hi, self._now_ms - self._settings.retire_after_ms))
        if collected:
            self._meta_dirty = True
        return collected

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable."""
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        self._changes.committed()
        for model in self._models.values():
            model.rest()

    def outbox(self, now_ms: int) -> Outbox:
        """Results and alerts of durable final windows and looks, as they were decided and in order of end; then learnt references.

        A few MiB at a time: what is to be sent waits packed.
        """
        self._now_ms = now_ms
        reports = self._outcomes.ready() if self._outcomes is not None else ()
        return outbox_of(self._settings.topic, self._models, reports)

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """Everything is on its topic: its bytes need not be kept."""
        rows = outbox.token
        assert isinstance(rows, list)
        for row in rows:
            row.state, row.sent_ms = EMITTED, now_ms
            sent = row.value
            sent.forget_sent()
            row.replace(sent)
            self._changes.put(row)

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read."""
        return self._meta.counters()

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values."""
        n_outcomes = self._outcomes.n_rows if self._outcomes is not None else 0
        return {
            ("open_rows",): float(sum(len(model.arriving) for model in self._models.values())),
            ("rows",): float(sum(len(m.sealed) + sum(map(len, m.final.values())) for m in self._models.values()) + n_outcomes),
        }

    def memory(self) -> Mapping[str, int]:
        """Bytes by what takes them: all is of windows, final or to come."""
        return {"windows": sum(model.held_bytes for model in self._models.values())}
