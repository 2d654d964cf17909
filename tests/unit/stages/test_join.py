"""The join: what is known of each pane at each cut is what plain loops over the source logs say, whoever dies, wakes up or loses a disk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import pytest

from monitor.errors import OffsetGap
from monitor.features import NumberFeature
from monitor.hash_key import NO_KEY
from monitor.layout import Layout
from monitor.performance import OutcomeCells, Rows
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import PREDICTION, Reference, ReferencePerformance, References
from monitor.stages import outcomes, partials
from monitor.stages.ingest import outcome_rows, partition_panes
from monitor.stages.join import deltas, joining, outcome_clock
from monitor.stages.join import partition as join
from monitor.stages.join.joining import due, known_from
from monitor.stages.join.partition import JoinPartition
from monitor.stages.outcomes import Range
from tests.simulation import joins
from tests.simulation.joins import (
    GRACE_MS,
    MODEL,
    PANE_MS,
    RETENTION_MS,
    Disk,
    Logs,
    World,
    anomalies,
    draw,
    label,
    log_of,
    prediction,
    settings,
    simulate,
    tick,
    unfaulted,
)


class TestWhoeverDies:
    @pytest.mark.parametrize("seed", range(100, 106))
    def test_every_table_is_that_of_the_oracle(self, seed: int) -> None:
        world = simulate(seed)
        assert anomalies(world) == []
        assert len(world.partials.records) > 50

    def test_without_faults_it_is_too(self) -> None:
        for seed in range(5):
            assert anomalies(unfaulted(draw(random.Random(seed)))) == []


def lose_what_is_behind(_: Any) -> None:
    """Go on from the state with a store of entries that is behind it."""


def take_every_range(self: Any, told: Range) -> int:
    self.vector[told.place] = told.to_offset
    return told.from_offset


def count_again(self: Any, place: Any, offset: int) -> Any:
    found = AT(self, place, offset)
    return self._deltas[place] if found is None else found


AT = deltas.Deltas.at
DEFECTS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (join.JoinPartition, "_read_again", lose_what_is_behind),
    (outcome_clock.OutcomeClock, "accept", take_every_range),
    (deltas.Deltas, "at", count_again),
    (outcome_rows.OutcomeRows, "begin", lambda *_: None),
    (partition_panes.PartitionPanes, "_tell_held", lambda *_: None),
)


@pytest.mark.parametrize(("place", "name", "defect"), DEFECTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_defect_is_found(place: Any, name: str, defect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, name, defect)
    assert any(_found(seed) for seed in range(6))


def _found(seed: int) -> bool:
    try:
        return bool(anomalies(simulate(seed)))
    except (AssertionError, KeyError, ValueError):
        return True


def logs(predictions: list[bytes], labels: list[bytes], end_ms: int = 1_000) -> Logs:
    return {
        ("p", 0): log_of([*predictions, tick(end_ms)]),
        ("p", 1): log_of([tick(end_ms)]),
        ("l", 0): log_of([*labels, tick(end_ms)]),
    }


def told(world: World) -> dict[tuple[int, int], tuple[int, int]]:
    """Return (made, labelled) of each delta by pane and cut."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for record in world.partials.records:
        item = partials.decode(record.value or b"")
        if isinstance(item, partials.OutcomePartial):
            cells = OutcomeCells.from_bytes(joins.spec_of(item.version), item.cells)
            made, labelled = found.get((item.start_ms, item.cut_ms), (0, 0))
            found[item.start_ms, item.cut_ms] = made + cells.n_made(), labelled + cells.n_labelled()
    return found


class Told(NamedTuple):
    """What one range holds: (id, time) and (id, time, label); predictions are of p/0, labels of l/0."""

    predictions: Sequence[tuple[str, int]] = ()
    labels: Sequence[tuple[str, int, str]] = ()
    closed: int = 0
    place: tuple[str, int] | None = None


def clocks(closed: int) -> list[Told]:
    """Let every source partition say how far it is."""
    return [Told(closed=closed, place=(topic, i)) for topic, n in joins.SOURCES.items() for i in range(n)]


