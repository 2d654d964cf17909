"""Duplicates by id: which rows they are is a function of the log, whoever dies or wakes up, however records are fetched."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from monitor.hash_key import HashKey
from monitor.ports import StoredRecord
from monitor.reference import References
from monitor.stages.ingest import seen_ids
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.seen_ids import BUCKETS, SeenIds
from monitor.stages.settings import Revising, Settings
from monitor.windows import NEVER_MS, WindowSpec
from tests.simulation import PARTITIONS, SOURCE, BareFormat, Topic, count_rows, places_of, record, run, settings
from tests.unit.stages.test_rules import commit, count

SPECS = (WindowSpec(10, 10), WindowSpec(30, 10))
GRACE_MS = 4
BOUND_MS = 40
SIZE_MS = BOUND_MS // BUCKETS


class IdFormat(BareFormat):
    """The tag is the id."""

    def ids(self, payloads: Sequence[object]) -> list[str | None]:
        return [payload if isinstance(payload, str) else None for payload in payloads]


def remembering(*, revising: Revising | None = None, bound_ms: int = BOUND_MS) -> Settings:
    own = settings(*SPECS, grace_ms=GRACE_MS)
    return replace(own, defaults=replace(own.defaults, remember_ids_ms=bound_ms, revising=revising))


def ingest(own: Settings | None = None, items: list[tuple[bytes, bytes]] | None = None, epoch: int = 1) -> IngestPartition:
    stage = IngestPartition(
        own or remembering(), SOURCE, 0, partitions=1, epoch=epoch, wire=IdFormat(), references=References(), rows=items or []
    )
    if stage.next_offset < 0:
        stage.skip_to(0)
    return stage


def rows(*events: tuple[int, str | None]) -> list[StoredRecord]:
    return [record(i, "m", time, tag=tag) for i, (time, tag) in enumerate(events)]


def outcomes(stage: IngestPartition) -> tuple[int, int, int, int]:
    return count(stage, "counted"), count(stage, "revised"), count(stage, "late"), count(stage, "duplicate")


class TestWhichRows:
    def test_the_first_one_counts_and_those_after_it_are_duplicates_in_one_batch_or_in_many(self) -> None:
        log = rows((1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "c"), (6, "b"))
        for size in (1, 2, 6):
            stage = ingest()
            for start in range(0, len(log), size):
                stage.feed(log[start : start + size], 0)
            assert outcomes(stage) == (3, 0, 0, 3)

    def test_the_same_id_of_another_model_is_another_one(self) -> None:
        stage = ingest()
        stage.feed([record(0, "m", 1, tag="a"), record(1, "n", 1, tag="a"), record(2, "m", 1, tag="a")], 0)
        assert outcomes(stage) == (2, 0, 0, 1)

    def test_rows_without_an_id_are_counted_and_reported(self) -> None:
        stage = ingest()
        stage.feed(rows((1, None), (2, None), (3, ""), (4, "")), 0)
        assert outcomes(stage) == (4, 0, 0, 0)
        assert stage.counters()["without_id", "m"] == 4

    def test_an_id_is_remembered_for_the_bound_and_at_most_a_bucket_longer(self) -> None:
        """Seen at 9, the last millisecond of its bucket: forgotten when the clock reaches the fifth bucket after it."""
        for later, is_repeat in ((9 + BOUND_MS, True), (SIZE_MS + BOUND_MS, False), (SIZE_MS + BOUND_MS + 5, False)):
            stage = ingest()
            stage.feed(rows((9, "a"), (later, "a")), 0)
            assert (count(stage, "duplicate") == 1) is is_repeat, later

    def test_a_row_that_was_too_late_is_no_reason_to_drop_one_that_is_not(self) -> None:
        stage = ingest()
        stage.feed(rows((50, "x"), (1, "a"), (51, "a"), (52, "a"), (2, "a")), 0)
        assert outcomes(stage) == (2, 0, 1, 2)

    def test_a_late_row_that_is_revised_and_one_that_is_a_duplicate_are_told_apart(self) -> None:
        stage = ingest(remembering(revising=Revising(100, 10)))
        stage.feed(rows((1, "a"), (30, "b"), (2, "c"), (3, "a"), (4, "c")), 0)
        assert outcomes(stage) == (2, 1, 0, 2)

    def test_a_model_that_does_not_ask_is_not_looked_at(self) -> None:
        own = settings(*SPECS, grace_ms=GRACE_MS)
        own = replace(own, models={"m": replace(own.defaults, remember_ids_ms=BOUND_MS)})
        stage = ingest(own)
        log = [record(i, "mn"[i % 2], 1 + i, tag="a") for i in range(6)]
        stage.feed(log, 0)
        assert stage.counters()["events", "m", "duplicate"] == 2
        assert stage.counters()["events", "n", "duplicate"] == 0
        assert stage.gauges()["ids",] == 1

    @pytest.mark.parametrize("bound_ms", [20, 400])
    def test_ids_are_known_when_they_are_to_be_remembered_for_another_time(self, bound_ms: int) -> None:
        stage, store = ingest(), dict[bytes, bytes]()
        stage.feed(rows((1, "a"), (2, "b")), 0)
        commit(stage, store)
        again = ingest(remembering(bound_ms=bound_ms), list(store.items()), epoch=2)
        again.feed([record(2, "m", 3, tag="a"), record(3, "m", 4, tag="c"), record(4, "m", 5, tag="c")], 0)
        assert outcomes(again) == (3, 0, 0, 2)
        again.feed([record(5, "m", 95, tag="x"), record(6, "m", 96, tag="b")], 0)
        assert outcomes(again) == (5, 0, 0, 2)
        commit(again, store)
        third = ingest(remembering(bound_ms=bound_ms), list(store.items()), epoch=3)
        assert third.gauges()["ids",] == (2 if bound_ms == 20 else 3)

    def test_models_may_differ_in_how_long_they_remember(self) -> None:
        own = settings(*SPECS, grace_ms=GRACE_MS)
        own = replace(own, models={name: replace(own.defaults, remember_ids_ms=ms) for name, ms in (("m", 40), ("n", 400))})
        stage = ingest(own)
        stage.feed([record(i, "mn"[i % 2], t, tag="a") for i, t in enumerate((1, 1, 100, 100))], 0)
        assert (stage.counters()["events", "m", "duplicate"], stage.counters()["events", "n", "duplicate"]) == (0, 1)


def by_a_plain_loop(log: Sequence[tuple[int, int]], counted: Sequence[bool]) -> list[bool]:
    """(hash, clock) of rows in order → which are duplicates, with a dictionary."""
    bucket: dict[int, int] = {}
    found = []
    for (value, clock), is_counted in zip(log, counted, strict=True):
        now = clock // SIZE_MS
        seen = value in bucket and bucket[value] >= now - BUCKETS
        found.append(seen)
        if is_counted and not seen:
            bucket[value] = now
    return found


@hypothesis_settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30), st.booleans()), min_size=1, max_size=80),
    st.lists(st.integers(1, 20), min_size=1, max_size=8),
)
def test_any_split_gives_what_a_plain_loop_says(rows: list[tuple[int, int, bool]], sizes: list[int]) -> None:
    clock = np.cumsum([step for _, step, _ in rows])
    hashes = np.array([value for value, _, _ in rows], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    counted = np.array([is_counted for _, _, is_counted in rows])
    seen, found, start, i = SeenIds(BOUND_MS), [], 0, 0
    while start < len(rows):
        part = slice(start, start + sizes[i % len(sizes)])
        marks = np.stack((np.arange(len(rows))[part], clock[part]))
        found += seen.take(hashes[part], marks, counted[part]).tolist()
        seen.collect(int(clock[part][-1]))
        start, i = part.stop, i + 1
    assert found == by_a_plain_loop([(v, int(c)) for (v, _, _), c in zip(rows, clock, strict=True)], counted.tolist())
    assert len(seen.buckets) <= BUCKETS + 1


def test_many_ids_are_told_from_new_ones_as_a_set_does() -> None:
    """200,000 rows in batches of 700: long runs, which have their bits, in several buckets; half of the rows repeat one of the last 100,000."""
    dice = np.random.default_rng(3)
    rows, seen, found, known = 200_000, SeenIds(10**6), [], set()
    values = np.arange(rows)
    values[rows // 2 :] -= np.where(dice.random(rows // 2) < 0.5, dice.integers(1, rows // 2, rows // 2), 0)
    hashes = dice.permutation(2**20)[values].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, rows, 700):
        part = np.arange(start, min(start + 700, rows))
        found += seen.take(hashes[part], np.stack((part, part * 4)), np.ones(len(part), bool)).tolist()
    expected = [value in known or known.add(value) is not None for value in hashes.tolist()]
    assert found == expected
    assert sum(found) > 30_000
    assert len(seen.buckets) > 3
    assert sum(len(bucket.runs) for bucket in seen.buckets[:-1]) == len(seen.buckets) - 1


class TestStored:
    def ids(self, store: dict[bytes, bytes]) -> list[bytes]:
        return [key for key in store if key.startswith(b"ids|")]

    @pytest.fixture(autouse=True)
    def small_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seen_ids, "ROW_IDS", 4)

    def test_a_new_owner_knows_every_id_and_writes_only_the_rows_that_are_not_full(self) -> None:
        stage, store = ingest(), {}
        stage.feed(rows(*((1, f"i{i}") for i in range(11))), 0)
        commit(stage, store)
        assert len(self.ids(store)) == 3
        again = ingest(items=list(store.items()), epoch=2)
        again.feed([record(11 + i, "m", 2, tag=f"i{i}") for i in range(13)], 0)
        assert outcomes(again) == (13, 0, 0, 11)
        checkpoint = commit(again, store)
        assert checkpoint is not None
        assert [key[:-4].rsplit(b"|", 1)[1] for key, _ in checkpoint.rows if key.startswith(b"ids|")] == [b"2", b"3"]

    @pytest.mark.parametrize("n_ahead", range(1, 8))
    def test_rows_that_a_crash_left_ahead_of_meta_do_not_make_their_own_events_duplicates(self, n_ahead: int) -> None:
        log = rows(*((1 + 3 * i, f"i{i % 9}") for i in range(24)))
        stage, store = ingest(), {}
        stage.feed(log[:10], 0)
        commit(stage, store)
        stage.feed(log[10:], 0)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        ahead = [(key, value) for key, value in checkpoint.rows if key.startswith(b"ids|")]
        store |= {key: value for key, value in ahead[:n_ahead] if value is not None}
        again = ingest(items=list(store.items()), epoch=2)
        again.feed(log, 0)
        assert outcomes(again) == outcomes(stage)

    def test_what_is_forgotten_is_deleted_and_one_checkpoint_later(self) -> None:
        stage, store = ingest(), {}
        stage.feed(rows((1, "a"), (2, "b")), 0)
        commit(stage, store)
        assert len(self.ids(store)) == 1
        stage.feed([record(2, "m", 200, tag="c")], 0)
        commit(stage, store)
        assert len(self.ids(store)) == 2
        commit(stage, store)
        assert len(self.ids(store)) == 1
        assert stage.gauges()["ids",] == 1

    def test_a_row_of_forgotten_ids_that_a_zombie_writes_again_is_deleted(self) -> None:
        stage, store = ingest(), {}
        stage.feed(rows((1, "a")), 0)
        commit(stage, store)
        old = {key: store[key] for key in self.ids(store)}
        stage.feed([record(1, "m", 200, tag="c")], 0)
        commit(stage, store)
        commit(stage, store)
        assert not old.keys() & store.keys()
        again = ingest(items=list((store | old).items()), epoch=2)
        assert again.gauges()["ids",] == 1
        checkpoint = again.checkpoint()
        assert checkpoint is not None
        assert {key for key, value in checkpoint.rows if value is None} >= old.keys()

    def test_a_crash_between_the_deletions_of_a_forgotten_row_s_versions_leaves_state_that_is_read(self) -> None:
        """Found by a seed: an older owner's version has fewer ids than meta says, and the worker refused to start."""
        stage, store = ingest(), {}
        stage.feed(rows((1, "a")), 0)
        commit(stage, store)
        again = ingest(items=list(store.items()), epoch=2)
        again.feed([record(1, "m", 2, tag="b"), record(2, "m", 3, tag="c")], 0)
        commit(again, store)
        third = ingest(items=list(store.items()), epoch=3)
        third.feed([record(3, "tick", 200)], 0)
        commit(third, store)
        checkpoint = commit(third)
        assert checkpoint is not None
        deleted = [key for key, value in checkpoint.rows if value is None]
        assert set(deleted) == set(self.ids(store))
        assert len(deleted) == 2
        for left in deleted:
            items = {key: value for key, value in store.items() if key not in deleted or key == left}
            last = ingest(items=list(items.items()), epoch=4)
            assert last.gauges()["ids",] == 0
            assert left in {key for key, value in last.checkpoint().rows if value is None}  # type: ignore[union-attr]

    def test_switching_it_off_deletes_the_ids_and_switching_it_on_begins_anew(self) -> None:
        stage, store = ingest(), {}
        stage.feed(rows((1, "a")), 0)
        commit(stage, store)
        off = ingest(remembering(bound_ms=0), list(store.items()), epoch=2)
        off.feed([record(1, "m", 2, tag="a")], 0)
        commit(off, store)
        assert (outcomes(off), self.ids(store)) == ((2, 0, 0, 0), [])
        on = ingest(items=list(store.items()), epoch=3)
        on.feed([record(2, "m", 3, tag="a"), record(3, "m", 3, tag="a")], 0)
        assert outcomes(on) == (3, 0, 0, 1)

    def test_nothing_of_an_id_is_stored_but_its_hash_keyed(self) -> None:
        found = []
        for key in (HashKey(), HashKey("a key of sixteen characters")):
            stage = IngestPartition(
                remembering(), SOURCE, 0, partitions=1, epoch=1, wire=IdFormat(), references=References(key), rows=[]
            )
            stage.skip_to(0)
            store: dict[bytes, bytes] = {}
            stage.feed(rows((1, "a secret id")), 0)
            commit(stage, store)
            assert not any(b"a secret id" in value for value in store.values())
            found.append(store[self.ids(store)[0]])
        assert found[0] != found[1]


