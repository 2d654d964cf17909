"""What a window is judged with of the windows before it: the same after a crash, whenever rows are collected, and never without end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from monitor.decision.scales import MAX_EARLIER
from monitor.findings import ClosedWindow, Judgement
from monitor.ports import StoredRecord
from monitor.reference import References
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge.final_rows import MAX_LOOKBACK, Final, history_of, n_unneeded
from monitor.stages.merge.partition import MergePartition
from monitor.stages.merge.rows import ModelRows
from monitor.stages.pieces import Row
from monitor.stages.rows import EMITTED, key_parts
from monitor.stages.settings import Revising, Settings
from monitor.windows import Window, WindowSpec
from tests.simulation import SOURCE, ZOMBIE_MS, BareFormat, count_rows, record, settings

OWN = settings()


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """Say which windows came before it, by what they left."""
    judged = count_rows(closed, before, history)
    [(key, value)] = judged.results
    facts = json.loads(value) | {"history": [int(start) for start in history], "revision": closed.revision}
    tallies = str(closed.window.start_ms).encode() if closed.profile.n else b""
    return judged._replace(results=((key + f"|{closed.revision}".encode(), json.dumps(facts).encode()),), tallies=tallies)


def partials_of(times: list[int], own: Settings = OWN) -> list[StoredRecord]:
    """Return what stage 1 sends of events at these times, one checkpoint each."""
    stage = IngestPartition(own, SOURCE, 0, partitions=1, epoch=1, wire=BareFormat(), references=References())
    stage.skip_to(0)
    sent: list[StoredRecord] = []
    for offset, time in enumerate(times):
        stage.feed([record(offset, "credit", time)], 0)
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            stage.committed(checkpoint)
        box = stage.outbox(0)
        sent += [StoredRecord(len(sent) + i, 0, m.value, m.key) for i, m in enumerate((*box.first, *box.then))]
        if box:
            stage.emitted(box, 0)
    return sent


@dataclass
class Owner:
    """Stage 2 over a store; `crash` forgets what is in memory."""

    own: Settings = OWN
    store: dict[bytes, bytes] = field(default_factory=dict)
    epoch: int = 0
    results: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.crash(0)

    def crash(self, now_ms: int) -> None:
        self.epoch += 1
        rows, epoch = list(self.store.items()), self.epoch
        self.stage = MergePartition(
            self.own, 0, topology={SOURCE: 1}, epoch=epoch, judge=judge, references=References(), rows=rows, now_ms=now_ms
        )
        if self.stage.next_offset < 0:
            self.stage.skip_to(0)

    def tick(self, now_ms: int, *, sends: bool = True) -> None:
        self.stage.advance(now_ms, at_end=False)
        checkpoint = self.stage.checkpoint()
        if checkpoint is not None:
            for key, value in (*checkpoint.rows, checkpoint.meta):
                self.store.update({key: value}) if value is not None else self.store.pop(key, None)
            self.stage.committed(checkpoint)
        box = self.stage.outbox(now_ms)
        for message in (*box.first, *box.then) if sends else ():
            assert message.key is not None
            assert message.value is not None
            assert self.results.setdefault(message.key, message.value) == message.value
        if box and sends:
            self.stage.emitted(box, now_ms)

    @property
    def windows_kept(self) -> int:
        return sum(key_parts(key)[0] == "window" for key in self.store)


def histories(owner: Owner) -> list[list[int]]:
    found = [json.loads(value) for value in owner.results.values()]
    return [one["history"] for one in sorted(found, key=lambda one: one["window"])]


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_same_whenever_it_crashes_sends_and_collects(seed: int) -> None:
    dice = Random(seed)
    sent = partials_of(list(range(5, 60 * 10, 10)))
    owner, now = Owner(), 0
    while owner.stage.next_offset < len(sent):
        now += dice.choice([1, ZOMBIE_MS])
        at = owner.stage.next_offset
        owner.stage.feed(sent[at : at + dice.randint(1, 12)], now)
        if dice.random() < 0.7:
            owner.tick(now, sends=dice.random() < 0.8)
        if dice.random() < 0.3:
            owner.crash(now)
    owner.tick(now)
    expected = [[10 * i for i in reversed(range(max(0, w - MAX_EARLIER), w))] for w in range(59)]
    assert histories(owner) == expected


def test_windows_that_no_later_one_is_judged_with_are_collected() -> None:
    owner = Owner()
    for i, one in enumerate(partials_of(list(range(5, 100 * 10, 10)))):
        owner.stage.feed([one], i * ZOMBIE_MS)
        owner.tick(i * ZOMBIE_MS)
    assert owner.windows_kept <= MAX_EARLIER + 3


def test_a_revision_is_judged_with_what_its_window_was_first_judged_with() -> None:
    own = replace(OWN, defaults=replace(OWN.defaults, revising=Revising(for_ms=400, every_ms=20)))
    owner = Owner(own)
    on_time = list(range(5, 600, 10))
    for i, one in enumerate(partials_of([*on_time, 255, *range(605, 900, 10)], own)):
        owner.stage.feed([one], i * ZOMBIE_MS)
        owner.tick(i * ZOMBIE_MS)
    found = {key.decode(): json.loads(value) for key, value in owner.results.items()}
    first, again = found["credit|250|10|0"], found["credit|250|10|1"]
    assert (first["n"], again["n"]) == (1, 2)
    assert first["history"] == again["history"] == [10 * i for i in range(24, 1, -1)]
    assert [key for key, one in found.items() if one["revision"] and one["window"] > 26] == []


def final(i: int, tallies: bytes = b"") -> tuple[Window, Row[Final]]:
    value = Final(after={}, live=[], tallies={"1": tallies} if tallies else {})
    return Window(10 * i, 10, 10), Row(f"window|m|{i}|10|10".encode(), EMITTED, i, value)


@pytest.mark.parametrize(
    ("pattern", "unneeded"),
    [
        ("", 0),
        ("-", 0),
        ("-----", 4),
        ("r----", 0),
        ("-r-r-", 1),
        ("r" * 30, 7),
        ("r" + "-" * (MAX_LOOKBACK - 1), 0),
        ("r" + "-" * MAX_LOOKBACK, MAX_LOOKBACK),
    ],
)
def test_the_newest_with_rows_are_needed_as_far_as_one_looks_back(pattern: str, unneeded: int) -> None:
    """r: a window with tallies."""
    assert n_unneeded([final(i, b"t" if letter == "r" else b"") for i, letter in enumerate(pattern)]) == unneeded


def test_a_final_window_that_was_sent_rests_packed_and_holds_what_it_held() -> None:
    model, spec = ModelRows(), WindowSpec(10, 10)
    states = [Final(after={"1": b"state" * 500}, live=["1"], tallies={"1": bytes([i]) * 500}) for i in range(3)]
    rows = [Row(f"window|m|{i}|10|10".encode(), EMITTED, i, state) for i, state in enumerate(states)]
    model.final[spec] = [(Window(10 * i, 10, 10), row) for i, row in enumerate(rows)]
    rows[0].durable = (EMITTED, 0)
    written, before = rows[0].pieces(), model.held_bytes
    model.rest()
    model.rest()
    assert [row.is_at_rest for row in rows] == [True, False, False]  # the second is not durable, the last one has the state
    assert rows[0].held_bytes < 200 < before - model.held_bytes
    assert rows[0].value == states[0]
    assert rows[0].pieces() == written
    assert history_of(model.final[spec], "1") == [bytes([i]) * 500 for i in (2, 1, 0)]
    assert history_of(model.final[spec], "2") == []
