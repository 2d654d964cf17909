"""Learning through the stages: one reference, a function of the log, whoever dies or wakes up; and what it is not learnt from."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import pytest

from monitor.findings import ClosedWindow, Judgement
from monitor.formats.native import NativeFormat
from monitor.hash_key import NO_KEY, HashKey
from monitor.learning.discovery import Discovery
from monitor.learning.references import Learnt, learn
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.reference import Reference, References
from monitor.stages import rows as rows_of_state
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge import history
from monitor.stages.merge.learning import FORGET_WINDOWS, Learner, Learning, after_window
from monitor.stages.merge.partition import MergePartition
from monitor.stages.merge.rows import ModelRows
from monitor.stages.pieces import PIECE_BYTES, Row
from monitor.stages.rows import Stored
from monitor.stages.settings import LearningSettings, ModelSettings, Settings, SourceSettings
from monitor.windows import Window, WindowSpec
from tests.defects import planted
from tests.simulation import PARTITIONS, SOURCE, ZOMBIE_MS, Topic, count_rows, places_of, run

SPECS = (WindowSpec(10, 10), WindowSpec(30, 10))
GRACE_MS, LEAD_MS = 4, 25
LEARNING = LearningSettings(min_rows=30, min_windows=3, left_out=frozenset({"mail"}))


def settings(learning: LearningSettings | None = LEARNING, specs: tuple[WindowSpec, ...] = SPECS) -> Settings:
    return Settings(
        "m",
        {},
        ModelSettings(specs, grace_ms=GRACE_MS, learning=learning),
        {SOURCE: SourceSettings(SOURCE, clock="event", max_future_ms=None)},
        partials_partitions=1,
        retire_after_ms=ZOMBIE_MS,
        reference_lead_ms=LEAD_MS,
    )


def is_alarmed(model: str, start_ms: int) -> bool:
    return (start_ms // 10 + len(model)) % 4 == 0


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """Count rows; every fourth short window is under alarm."""
    window = closed.window
    return count_rows(closed, before, history)._replace(
        is_alarmed=window.size_ms == 10 and is_alarmed(closed.model, window.start_ms)
    )


def event(offset: int, model: str, time: int, features: dict[str, object]) -> StoredRecord:
    return StoredRecord(offset, time, msgspec.json.encode({"model": model, "time": time, "features": features}))


def tick(offset: int, time: int) -> StoredRecord:
    return StoredRecord(offset, 0, msgspec.json.encode({"tick": time}))


class World:
    """Two source partitions, one partition of `partials`, and what was published."""

    def __init__(self, seed: int, n_events: int = 60) -> None:
        self.dice = random.Random(seed)
        self.settings = settings()
        self.logs = [self._events(n_events) for _ in range(PARTITIONS)]
        made = places_of(self.settings, NativeFormat(), judge, self.logs, References)
        self.places, self.partials, self.published = made

    def _events(self, n: int) -> Topic:
        log = Topic()
        for i in range(n):
            features: dict[str, object] = {"x": self.dice.gauss(0, 1), "mail": f"{i}@example.org"}
            if self.dice.random() < 0.7:
                features["c"] = self.dice.choice("pqr")
            log.records.append(event(i, self.dice.choice(["a", "bb"]), max(0, i * 2 + self.dice.randrange(-12, 4)), features))
        log.records.append(tick(n, 1_000))
        return log

    def expected(self) -> dict[bytes, bytes]:
        """The references, by a plain loop over the logs."""
        panes: dict[tuple[str, int], list[dict[str, object]]] = defaultdict(list)
        for log in self.logs:
            clock = -(10**9)
            for item in log.records:
                body = msgspec.json.decode(item.value or b"")
                clock = max(clock, body.get("tick", body.get("time")))
                if "tick" not in body and body["time"] // 10 * 10 + 10 + GRACE_MS > clock:
                    panes[body["model"], body["time"] // 10 * 10].append(body["features"])
        found = {}
        for model in ("a", "bb"):
            starts = [start for name, start in sorted(panes) if name == model and not is_alarmed(model, start)]
            for n in range(LEARNING.min_windows, len(starts) + 1):
                rows = [row for start in starts[:n] for row in panes[model, start]]
                if len(rows) >= LEARNING.min_rows:
                    total = Discovery()
                    total.update(rows, left_out=LEARNING.left_out)
                    end = starts[n - 1] + 10
                    reference = learn(total, model, "1", Learnt(n, starts[0], end))
                    assert reference is not None
                    reference = reference.effective_from(end + GRACE_MS + LEAD_MS)
                    found[reference.key] = reference.to_packed()
                    break
        return found

    def wrong(self) -> list[str]:
        """Everything that is not as it must be."""
        found: dict[bytes, set[bytes]] = defaultdict(set)
        for message in self.published:
            if message.topic == "m.references":
                assert message.key is not None and message.value is not None
                found[message.key].add(message.value)
        problems = [f"CHANGED {key!r}" for key, values in found.items() if len(values) > 1]
        expected = self.expected()
        problems += [f"MISSING {key!r}" for key in expected.keys() - found]
        problems += [f"SURPLUS {key!r}" for key in found.keys() - expected]
        problems += [f"WRONG {key!r}" for key, value in expected.items() if found.get(key, {value}) != {value}]
        return problems


def failures(n_seeds: int) -> list[tuple[int, list[str]]]:
    found = []
    for seed in range(n_seeds):
        world = World(seed)
        run(world.places, world.dice, 700)
        problems = world.wrong()
        if problems:
            found.append((seed, problems))
    return found


def test_one_reference_a_model_is_published_whoever_dies_or_wakes_up() -> None:
    assert failures(20) == []
    assert len(World(0).expected()) == 2


def test_a_short_run_learns_what_it_must() -> None:
    world = World(3)
    run(world.places, world.dice, 300)
    assert world.wrong() == []


def test_learning_twice_from_a_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(learner: Learner, learning: Learning, window: Window, parts: list[bytes]) -> Learning:
        return after_window(learner, learning, window, [*parts, *parts])

    monkeypatch.setattr(history, "after_window", twice)
    assert failures(3)


def test_a_row_that_last_writes_wins_is_found() -> None:
    with planted("epoch_first"):
        assert failures(20)


class OneLog:
    """A single source partition whose records are read one after the other."""

    def __init__(self, own: Settings | None = None, hash_key: HashKey = NO_KEY) -> None:
        own = own or settings(specs=(WindowSpec(10, 10),))
        self.references = References(hash_key)
        self.published: list[Message] = []
        self.one = IngestPartition(own, SOURCE, 0, partitions=1, epoch=1, wire=NativeFormat(), references=self.references)
        self.two = MergePartition(own, 0, topology={SOURCE: 1}, epoch=1, judge=alarming_at_forty, references=self.references)
        self.two.skip_to(0)
        self.offset = 0

    def feed(self, records: list[StoredRecord]) -> None:
        self.one.feed(records, 0)
        for message in sent(self.one):
            self.two.feed([StoredRecord(self.offset, 0, message.value)], 0)
            self.offset += 1
        self.published += sent(self.two)

    def windows(self, first: int, last: int, *, is_empty: bool = False) -> None:
        """Feed 20 rows each of some windows, with the tick that ends each."""
        for window in range(first, last):
            offset = max(0, self.one.next_offset)
            xs = [None if is_empty else i * 0.5 + window for i in range(20)]
            records = [event(offset + i, "m", window * 10 + i % 10, {"x": x}) for i, x in enumerate(xs)]
            self.feed([*records, tick(offset + 20, window * 10 + 10 + GRACE_MS)])

    def learnt(self) -> list[Reference]:
        return [Reference.from_bytes(m.value or b"") for m in self.published if m.topic == "m.references"]


def test_it_waits_for_rows_and_windows_enough() -> None:
    log = OneLog()
    log.windows(1, 3)
    assert log.learnt() == []
    log.windows(3, 4)
    (reference,) = log.learnt()
    assert (reference.record.rows, reference.record.windows, reference.record.time_range_ms) == (60, 3, (10, 39))
    assert reference.effective_from_ms == 40 + GRACE_MS + LEAD_MS
    slow = OneLog(settings(LearningSettings(min_rows=90, min_windows=1), (WindowSpec(10, 10),)))
    slow.windows(10, 20)
    assert slow.learnt()[0].record.rows == 100


def test_a_window_under_alarm_is_left_out() -> None:
    log = OneLog()
    log.windows(3, 7)
    (reference,) = log.learnt()
    expected = Discovery()
    expected.update([{"x": i * 0.5 + window} for window in (3, 5, 6) for i in range(20)])
    wanted = learn(expected, "m", "1", Learnt(3, 30, 70))
    assert wanted is not None and wanted.sha256 == reference.sha256


def test_once_learnt_it_is_over() -> None:
    log = OneLog()
    log.windows(1, 12)
    assert len(log.learnt()) == 1
    assert not log.two._models["m"].found


def test_a_reference_of_its_own_ends_it() -> None:
    log, donor = OneLog(), OneLog()
    log.windows(1, 3)
    donor.windows(1, 4)
    log.references.add(Reference.build("m", "1", donor.learnt()[0].profile).effective_from(30))
    log.windows(3, 12)
    assert log.learnt() == []
    assert log.two._models["m"].learning["1"].value.data == b""


def test_the_learnt_one_applies_from_its_time_on() -> None:
    log = OneLog()
    log.windows(1, 4)
    (reference,) = log.learnt()
    assert reference.effective_from_ms == 69
    log.references.add(reference)
    log.windows(4, 12)
    used = {pane.start_ms: pane.reference_sha256 for pane in log.one._panes}
    assert used == {start: "" if start < 70 else reference.sha256 for start in range(10, 120, 10)}


def test_without_learning_nothing_is_kept_of_the_rows() -> None:
    log = OneLog(settings(learning=None))
    log.windows(1, 12)
    assert log.learnt() == []
    assert not log.two._models["m"].learning


def test_where_no_feature_can_be_learnt_it_begins_anew() -> None:
    log = OneLog()
    log.windows(5, 8, is_empty=True)
    assert log.learnt() == []
    log.windows(8, 11)
    (reference,) = log.learnt()
    assert (reference.record.time_range_ms, reference.profile.summary("x").missing) == ((80, 109), 0)


def test_hopping_windows_count_every_row_once() -> None:
    log = OneLog(settings(specs=(WindowSpec(20, 10),)))
    log.windows(10, 14)
    (reference,) = log.learnt()
    assert (reference.record.rows, reference.record.windows) == (60, 3)
    assert reference.profile.summary("x").maximum == 12 + 9.5


@pytest.mark.parametrize("is_apart", [True, False])
def test_what_was_sealed_and_learnt_from_is_not_kept_in_the_store(*, is_apart: bool) -> None:
    """is_apart: with a checkpoint between a partial and its watermark; else no partial is ever written."""
    log = OneLog()
    store: dict[bytes, bytes] = {}
    written: set[bytes] = set()
    for window in range(1, 12):
        offset = max(0, log.one.next_offset)
        log.one.feed([event(offset, "m", window * 10, {"x": 1.5}), tick(offset + 1, window * 10 + 10 + GRACE_MS)], 0)
        for message in sent(log.one):
            log.two.feed([StoredRecord(log.offset, 0, message.value)], 0)
            log.offset += 1
            if is_apart:
                sent(log.two, store)
            written |= store.keys()
        sent(log.two, store)
        written |= store.keys()
    for _ in range(3):
        sent(log.two, store)
    assert any(key.startswith((b"found|", b"partial|")) for key in written) == is_apart
    assert not any(key.startswith((b"found|", b"partial|")) for key in store)
    assert len([key for key in store if key.startswith(b"learning|")]) == 1


def test_what_is_found_and_learnt_is_hashed_with_the_key() -> None:
    key = HashKey("correct horse battery")
    log = OneLog(hash_key=key)
    for window in range(1, 4):
        offset = max(0, log.one.next_offset)
        rows = [event(offset + i, "m", window * 10, {"c": "ab"[i % 2]}) for i in range(20)]
        log.feed([*rows, tick(offset + 20, window * 10 + 10 + GRACE_MS)])
    (message,) = [m for m in log.published if m.topic == "m.references"]
    reference = Reference.from_bytes(message.value or b"").with_key(key)
    assert reference.layout.hash_key_ids == {key.id}
    assert reference.profile.summary("c").values.tolist() == [30, 30, 0]


def test_a_learning_that_is_larger_than_a_piece_comes_back_whole() -> None:
    learning = Learning(10, 1, 0, random.Random(1).randbytes(2 * PIECE_BYTES))
    row = Row(b"learning|m|1|10", rows_of_state.OPEN, 7, learning)
    pieces = row.pieces()
    assert len(pieces) == len(row.keys) > 2
    assert all(len(payload) <= PIECE_BYTES + 2 for *_, payload in pieces)
    model = ModelRows()
    model.load(b"learning|m|1|10", {i: Stored(7, 1, 0, payload) for i, (*_, payload) in enumerate(pieces)})
    assert model.learning["1"].value == learning


def test_of_two_learnings_the_one_that_has_seen_most_counts_and_the_other_is_given_up() -> None:
    for order in ((10, 20, 30), (30, 10, 20), (20, 30, 10)):
        model = ModelRows()
        for seen in order:
            row = Row(f"learning|m|1|{seen}".encode(), rows_of_state.OPEN, seen, Learning(seen))
            model.load(row.key, {0: Stored(seen, 1, 0, row.pieces()[0][3])})
        assert model.learning["1"].value.seen_ms == 30
        assert {row.value.seen_ms for row in model.pop_outdated()} == {10, 20}


def alarming_at_forty(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    return count_rows(closed, before, history)._replace(is_alarmed=closed.window.start_ms == 40)


def sent(stage: PartitionStage, store: dict[bytes, bytes] | None = None) -> list[Message]:
    """Do what the driver does in a tick."""
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        for key, value in checkpoint.rows if store is not None else ():
            assert store is not None
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
        stage.committed(checkpoint)
    box = stage.outbox(0)
    if box:
        stage.emitted(box, 0)
    return [*box.first, *box.then]


def test_a_version_that_was_silent_for_long_begins_anew() -> None:
    found = Discovery()
    found.update([{"x": 1.5}] * 20)
    learner = Learner("m", "1", settings(specs=(WindowSpec(10, 10),)).defaults, LEAD_MS, NO_KEY)
    learning = Learning()
    for end in (10, 20):
        learning = after_window(learner, learning, Window(end, 10, 10), [found.to_bytes()])
    near = after_window(learner, learning, Window(20 + FORGET_WINDOWS * 10 - 10, 10, 10), [found.to_bytes()])
    far = after_window(learner, learning, Window(20 + FORGET_WINDOWS * 10, 10, 10), [found.to_bytes()])
    assert (near.is_done, near.windows) == (True, 3)
    assert (far.is_done, far.windows, far.start_ms) == (False, 1, 10 + FORGET_WINDOWS * 10)