def world(seed: int, own: Settings, n_events: int = 60) -> tuple[list[Topic], random.Random]:
    dice = random.Random(seed)
    logs = []
    for partition in range(PARTITIONS):
        log = Topic()
        for i in range(n_events):
            tag = f"{partition}-{dice.randrange(max(1, i - 12), i + 2)}" if dice.random() < 0.9 else None
            log.records.append(record(i, dice.choice("ab"), max(0, i * 2 + dice.randrange(-12, 4)), tag=tag))
        log.records.append(record(n_events, "tick", 1_000))
        logs.append(log)
    return logs, dice


def expected(log: Topic) -> tuple[Counter[str], Counter[tuple[str, int]]]:
    """Rows by outcome, and rows by (model, pane): by a plain loop."""
    outcomes: Counter[str] = Counter()
    panes: Counter[tuple[str, int]] = Counter()
    seen: dict[tuple[str, str], int] = {}
    clock = -(10**9)
    for item in log.records:
        model, time, *tag = msgspec.json.decode(item.value or b"")
        clock = max(clock, time)
        if model == "tick":
            continue
        key, now = (model, tag[0] if tag else ""), clock // SIZE_MS
        if key[1] and key in seen and seen[key] >= now - BUCKETS:
            outcomes["duplicate"] += 1
        elif time // 10 * 10 + 10 + GRACE_MS <= clock:
            outcomes["late"] += 1
        else:
            outcomes["counted"] += 1
            panes[model, time // 10 * 10] += 1
            seen[key] = now
    return outcomes, panes


def test_windows_hold_every_id_once_whoever_dies_or_wakes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_ids, "ROW_IDS", 4)
    own = remembering()
    n_duplicates = 0
    for seed in range(50):
        logs, dice = world(seed, own)
        places, _, published = places_of(own, IdFormat(), count_rows, logs, References)
        run(places, dice, 700)
        counts: Counter[str] = Counter()
        totals: Counter[str] = Counter()
        windows: dict[bytes, int] = defaultdict(int)
        for log, place in zip(logs, places, strict=False):
            outcomes, panes = expected(log)
            totals += outcomes
            for (model, pane), n in panes.items():
                for spec in SPECS:
                    for w in spec.windows_of(pane, pane + 1):
                        windows[f"{model}|{w.start_ms}|{w.size_ms}".encode()] += n
            counts += Counter({key[2]: n for key, n in place.owner().counters().items() if key[0] == "events" and key[1] == "a"})
            counts += Counter({key[2]: n for key, n in place.owner().counters().items() if key[0] == "events" and key[1] == "b"})
        assert +counts == +totals, seed
        assert counts.total() == sum(len(log.records) - 1 for log in logs)
        n_duplicates += counts["duplicate"]
        found: dict[bytes, set[int]] = defaultdict(set)
        for message in published:
            found[message.key or b""].add(msgspec.json.decode(message.value or b"")["n"])
        assert {key: {n} for key, n in windows.items()}.items() <= found.items(), seed
    assert n_duplicates > 300


