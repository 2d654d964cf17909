"""Windows and graces that are others in the next life of all workers: exact, or refused with a sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from monitor.decision.early import OpenWindow
from monitor.errors import StateMismatch
from monitor.findings import ClosedWindow
from monitor.judgement.looks import Before, Looked
from monitor.ports import Message, PartitionStage
from monitor.reference import References
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge.partition import MergePartition
from monitor.stages.rows import META, parse, stored_value
from monitor.stages.settings import ModelSettings, Revising, Settings
from monitor.windows import Window, WindowSpec
from tests.simulation import SOURCE, BareFormat, Place, Topic, count_rows, finish, record, run, settings

Rows = list[tuple[bytes, bytes]]
PANE = 10
SHORT, LONG, HOPPING = WindowSpec(10, 10), WindowSpec(40, 40), WindowSpec(50, 10)
KINDS = (SHORT, LONG, HOPPING, WindowSpec(30, 30), WindowSpec(20, 10), WindowSpec(240, 240))
"""The last one is looked at while it is open."""
LIFE_MS = 150


def of(specs: tuple[WindowSpec, ...], grace_ms: int, **kwargs: object) -> Settings:
    """Settings whose models have panes of 10, whatever their windows."""
    return replace(settings(), defaults=ModelSettings(specs, grace_ms=grace_ms, asked_pane_ms=PANE, early_above_ms=100, **kwargs))  # type: ignore[arg-type]


class App:
    """One source partition and one of stage 2."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        partials = Topic()
        self.ingest = Place(Topic(), self._ingest, partials.append)
        self.merge = Place(partials, self._merge, self.published.append)
        self.settings = of((SHORT,), 0)
        self.looked_at: set[Window] = set()

    def _ingest(self, epoch: int, items: Rows, now_ms: int) -> PartitionStage:
        return IngestPartition(
            self.settings, SOURCE, 0,
            partitions=1, epoch=epoch, wire=BareFormat(), references=References(), rows=items, now_ms=now_ms,
        )  # fmt: skip

    def _merge(self, epoch: int, items: Rows, now_ms: int) -> PartitionStage:
        return MergePartition(
            self.settings, 0,
            topology={SOURCE: 1}, epoch=epoch, judge=count_rows, look=self._look, references=References(), rows=items,
            now_ms=now_ms,
        )  # fmt: skip

    def _look(self, opened: OpenWindow, newest: Callable[[int], ClosedWindow], before: Before) -> Looked:
        self.looked_at.add(opened.closed.window)
        return Looked()

    def live(self, dice: random.Random, times: list[int], tick_ms: int) -> None:
        """Put events and a tick on the log; owners die at any step, and in the end all stop cleanly."""
        self.looked_at.clear()
        log = self.ingest.log
        for time in times:
            log.records.append(record(len(log.records), "m", time))
        log.records.append(record(len(log.records), "tick", tick_ms))
        run([self.ingest, self.merge], dice, 200)
        finish(self.ingest, dice)
        finish(self.merge, dice)

    def windows(self, *, is_restated: bool = False) -> dict[Window, int]:
        """Rows of each window that was published, as it was at last; what is not restated never changes."""
        found: dict[bytes, int] = {}
        for message in self.published:
            key, n = message.key or b"", msgspec.json.decode(message.value or b"")["n"]
            assert is_restated or found.get(key, n) == n
            found[key] = max(n, found.get(key, 0))
        return {_window(key): n for key, n in found.items()}


def _window(key: bytes) -> Window:
    _, start, size = key.decode().split("|")
    return Window(int(start) + int(size), int(size), 0)


