"""Reports of performance: what is published is a function of the logs and, if nothing is lost, of the outcomes alone."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.findings import ClosedWindow, Judgement
from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement
from monitor.performance import OutcomeCells, PerformanceSpec, Rows
from monitor.ports import Message, StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, ReferencePerformance, References
from monitor.segments import Key, Segmentation
from monitor.stages import partials
from monitor.stages.inspection import inspect
from monitor.stages.merge import performance_windows
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Labelling, Settings
from monitor.windows import Window, WindowSpec
from tests.closed_windows import layout_from, profile_of
from tests.simulation import SOURCE, Place, Topic, finish, run, settings
from tests.unit.stages.test_rules import commit

SPECS = (WindowSpec(10, 10), WindowSpec(30, 10))
AGES_MS = (0, 15, 60)
R = 2
OUTCOMES = "m.outcomes"
END_MS = 500
BY_COUNTRY = Segmentation((Key(name="country"),), (("u",), ("v",)))
COLUMNS = {"country": ["u", "v"] * 10, "@prediction": ["0", "1"] * 10, "@score": [i / 20 for i in range(20)]}


LAYOUT = layout_from(COLUMNS, segmentations=[BY_COUNTRY])


def reference(version: str = "1", effective_from_ms: int | None = None, *, rows: int = 1) -> Reference:
    performance = ReferencePerformance(
        task="binary", n=100 + rows, values={"accuracy": 0.9}, classes=["0", "1"], positive_class="1"
    )
    made = Reference.build("m", version, profile_of(LAYOUT, COLUMNS), performance=performance)
    return made.effective_from(effective_from_ms)


def reporting(*specs: WindowSpec, ages: Sequence[int] = AGES_MS) -> Settings:
    own = settings(*(specs or SPECS))
    labelling = Labelling(retention_ms=100, report_at_ms=tuple(ages))
    return replace(own, defaults=replace(own.defaults, labelling=labelling), outcomes_partitions=R)


@dataclass(frozen=True)
class Outcome:
    """A prediction, when it was known, and its labels: (when known, label), of which the last one known counts."""

    partition: int
    version: str
    time_ms: int
    known_ms: int
    predicted: int
    segment: int
    labels: tuple[tuple[int, int], ...]

    @property
    def pane(self) -> int:
        return self.time_ms // 10 * 10

    def label(self, as_of_ms: int) -> int | None:
        known = [label for at, label in sorted(self.labels) if at <= as_of_ms]
        return known[-1] if known and self.known_ms <= as_of_ms else None

    def changes(self) -> list[int]:
        """When something became known that was not known so."""
        times = sorted({self.known_ms, *(at for at, _ in self.labels)})
        labels = [None, *(self.label(at) for at in times)]
        return [at for i, at in enumerate(times) if at == self.known_ms or labels[i] != labels[i + 1]]


def drawn(dice: random.Random, n: int = 60) -> list[Outcome]:
    found = []
    for i in range(n):
        time = dice.randrange(120)
        known = time // 10 * 10 + 10 + dice.choice((0, 0, 0, 0, 20, 50))
        labels = tuple(
            (known + 10 * dice.choice((0, 0, 1, 2, 4, 7)), dice.randrange(2)) for _ in range(dice.choice((0, 1, 1, 1, 2)))
        )
        found.append(Outcome(i % R, dice.choice("112"), time, known, dice.randrange(2), dice.randrange(3), labels))
    return found


def differences(outcomes: Sequence[Outcome], refs: References) -> dict[tuple[int, str, int, int], OutcomeCells]:
    """(partition, version, pane, cut) → what the join tells, as the sum of what each row changes at each cut."""
    found: dict[tuple[int, str, int, int], OutcomeCells] = {}
    for one in outcomes:
        judged = refs.at("m", one.version, one.pane)
        assert judged is not None
        spec = PerformanceSpec.of(judged)
        members = sorted({0, one.segment})
        segments = (np.zeros(len(members), np.int64), np.array(members, np.int64))
        rows = Rows(np.array([one.predicted], np.int32), np.array([[one.time_ms % 20 / 20]]), segments)
        before: int | None = None
        for cut in sorted({one.known_ms, *(at for at, _ in one.labels)}):
            cells = found.setdefault((one.partition, one.version, one.pane, cut), OutcomeCells(spec))
            if cut == one.known_ms:
                cells.add_made(rows)
            for label, sign in ((before, -1), (one.label(cut), 1)):
                if label is not None:
                    cells.add_labelled(rows, np.array([label]), np.array([5]), sign)
            before = one.label(cut)
    return found


def told(closed: ClosedOutcomes, before: bytes) -> PerformanceJudgement:
    """A judge whose state is the labelled rows of all windows so far: what any window gets wrong, every later one shows."""
    if closed.sums is None:
        facts = msgspec.json.decode(closed.figures)
    else:
        cells = closed.sums.cells
        segments = range(len(cells.spec.segments))
        facts = {
            "made": [cells.n_made(i) for i in segments],
            "labelled": [cells.n_labelled(i) for i in segments],
            "hits": int(cells.block("confusion").reshape(3, 4)[:2, :2].trace()),
        }
    total = int(before or b"0") + facts["labelled"][0]
    window = closed.window
    key = f"{closed.version}|{window.start_ms}|{window.size_ms}|{closed.revision}".encode()
    record = facts | {"total": total, "as_of": closed.as_of_ms, "is_final": closed.is_final, "rows": closed.operation.decode()}
    said = str(total).encode()
    alert = ((b"alert|" + key, said),) if total % 3 == 0 else ()
    return PerformanceJudgement(
        ((key, msgspec.json.encode(record)),), alert, said, msgspec.json.encode(facts), said=said, is_news=said != closed.said
    )


def count_rows(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    n = closed.profile.n
    return Judgement((), (), b"", (), operation=str(n).encode() if n else b"")


class World:
    """The log of `partials` of one model, and what was published."""

    def __init__(self, seed: int, own: Settings | None = None, refs: Sequence[Reference] = ()) -> None:
        self.dice = random.Random(seed)
        self.settings = own or reporting()
        self.references = References()
        for one in refs or (reference("1"), reference("2")):
            self.references.add(one)
        self.outcomes = drawn(self.dice)
        self.log = Topic()
        self.fill()
        self.published: list[Message] = []
        self.place = self.made()

    def fill(self) -> None:
        """Interleave what ingest and each partition of the join send, each in its order; some of it again, as after a take-over."""
        streams = [self.of_ingest(), *(self.of_join(r) for r in range(R))]
        while any(streams):
            stream = self.dice.choice([stream for stream in streams if stream])
            self.log.append(Message("m.partials", b"m", partials.encode(stream.pop(0))))

    def of_ingest(self) -> list[Any]:
        sent: list[Any] = []
        for start in range(0, 130, 10):
            for version in "12":
                profile = Profile(LAYOUT)
                profile.rows[0] = sum(one.pane == start and one.version == version for one in self.outcomes)
                sha = self.references.at("m", version, start)
                assert sha is not None
                pane = ("m", version, start, 10, 0, 9, 0, int(profile.rows[0]), 0, sha.sha256, "", 0, 1, profile.to_bytes())
                sent.append(partials.Partial(SOURCE, 0, 1, start + 9, *pane))
            sent.append(partials.Watermark(SOURCE, 0, 1, start + 9, {0: start + 10}, False, 1))
        return [*sent, partials.Watermark(SOURCE, 0, 1, 999, {0: END_MS}, False, 1)]

    def of_join(self, partition: int) -> list[Any]:
        sent: list[Any] = []
        told = differences(self.outcomes, self.references)
        for cut in range(10, 250, 10):
            mine = [self.partial(key, cells) for key, cells in told.items() if key[0] == partition and key[3] == cut]
            sent += [chunk for chunks in mine for chunk in chunks]
            if self.dice.random() < 0.7:
                sent.append(partials.Watermark(OUTCOMES, partition, 1, cut, {0: cut}, False, R))
            if mine and self.dice.random() < 0.2:
                sent += mine[-1]
        return [*sent, partials.Watermark(OUTCOMES, partition, 1, 999, {0: END_MS}, False, R)]

    def partial(self, key: tuple[int, str, int, int], cells: OutcomeCells) -> list[partials.OutcomePartial]:
        partition, version, start, cut = key
        chunks = cells.chunks(60)
        about = (partition, 1, cut, "m", version, start, 10, cut, cells.spec.reference, "")
        return [partials.OutcomePartial(*about, i, len(chunks), chunk) for i, chunk in enumerate(chunks)]

    def made(self) -> Place:
        def merge(epoch: int, items: list[tuple[bytes, bytes]], now_ms: int) -> MergePartition:
            return MergePartition(
                self.settings, 0,
                topology={SOURCE: 1}, epoch=epoch, judge=count_rows, judge_performance=told, references=self.references,
                rows=items, now_ms=now_ms,
            )  # fmt: skip

        self.published = []
        return Place(self.log, merge, self.published.append)

    def content(self) -> dict[bytes, set[bytes]]:
        found: dict[bytes, set[bytes]] = defaultdict(set)
        for message in self.published:
            assert message.key is not None and message.value is not None
            found[message.key].add(message.value)
        return found

    def in_one_go(self) -> dict[bytes, set[bytes]]:
        """What is published when one owner reads the whole log at once."""
        finish(self.made(), self.dice)
        return self.content()

    def reports(self) -> dict[tuple[str, int, int], dict[int, Any]]:
        """(version, start, size) → revision → facts."""
        found: dict[tuple[str, int, int], dict[int, Any]] = defaultdict(dict)
        for key, values in self.content().items():
            if not key.startswith(b"alert"):
                version, start, size, revision = key.decode().split("|")
                found[version, int(start), int(size)][int(revision)] = msgspec.json.decode(next(iter(values)))
        return found

    def expected(self) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
        """What each window's reports must hold, at the ages at which there must be one: by a plain loop over the outcomes."""
        labelling = self.settings.defaults.labelling
        assert labelling is not None
        found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
        windows = {
            (one.version, w)
            for one in self.outcomes
            for spec in self.settings.defaults.specs
            for w in spec.windows_of(one.time_ms, one.time_ms + 1)
        }
        for version, window in windows:
            rows = [o for o in self.outcomes if o.version == version and window.start_ms <= o.time_ms < window.end_ms]
            ages = [window.end_ms + -(-age // 10) * 10 for age in labelling.report_at_ms]
            last_ms = -1
            for as_of in ages:
                changes = {at for o in rows for at in o.changes() if at <= as_of}
                if not changes or max(changes) <= last_ms:
                    continue
                made = [o for o in rows if o.known_ms <= as_of]
                labelled = [o for o in made if o.label(as_of) is not None]
                facts = {
                    "made": by_segment(made),
                    "labelled": by_segment(labelled),
                    "hits": sum(o.label(as_of) == o.predicted for o in labelled),
                    "as_of": as_of,
                    "is_final": as_of == ages[-1],
                }
                found.setdefault((version, window.start_ms, window.size_ms), []).append(facts)
                last_ms = as_of
        return found


def by_segment(rows: Sequence[Outcome]) -> list[int]:
    return [len(rows), *(sum(o.segment == i for o in rows) for i in range(1, 4))]


def own(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in ("total", "rows")}


@pytest.mark.parametrize("seed", range(15))
def test_reports_are_the_same_whoever_dies_or_wakes_up(seed: int) -> None:
    world = World(seed)
    run([world.place], world.dice, 600)
    found = world.content()
    assert [key for key, values in found.items() if len(values) > 1] == []
    assert found == world.in_one_go()


@pytest.mark.parametrize("seed", range(12))
def test_each_report_holds_what_was_known_at_its_age_and_there_is_one_only_where_something_became_known(seed: int) -> None:
    world = World(seed)
    finish(world.place, world.dice)
    expected, reports = world.expected(), world.reports()
    assert reports.keys() == expected.keys()
    for key, by_revision in reports.items():
        assert sorted(by_revision) == list(range(len(by_revision)))
        made = [own(by_revision[revision]) for revision in sorted(by_revision)]
        assert [one for i, one in enumerate(made) if not i or one != made[i - 1]] == expected[key], key


@pytest.mark.parametrize("seed", range(8))
def test_the_state_after_all_reports_is_that_of_windows_in_order_that_had_their_labels_from_the_start(seed: int) -> None:
    world = World(seed)
    run([world.place], world.dice, 300)
    totals: dict[tuple[str, int], int] = defaultdict(int)
    for (version, start, size), by_revision in sorted(world.reports().items(), key=lambda item: item[0][1]):
        newest = by_revision[max(by_revision)]
        totals[version, size] += newest["labelled"][0]
        assert newest["total"] == totals[version, size], (version, start, size)


def test_any_interleaving_of_the_streams_gives_the_same_reports() -> None:
    for seed in range(5):
        world = World(seed)
        first = world.in_one_go()
        for _ in range(2):
            world.log.records.clear()
            world.fill()
            assert world.in_one_go() == first


def test_a_report_tells_how_the_service_did_though_its_events_were_collected_long_ago() -> None:
    world = World(3)
    run([world.place], world.dice, 600)
    for (version, start, size), by_revision in world.reports().items():
        rows = sum(o.version == version and start <= o.time_ms < start + size for o in world.outcomes)
        assert {report["rows"] for report in by_revision.values()} == {str(rows)}


def test_a_window_under_two_references_is_judged_under_the_newer() -> None:
    world = World(5, refs=(reference("1"), reference("2"), reference("1", 50, rows=2)))
    finish(world.place, world.dice)
    for (version, start, size), by_revision in world.reports().items():
        newest = by_revision[max(by_revision)]
        judged_from = 50 if version == "1" and start + size > 50 else 0
        rows = [o for o in world.outcomes if o.version == version and max(start, judged_from) <= o.time_ms < start + size]
        if rows and all(o.known_ms <= newest["as_of"] for o in rows):
            assert newest["made"][0] == len(rows), (version, start, size)


def test_what_is_reported_no_more_is_collected_and_rows_that_a_zombie_writes_again_stay_so() -> None:
    world = World(7, reporting(WindowSpec(10, 10), ages=(0, 20)))
    stage = world.place.owner()
    assert isinstance(stage, MergePartition)
    store: dict[bytes, bytes] = {}
    early: dict[bytes, bytes] = {}
    for start in range(0, len(world.log.records), 7):
        stage.feed(world.log.records[start : start + 7], start)
        stage.advance(10_000 + start, at_end=False)
        for _ in range(2):
            commit(stage, store)
        box = stage.outbox(start)
        if box:
            stage.emitted(box, start)
        if start < len(world.log.records) // 2:
            early = {key: value for key, value in store.items() if b"meta" not in key and not key.startswith(b"window")}
    for _ in range(3):
        stage.advance(100_000, at_end=False)
        commit(stage, store)
    kinds = {key.split(b"|")[0] for key in store}
    assert b"known" not in kinds and b"outcome" not in kinds and b"reported" not in kinds
    before = stage.counters()
    again = MergePartition(
        world.settings, 0,
        topology={SOURCE: 1}, epoch=5, judge=count_rows, judge_performance=told, references=world.references,
        rows=[*{**early, **store}.items()], now_ms=200_000,
    )  # fmt: skip
    store |= early
    for _ in range(3):
        again.advance(400_000, at_end=False)
        commit(again, store)
    assert not {key.split(b"|")[0] for key in store} & {b"known", b"outcome", b"reported"}
    assert not again.outbox(0).first
    assert again.counters() == before


def test_what_comes_after_the_last_report_is_counted() -> None:
    world = World(1, reporting(WindowSpec(10, 10), ages=(0, 20)))
    finish(world.place, world.dice)
    stage = world.place.owner()
    late = sum(key[3] > key[2] + 10 + 20 for key in differences(world.outcomes, world.references))
    assert late > 0
    assert stage.counters()["outcomes_late", "m"] == late


def test_without_outcomes_the_state_has_no_trace_of_them() -> None:
    own = settings(WindowSpec(10, 10))
    stage = MergePartition(
        own, 0, topology={SOURCE: 1}, epoch=1, judge=count_rows, judge_performance=told, references=References()
    )
    stage.skip_to(0)
    partial = partials.Partial(SOURCE, 0, 1, 9, "m", "1", 0, 10, 0, 9, 0, 3, 0, "", "", 0, 1, Profile(layout_from({})).to_bytes())
    mark = partials.Watermark(SOURCE, 0, 1, 9, {0: 50}, False, 1)
    stage.feed([StoredRecord(i, 0, partials.encode(item)) for i, item in enumerate((partial, mark))], 0)
    checkpoint = commit(stage)
    assert checkpoint is not None
    assert b"outcomes" not in checkpoint.meta[1]
    assert not [key for key, _ in checkpoint.rows if key.startswith((b"known", b"reported", b"outcome"))]


def test_windows_of_reports_are_windows_of_their_panes() -> None:
    world = World(2)
    finish(world.place, world.dice)
    known = {Window(start + size, size, 10) for _, start, size in world.reports()}
    assert known <= {w for o in world.outcomes for spec in SPECS for w in spec.windows_of(o.time_ms, o.time_ms + 1)}


def test_its_rows_can_be_inspected_and_what_is_damaged_is_told() -> None:
    world = World(4)
    stage, store = world.place.owner(), dict[bytes, bytes]()
    assert isinstance(stage, MergePartition)
    stage.feed(world.log.records[: len(world.log.records) * 2 // 3], 0)
    commit(stage, store)
    found = inspect(store.items())
    assert {"outcome", "known", "reported"} <= {row.kind for row in found.rows}
    assert list(found.all_problems()) == []
    for kind in ("outcome", "known", "reported"):
        key = next(key for key in store if key.startswith(kind.encode()))
        damaged = inspect((store | {key: store[key][:-3]}).items())
        assert [row.kind for row in damaged.rows if row.problem] == [kind]


def test_what_a_model_had_is_kept_when_labels_are_joined_no_more() -> None:
    world = World(6)
    stage, store = world.place.owner(), dict[bytes, bytes]()
    assert isinstance(stage, MergePartition)
    half = len(world.log.records) // 2
    stage.feed(world.log.records[:half], 0)
    commit(stage, store)
    world.settings = replace(world.settings, defaults=replace(world.settings.defaults, labelling=None))
    without = world.made().make(2, [*store.items()], 0)
    without.feed(world.log.records[half:], 0)
    without.checkpoint()
    assert {m.topic for m in without.outbox(0).first} <= {"m.results", "m.alerts"}
    assert without.counters().get(("performance_windows", "m")) == stage.counters()["performance_windows", "m"]


def wrong(seed: int) -> bool:
    """Whether owners that die and wake up publish anything else than what the outcomes say."""
    world = World(seed)
    try:
        run([world.place], world.dice, 500)
    except (AssertionError, KeyError, ValueError):
        return True
    reports = world.reports()
    if any(len(values) > 1 for values in world.content().values()):
        return True
    for key, expected in world.expected().items():
        made = [own(reports[key][revision]) for revision in sorted(reports[key])]
        if [one for i, one in enumerate(made) if not i or one != made[i - 1]] != expected:
            return True
    return False


def add_everything_first(self: Any, name: str, upto_ms: int, offset: int) -> None:
    model = self._model(name)
    for cut in sorted(cut for cut in model.arriving if cut <= upto_ms):
        self._add(name, model, cut, offset)
    FINISH(self, name, upto_ms, offset)


def take_repeats(self: Any, partial: partials.OutcomePartial, data: bytes, offset: int) -> None:
    finished, self._meta.finished = self._meta.finished, {}
    TAKE(self, partial, data, offset)
    self._meta.finished = finished


FINISH, TAKE = performance_windows.PerformanceWindows.finish, performance_windows.PerformanceWindows.take
KNOWN, REPORTED = performance_windows.known_key, performance_windows.reported_key
DEFECTS: tuple[tuple[Any, str, Any], ...] = (
    (performance_windows.PerformanceWindows, "finish", add_everything_first),
    (performance_windows.PerformanceWindows, "take", take_repeats),
    (performance_windows, "known_key", lambda *of: KNOWN(*of[:4], 0)),
    (performance_windows, "reported_key", lambda *of: REPORTED(*of[:3], 0)),
)


def test_without_a_defect_nothing_is_wrong() -> None:
    assert not any(wrong(seed) for seed in range(100, 106))


@pytest.mark.parametrize(("place", "name", "defect"), DEFECTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_defect_is_found(place: Any, name: str, defect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, name, defect)
    assert any(wrong(seed) for seed in range(100, 112))


@pytest.mark.parametrize("seed", range(6))
def test_windows_of_a_kind_that_comes_later_are_reported_whole(seed: int) -> None:
    whole = World(seed)
    finish(whole.place, whole.dice)
    world = World(seed, reporting(SPECS[0]))
    world.log.records, rest = world.log.records[: len(world.log.records) // 4], world.log.records
    finish(world.place, world.dice)
    assert {size for _, _, size in world.reports()} == {SPECS[0].size_ms}
    world.settings, world.log.records = reporting(), rest
    finish(world.place, world.dice)
    reports, expected = world.reports(), whole.reports()
    begins = min(start for _, start, size in reports if size == SPECS[1].size_ms)
    assert 0 < begins < 120
    assert {key for key in expected if key[2] == SPECS[0].size_ms or key[1] >= begins} == reports.keys()
    for key, by_revision in reports.items():
        assert own(by_revision[max(by_revision)]) == own(expected[key][max(expected[key])]), key