def test_a_tenth_of_duplicate_ids_leaves_as_many_rows_as_there_are_ids() -> None:
    """I6: 20,000 events, every tenth a repetition of an earlier one, in batches of any size."""
    dice = random.Random(6)
    log: list[StoredRecord] = []
    for i in range(20_000):
        is_repeat = i > 50 and dice.random() < 0.1
        old = dice.randrange(max(0, i - 2_000), i) if is_repeat else i
        value = log[old].value if is_repeat else msgspec.json.encode(["m", 1_000 + i, f"id-{i}"])
        log.append(StoredRecord(i, 1_000 + i, value))
    own = settings(WindowSpec(5_000, 5_000), grace_ms=2_000)
    stage = ingest(replace(own, defaults=replace(own.defaults, remember_ids_ms=7_000)))
    start, store = 0, {}
    while start < len(log):
        size = dice.choice((1, 7, 100, 900))
        stage.feed(log[start : start + size], 0)
        start += size
        if dice.random() < 0.1:
            commit(stage, store)
    n_ids = len({record.value for record in log})
    assert 17_500 < n_ids < 18_500
    assert outcomes(stage) == (n_ids, 0, 0, len(log) - n_ids)


def test_before_the_first_row_nothing_is_remembered() -> None:
    assert SeenIds(40).mark == (NEVER_MS, 0)
    assert SeenIds(40).collect(NEVER_MS) == []