def values_of(told: Sequence[Told]) -> list[bytes]:
    """Return ranges as they are on the topic."""
    upto: Counter[tuple[str, int]] = Counter()
    reference, found = joins.spec_of("1").reference, []
    for rows in told:
        place = rows.place or (("p", 0) if rows.predictions else ("l", 0))
        first = upto[place] - 1
        upto[place] += len(rows.predictions) + len(rows.labels)
        offsets = np.arange(first + 1, upto[place])
        predictions = []
        for at, (key, time_ms) in zip(offsets, rows.predictions, strict=False):
            columns = (_id(key), _i8(at), _i8(time_ms), np.int32(1).tobytes(), np.float64(0.5).tobytes(), np.uint16(1).tobytes())
            predictions.append(outcomes.Predictions(MODEL, "1", time_ms // PANE_MS * PANE_MS, reference, *columns))
        known = [
            outcomes.Labels(MODEL, _id(key), _i8(at), _i8(ms), [value])
            for at, (key, ms, value) in zip(offsets, rows.labels, strict=False)
        ]
        n = joins.SOURCES[place[0]]
        found.append(
            outcomes.encode(Range(*place, 1, first, upto[place] - 1, {GRACE_MS: rows.closed}, False, n, predictions, known))
        )
    return found


def one_join(*told: Told) -> JoinPartition:
    """Feed ranges to a join, a checkpoint after each."""
    stage = JoinPartition(settings(), 0, topology=joins.SOURCES, epoch=1, references=joins.references(), pending=Disk())
    stage.skip_to(0)
    live(stage, values_of(told), {})
    return stage


def live(stage: JoinPartition, values: Sequence[bytes], store: dict[bytes, bytes]) -> None:
    """Feed ranges, with a checkpoint after each."""
    for offset, value in enumerate(values, stage.next_offset):
        stage.feed([StoredRecord(offset, 0, value)], 0)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        stage.committed(checkpoint)
        store.update((key, value) for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None)


def _id(key: str) -> bytes:
    return NO_KEY.digests("", [key.encode()]).tobytes()


def _i8(number: int) -> bytes:
    return np.int64(number).tobytes()


def sent(stage: JoinPartition) -> dict[tuple[int, int], tuple[int, int]]:
    """Return (made, labelled) of each delta that a join sends, by pane and cut."""
    return told(cast("World", SimpleNamespace(partials=SimpleNamespace(records=stage.outbox(0).first))))


def counted(world: World, name: str) -> int:
    return sum(stage.counters().get(("outcomes", MODEL, name), 0) for stage in world.stages.values())


class TestWhen:
    def test_a_prediction_is_known_from_the_end_of_its_pane_and_a_pair_from_the_later_of_both(self) -> None:
        world = unfaulted(
            logs([prediction(3, "a"), prediction(4, "b"), prediction(5, "c")], [label(9, "a", "1"), label(47, "b", "0")])
        )
        assert told(world) == {(0, 10): (3, 1), (0, 50): (0, 1)}

    def test_a_label_that_comes_before_its_prediction_is_known_with_it(self) -> None:
        world = unfaulted(logs([prediction(25, "a")], [label(2, "a", "1")]))
        assert told(world) == {(20, 30): (1, 1)}

    def test_what_comes_when_the_clock_has_passed_its_cut_is_known_from_the_next_one(self) -> None:
        stage = one_join(
            *clocks(94), Told(predictions=[("a", 3)], closed=94), Told(labels=[("a", 12, "1")], closed=94), *clocks(500)
        )
        assert sent(stage) == {(0, 100): (1, 1)}

    @pytest.mark.parametrize("grace_ms", [0, GRACE_MS, GRACE_MS + 50])
    def test_what_was_complete_under_another_grace_stays_so(self, grace_ms: int) -> None:
        """Before it is told what is complete under the new one, and after."""
        disk, store = Disk(), dict[bytes, bytes]()
        before, between, after = clocks(94), [Told(predictions=[("a", 3)], closed=20), Told(labels=[("a", 12, "1")])], clocks(500)
        values = values_of([*before, *between, *after])
        first = self.join(disk, store, GRACE_MS)
        first.skip_to(0)
        live(first, values[: len(before)], store)
        second = self.join(disk, store, grace_ms)
        for value in values[len(before) :]:
            one = outcomes.decode(value)
            told = msgspec.structs.replace(one, closed={grace_ms: max((one.closed or {}).values())})
            live(second, [outcomes.encode(told)], store)
        assert sent(second) == {(0, 100): (1, 1)}

    def join(self, disk: Disk, store: dict[bytes, bytes], grace_ms: int) -> JoinPartition:
        own = settings()
        models = {MODEL: replace(own.model(MODEL), grace_ms=grace_ms, sha256=str(grace_ms))}
        return JoinPartition(
            replace(own, models=models), 0,
            topology=joins.SOURCES, epoch=1 if not store else 2, references=joins.references(), pending=disk, rows=store.items(),
        )  # fmt: skip

    @pytest.mark.parametrize(("reached", "cut"), [(19, 20), (20, 30), (29, 30), (30, 40)])
    def test_the_next_cut_is_the_first_one_beyond_the_clock(self, reached: int, cut: int) -> None:
        assert due(known_from(12, PANE_MS), PANE_MS, reached) == cut


class TestWhich:
    def test_the_smallest_prediction_of_an_id_is_the_one_and_a_later_label_takes_the_place_of_an_earlier_one(self) -> None:
        own = logs(
            [prediction(12, "a", "0"), prediction(11, "a", "1"), prediction(3, "b", "1")],
            [label(35, "a", "1"), label(36, "b", "0"), label(61, "b", "1"), label(62, "b", "1")],
        )
        world = unfaulted(own)
        assert anomalies(world) == []
        assert told(world) == {(0, 10): (1, 0), (10, 20): (1, 0), (10, 40): (0, 1), (0, 40): (0, 1), (0, 70): (0, 0)}
        assert [counted(world, name) for name in ("duplicate_predictions", "conflicting_labels", "duplicate_labels")] == [1, 1, 1]

    def test_what_comes_after_its_retention_is_counted_and_joined_to_nothing(self) -> None:
        over = 10 + RETENTION_MS
        stage = one_join(
            *clocks(0), Told(predictions=[("a", 3), ("b", 4)], closed=0), Told(labels=[("nobody", 5, "1"), ("x", 6, "1")], closed=0),
            *clocks(over - PANE_MS), Told(labels=[("a", 7, "1")], closed=over - PANE_MS),
            *clocks(over), Told(labels=[("b", 8, "1"), ("nobody", over + 9, "1")], closed=over), Told(predictions=[("x", 9)], closed=over),
            *clocks(10 * over),
        )  # fmt: skip
        counters = {key[2]: n for key, n in stage.counters().items() if key[0] == "outcomes" and n}
        assert counters == {
            "predictions": 2,
            "labels": 4,
            "joined": 1,
            "expired_labels": 1,
            "expired_predictions": 1,
            "orphan_labels": 3,
        }
        assert sum(labelled for _, labelled in sent(stage).values()) == 1

    def test_rows_without_an_id_and_of_models_without_a_reference_are_counted(self) -> None:
        stranger = prediction(5, "x").replace(b'"m"', b'"n"')
        world = World(
            logs([prediction(3, None), prediction(4, "a"), stranger], [label(4, "", "1"), label(5, "a", "1")]), random.Random(0)
        )
        stages = []
        for place in world.places()[:3]:
            stages.append(place.owner())
            stages[-1].feed(place.log.records, 0)
            stages[-1].checkpoint()
        unjoined = {key[1:]: n for stage in stages for key, n in stage.counters().items() if key[0] == "unjoined"}
        assert unjoined == {("m", "no_id"): 1, ("n", "no_reference"): 1}
        assert stages[2].counters()["unjoined", "m", "no_id"] == 1


def test_numbers_are_joined_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    feature = NumberFeature(
        name=PREDICTION, edges=(1.0, 2.0), reported=(1.0, 2.0), minimum=0.0, maximum=3.0, centre=1.5, exponent=-20
    )
    known = References()
    known.add(Reference.build(MODEL, "1", Profile(Layout((feature,))), performance=ReferencePerformance(task="regression", n=1)))
    monkeypatch.setattr(joins, "references", lambda: known)
    own = logs(
        [prediction(3, "a", 1.5), prediction(4, "b", 2.25), prediction(5, "c", None)],
        [label(6, "a", 1), label(7, "b", 2.5), label(8, "c", "x")],
    )
    spec = joins.spec_of("1")
    total, expected = OutcomeCells(spec), OutcomeCells(spec)
    for record in unfaulted(own).partials.records:
        item = partials.decode(record.value or b"")
        if isinstance(item, partials.OutcomePartial):
            total.add(OutcomeCells.from_bytes(spec, item.cells))
    rows = Rows(np.array([1.5, 2.25, np.nan]), np.zeros((3, 0)), (np.arange(3), np.zeros(3, np.int64)))
    expected.add_made(rows)
    expected.add_labelled(rows, spec.outcomes([1, 2.5, "x"]), np.array([3, 3, 3]))
    assert total.to_bytes() == expected.to_bytes()


def test_more_labels_than_are_kept_leave_the_latest() -> None:
    world = unfaulted(logs([prediction(3, "a")], [label(10 * i + 11, "a", "01"[i % 2]) for i in range(7)]))
    totals = told(world)
    assert sum(labelled for _, labelled in totals.values()) == 1
    assert counted(world, "conflicting_labels") == 6


class TestLostStore:
    def test_entries_that_are_made_anew_are_those_that_were_lost(self) -> None:
        world = unfaulted(draw(random.Random(7), quiet_ms=20))
        for r in range(joins.R):
            place = world.places()[3 + r]
            place.changelog.update(_changelog(world, r))
            kept = world.disks[r][-1]
            fresh = Disk()
            stage = JoinPartition(
                world.settings, r,
                topology=joins.SOURCES, epoch=9_999, references=joins.references(), pending=fresh, rows=list(place.changelog.items()),
            )  # fmt: skip
            assert stage.next_offset == 0
            stage.feed(world.outcomes[r].records, 0)
            assert stage.checkpoint() is not None
            assert {key: fresh.entries[key] for key in kept.entries} == kept.entries  # it has swept nothing yet
            assert len(kept.entries) > 4

    def test_a_gap_behind_what_is_read_again_is_told_as_any_other_one(self) -> None:
        """The state has read up to the marker of a transaction at 4; records 0 to 3 and 5 are there."""
        log = [*clocks(0), Told(predictions=[("a", 3)])]
        first = one_join(*log)
        first.skip_to(len(log) + 1)
        checkpoint = first.checkpoint()
        assert checkpoint is not None
        rows = [(key, value) for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None]
        disk = Disk()
        again = JoinPartition(
            settings(), 0, topology=joins.SOURCES, epoch=2, references=joins.references(), pending=disk, rows=rows
        )
        records = [StoredRecord(offset, 0, value) for offset, value in enumerate(values_of(log))]
        beyond = StoredRecord(len(log) + 1, 0, records[0].value)
        with pytest.raises(OffsetGap) as gap:
            again.feed([*records, beyond], 0)
        assert (gap.value.expected, gap.value.got) == (len(log), len(log) + 1)
        again.skip_to(gap.value.got)
        again.feed([*records, beyond], 0)
        assert (again.next_offset, again.counters()["gaps",], len(disk.entries)) == (len(log) + 2, 1, 1)

    def test_a_store_of_another_application_or_ahead_of_the_state_is_not_used(self) -> None:
        world = unfaulted(draw(random.Random(2), quiet_ms=20))
        used = world.disks[0][-1]
        assert used.entries and used.state
        stage = JoinPartition(
            settings(), 0, topology=joins.SOURCES, epoch=1, references=joins.references(), pending=(copy := used.copy())
        )
        assert (copy.entries, stage.next_offset) == ({}, -1)


def _changelog(world: World, r: int) -> dict[bytes, bytes]:
    """Return what the last owner's changelog would hold."""
    stage = world.stages[r]
    stage._meta_dirty = True
    checkpoint = stage.checkpoint()
    assert checkpoint is not None
    return {key: value for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None}


def test_a_range_that_is_cut_in_several_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_rows, "MAX_RANGE_BYTES", 100)
    world = unfaulted(draw(random.Random(4)))
    assert anomalies(world) == []
    assert sum(one.closed is None for one in joins.ranges(world)) > 10


def test_ranges_follow_one_another_and_every_partition_has_all_of_them() -> None:
    world = unfaulted(draw(random.Random(4)))
    for log in world.outcomes:
        upto: dict[str, int] = {}
        for record in log.records:
            one = outcomes.decode(record.value or b"")
            assert one.from_offset == upto.get(one.place, -1)
            upto[one.place] = one.to_offset
        assert upto == {f"{topic}|{i}": len(source.records) - 1 for (topic, i), source in world.logs.items()}


def test_joining_needs_all_of_its_clock() -> None:
    """While a source partition has said nothing, nothing is complete."""
    own = draw(random.Random(1))
    own["p", 1] = log_of([])
    assert not told(unfaulted(own))
    assert joining.COUNT_NAMES[joining.EXPIRED_LABELS] == "expired_labels"