@dataclass
class Oracle:
    """What rows are on time, in plain loops."""

    on_time: list[int] = field(default_factory=list)
    late: int = 0
    clock_ms: int = -1
    floor_ms: int = -(10**9)
    grace_ms: int | None = None

    @property
    def complete_ms(self) -> int:
        """End of the last pane that is closed."""
        return max(self.clock_ms - (self.grace_ms or 0), self.floor_ms) // PANE * PANE

    def live(self, times: list[int], tick_ms: int, grace_ms: int) -> None:
        if self.grace_ms is not None and grace_ms > self.grace_ms:
            self.floor_ms = max(self.floor_ms, self.clock_ms - self.grace_ms)
        self.grace_ms = grace_ms
        for time in times:
            self.clock_ms = max(self.clock_ms, time)
            if time // PANE * PANE + PANE <= max(self.clock_ms - grace_ms, self.floor_ms):
                self.late += 1
            else:
                self.on_time.append(time)
        self.clock_ms = max(self.clock_ms, tick_ms)

    @property
    def sealed_ms(self) -> int:
        """End of the last closed pane that has rows."""
        ends = {time // PANE * PANE + PANE for time in self.on_time}
        return max((end for end in ends if end <= self.complete_ms), default=-LIFE_MS)

    def rows(self, window: Window) -> int:
        return sum(window.start_ms <= time < window.end_ms for time in self.on_time)


def _times(dice: random.Random, start_ms: int) -> list[int]:
    """Event times of a life, some out of order; of some panes all that comes is late."""
    silent = {start_ms // PANE + pane for pane in range(LIFE_MS // PANE) if dice.random() < 0.3}
    times = [start_ms + i - (dice.randrange(60) if dice.random() < 0.2 else 0) for i in range(LIFE_MS)]
    return [max(0, time) for i, time in enumerate(times) if time < start_ms + i or time // PANE not in silent]


@pytest.mark.parametrize("seed", range(30))
def test_windows_that_late_rows_restate_are_whole_too(seed: int) -> None:
    """All rows come to count; in the end a kind of window that stays has all of them."""
    dice, app, oracle = random.Random(seed), App(), Oracle()
    kept, revising = dice.choice(KINDS), Revising(1_000, PANE)
    rows: list[int] = []
    for life in range(4):
        specs = tuple(sorted({kept, *dice.sample(KINDS, dice.randrange(3))}))
        grace_ms = dice.choice((0, 5, 20, 40))
        app.settings = of(specs, grace_ms, revising=revising)
        times, tick_ms = _times(dice, life * LIFE_MS), (life + 1) * LIFE_MS + 1_000 * (life == 3)
        app.live(dice, times, tick_ms)
        oracle.live(times, tick_ms, grace_ms)
        rows += times
    found = app.windows(is_restated=True)
    for window, n in found.items():
        if window.size_ms == kept.size_ms:
            assert n == sum(window.start_ms <= time < window.end_ms for time in rows), window
    whole = {window._replace(step_ms=0) for time in rows for window in kept.windows_of(time, time + 1)}
    assert whole <= found.keys()
    assert sum(n for key, n in app.ingest.owner().counters().items() if key[-1] == "revised") == oracle.late
    assert oracle.late


@pytest.mark.parametrize("seed", range(60))
def test_windows_are_whole_and_every_row_is_counted_once_or_late_whatever_changes_between_lives(seed: int) -> None:
    """A kind of window that stays has all its windows; one that comes has those that begin after what was complete, and no one broken."""
    dice, app, oracle = random.Random(seed), App(), Oracle()
    begins: dict[WindowSpec, tuple[int, int]] = {}
    wanted: set[Window] = set()
    allowed: set[Window] = set()
    n_looked = 0
    for life in range(5):
        specs = tuple(sorted(dice.sample(KINDS, dice.randrange(1, 4))))
        grace_ms = dice.choice((0, 5, 20, 40))
        begins = {
            spec: begins.get(spec, (oracle.sealed_ms, oracle.complete_ms)) if life else (-LIFE_MS, -LIFE_MS) for spec in specs
        }
        app.settings = of(specs, grace_ms)
        times = _times(dice, life * LIFE_MS)
        tick_ms = (life + 1) * LIFE_MS - dice.randrange(30)
        app.live(dice, times, tick_ms)
        oracle.live(times, tick_ms, grace_ms)
        assert all(window.start_ms >= begins[window.spec][0] for window in app.looked_at)
        n_looked += len(app.looked_at)
        for spec in specs:
            for window in spec.windows_of(0, oracle.complete_ms):
                if window.end_ms <= oracle.complete_ms:
                    first, surely = begins[spec]
                    allowed |= {window._replace(step_ms=0)} if window.start_ms >= first else set()
                    wanted |= {window._replace(step_ms=0)} if window.start_ms >= surely and oracle.rows(window) else set()
    found = app.windows()
    for window, n in found.items():
        assert n == oracle.rows(window), window
    assert wanted <= found.keys() <= allowed
    assert n_looked or not any(window.size_ms == KINDS[-1].size_ms for window in found)
    stage = app.ingest.owner()
    assert sum(n for key, n in stage.counters().items() if key[-1] == "late") == oracle.late
    assert sum(n for key, n in app.merge.owner().counters().items() if key[-1] == "late_after_final") == 0
    assert oracle.late


class Store:
    """State of an ingest partition whose first life had a grace of 5."""

    def __init__(self, *, is_whole: bool = True) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.before = replace(settings(), defaults=replace(settings().defaults, grace_ms=5, sha256="five"))
        stage = self.owner(self.before)
        stage.skip_to(0)
        for offset, time in enumerate((1, 12)):
            stage.feed([record(offset, "m", time)], 0)
            checkpoint = stage.checkpoint()
            assert checkpoint is not None
            stage.committed(checkpoint)
            self.rows |= {key: value for key, value in checkpoint.rows if value is not None}
            if is_whole or not offset:
                self.rows.update([checkpoint.meta])  # type: ignore[list-item]

    def owner(self, own: Settings) -> IngestPartition:
        return IngestPartition(
            own, SOURCE, 0,
            partitions=1, epoch=1 if not self.rows else 2, wire=BareFormat(), references=References(), rows=self.rows.items(),
        )  # fmt: skip

    def change(self, **of_model: object) -> IngestPartition:
        return self.owner(replace(self.before, defaults=replace(self.before.defaults, **of_model)))  # type: ignore[arg-type]


class TestRefused:
    def test_a_grace_that_changes_where_rows_hold_more_than_meta_covers(self) -> None:
        message = r"the grace of model m was 5ms and is 7ms now, .* of predictions ended before a checkpoint was complete: start all workers"
        with pytest.raises(StateMismatch, match=message):
            Store(is_whole=False).change(grace_ms=7, sha256="seven")
        assert Store().change(grace_ms=7, sha256="seven").next_offset == 2
        assert Store(is_whole=False).change(specs=(WindowSpec(30, 10),), sha256="others").next_offset == 1

    def test_panes_of_another_length_unless_they_are_asked_for(self) -> None:
        specs = (WindowSpec(20, 20),)
        message = "of panes of 10ms, and its windows now ask for panes of 20ms: add `pane: 10ms` to the model to go on with it, or start"
        with pytest.raises(StateMismatch, match=message):
            Store().change(specs=specs)
        assert Store().change(specs=specs, asked_pane_ms=10).next_offset == 2
        with pytest.raises(
            StateMismatch, match="for panes of 15ms: they cannot be made of panes of 10ms; restore them, or start"
        ):
            Store().change(specs=(WindowSpec(15, 15),))

    def test_any_change_together_with_the_version_of_the_program(self) -> None:
        """An earlier version did not keep its graces."""
        store = Store()
        (of_meta,) = (key for key in store.rows if key.startswith(META))
        stored = parse(of_meta, store.rows[of_meta])[1]
        meta = IngestMeta.from_bytes(stored.payload)
        meta.graces = msgspec.UNSET  # type: ignore[assignment]
        store.rows[of_meta] = stored_value(stored.state, stored.hi, meta.to_bytes())
        assert store.owner(store.before).next_offset == 2
        with pytest.raises(StateMismatch, match="the windows or the grace of model m were changed together with the version"):
            store.change(grace_ms=7, sha256="seven")
