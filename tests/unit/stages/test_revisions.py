"""Late rows that are counted: what a revision holds is a function of the logs, whoever dies or wakes up, however records are fetched."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from monitor.findings import ClosedWindow, Judgement
from monitor.layout import Layout
from monitor.ports import Message, StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages import partials
from monitor.stages.merge import sending
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Revising, Settings
from monitor.windows import FOREVER_MS, WindowSpec
from tests.simulation import PARTITIONS, SOURCE, BareFormat, Place, Topic, finish, places_of, record, run, settings
from tests.simulation.scenario import BY_TAG, TAGS
from tests.unit.stages.test_rules import commit, count, ingest

SPECS = (WindowSpec(10, 10), WindowSpec(30, 10))
GRACE_MS = 4
REVISING = Revising(for_ms=50, every_ms=20)
END_MS = 1_000


def revising(revising: Revising = REVISING, *specs: WindowSpec, grace_ms: int = GRACE_MS) -> Settings:
    own = settings(*(specs or SPECS), grace_ms=grace_ms)
    return replace(own, defaults=replace(own.defaults, revising=revising))


def running_total(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """A judge whose state is the rows of all windows so far: what any window gets wrong, every later one shows.

    A window whose rows are the same has news when the total is another one.
    """
    window, n = closed.window, closed.profile.n
    total = int(before or b"0") + n
    key = f"{closed.model}|{window.start_ms}|{window.size_ms}|{closed.revision}".encode()
    facts = {
        "n": n,
        "segments": closed.profile.rows[1:].tolist(),
        "late": closed.profile.stream.count("late"),
        "total": total,
        "offsets": closed.source_offsets,
    }
    said = str(total).encode()
    return Judgement(((key, msgspec.json.encode(facts)),), (), said, (), said=said, is_news=said != closed.said)


def events(dice: random.Random, n: int, tags: Sequence[str | None] = (None,)) -> Topic:
    """Events that may come long after their time, and a tick after all of them."""
    log = Topic()
    for i in range(n):
        late_by = dice.choice([0, 0, 0, 20, 40, 90])
        log.records.append(record(i, dice.choice("ab"), max(0, i * 2 + dice.randrange(-8, 4) - late_by), tag=dice.choice(tags)))
    log.records.append(record(n, "tick", END_MS))
    return log


class World:
    """Two source partitions, one partition of `partials`, and what was published."""

    tags: Sequence[str | None] = (None,)

    def __init__(self, seed: int, n_events: int = 60, own: Settings | None = None) -> None:
        self.references = References()
        self.dice = random.Random(seed)
        self.settings = own or revising()
        self.logs = [events(self.dice, n_events, self.tags) for _ in range(PARTITIONS)]
        self.places, self.partials, self.published = self.made()

    def made(self) -> tuple[list[Place], Topic, list[Message]]:
        return places_of(self.settings, BareFormat(), running_total, self.logs, lambda: self.references)

    def outcomes(self) -> tuple[Counter[str], dict[tuple[str, int], list[tuple[int, int]]]]:
        """Rows by outcome, and by (model, pane) the cut and the rows of everything that is counted: by a plain loop over the logs."""
        revising = self.settings.defaults.revising
        assert revising is not None
        outcomes: Counter[str] = Counter()
        panes: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for log in self.logs:
            clock = -(10**9)
            for item in log.records:
                model, time, *_ = msgspec.json.decode(item.value or b"")
                clock = max(clock, time)
                if model == "tick":
                    continue
                pane, watermark = time // 10 * 10, clock - GRACE_MS
                if pane + 10 > watermark:
                    outcomes["counted"] += 1
                    panes[model, pane].append((-1, 1))
                elif pane + 10 + revising.for_ms > watermark:
                    outcomes["revised"] += 1
                    every = revising.every_ms
                    panes[model, pane].append((next(t for t in range(0, 10**6, every) if t > watermark), 1))
                else:
                    outcomes["late"] += 1
        return outcomes, panes

    def last(self) -> dict[tuple[str, int, int], tuple[int, int]]:
        """(model, start, size) → rows, and revisions that late rows make, of every window with rows."""
        found: dict[tuple[str, int, int], tuple[int, int]] = {}
        _, panes = self.outcomes()
        rows: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        for (model, pane), counted in panes.items():
            for spec in SPECS:
                for w in spec.windows_of(pane, pane + 1):
                    rows[model, w.start_ms, w.size_ms] += [cut for cut, _ in counted]
        for key, cuts in rows.items():
            end = key[1] + key[2]
            found[key] = (len(cuts), len({cut for cut in cuts if cut > end}))
        return found

    def content(self, published: list[Message] | None = None) -> dict[bytes, set[bytes]]:
        by_key: dict[bytes, set[bytes]] = defaultdict(set)
        for message in self.published if published is None else published:
            assert message.key is not None and message.value is not None
            by_key[message.key].add(message.value)
        return by_key

    def newest(self) -> dict[tuple[str, int, int], dict[int, Any]]:
        """(model, start, size) → revision → facts."""
        found: dict[tuple[str, int, int], dict[int, Any]] = defaultdict(dict)
        for key, values in self.content().items():
            model, start, size, revision = key.decode().split("|")
            found[model, int(start), int(size)][int(revision)] = msgspec.json.decode(next(iter(values)))
        return found

    def in_one_go(self) -> dict[bytes, set[bytes]]:
        """What is published when every stage reads its whole log at once and nobody dies."""
        places, _, published = self.made()
        for place in places:
            finish(place, self.dice)
        return self.content(published)

    def wrong(self) -> list[str]:
        found = self.content()
        problems = [f"CHANGED {key!r}" for key, values in found.items() if len(values) > 1]
        calm = self.in_one_go()
        problems += [f"ONLY_THERE {key!r}" for key in found.keys() ^ calm.keys()]
        problems += [f"OTHER {key!r} {found[key]} {calm[key]}" for key in found.keys() & calm.keys() if found[key] != calm[key]]
        newest = self.newest()
        for key, (n, _) in self.last().items():
            revisions = newest.get(key)
            if not revisions or revisions[max(revisions)]["n"] != n:
                problems.append(f"WRONG {key} {revisions} instead of {n}")
        return problems


class Segmented(World):
    """Rows are split by tag: a pane is stored and sent in two blocks."""

    tags = TAGS

    def made(self) -> tuple[list[Place], Topic, list[Message]]:
        for model in "ab":
            self.references.add(Reference.build(model, "1", Profile(Layout((), (BY_TAG,)))))
        return super().made()

    def wrong(self) -> list[str]:
        newest = [revisions[max(revisions)] for revisions in self.newest().values()]
        return super().wrong() + [f"SEGMENTS {found}" for found in newest if sum(found["segments"]) != found["n"]]


def failures(
    n_seeds: int, own: Settings | None = None, n_events: int = 60, kind: type[World] = World
) -> list[tuple[int, list[str]]]:
    found = []
    for seed in range(n_seeds):
        world = kind(seed, n_events, own)
        run(world.places, world.dice, 700)
        if problems := world.wrong():
            found.append((seed, problems))
    return found


def test_revisions_are_the_same_whoever_dies_or_wakes_up_and_the_last_one_has_every_row_that_came_in_time() -> None:
    assert failures(50) == []


def test_so_are_their_segments() -> None:
    assert failures(15, kind=Segmented) == []


@pytest.mark.parametrize("every_ms", [10, 40])
def test_so_they_are_whatever_they_are_gathered_for(every_ms: int) -> None:
    assert failures(12, revising(Revising(50, every_ms))) == []


def test_so_they_are_where_the_first_windows_are_collected_while_later_ones_are_revised() -> None:
    assert failures(12, revising(Revising(30, 10)), n_events=150) == []


def test_so_they_are_where_each_is_sent_by_itself_and_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PORTION", 1)
    assert failures(12) == []


def test_there_is_one_revision_for_each_cut_that_brought_rows_and_no_other() -> None:
    for seed in range(10):
        world = World(seed)
        run(world.places, world.dice, 300)
        newest, last = world.newest(), world.last()
        by_own_rows = {key: len({r["n"] for r in revisions.values()}) - 1 for key, revisions in newest.items()}
        assert all(by_own_rows[key] == n for key, (_, n) in last.items() if newest[key][0]["n"])
        assert all(sorted(revisions) == list(range(len(revisions))) for revisions in newest.values())


def test_the_decision_state_after_all_revisions_is_that_of_windows_that_had_their_rows_on_time() -> None:
    for seed in range(30):
        world = World(seed)
        run(world.places, world.dice, 300)
        totals: Counter[tuple[str, int]] = Counter()
        for (model, start, size), revisions in sorted(world.newest().items(), key=lambda item: item[0][1]):
            found = revisions[max(revisions)]
            totals[model, size] += found["n"]
            assert found["total"] == totals[model, size], (seed, model, start, size)


def test_every_row_is_counted_or_revised_or_late_as_a_plain_loop_says() -> None:
    for seed in range(20):
        world = World(seed)
        run(world.places, world.dice, 300)
        counts: Counter[str] = Counter()
        for place in world.places[:PARTITIONS]:
            for key, n in place.owner().counters().items():
                if key[0] == "events":
                    counts[key[2]] += n
        expected, _ = world.outcomes()
        assert expected["revised"] > 0
        assert +counts == expected
        assert counts.total() == sum(len(log.records) - 1 for log in world.logs)


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_any_split_of_the_logs_into_batches_gives_the_same_partials_by_place(seed: int, sizes: list[int]) -> None:
    log = events(random.Random(seed), 50).records

    def sent(cuts: list[int]) -> dict[tuple[object, ...], bytes]:
        stage, found, start, i = ingest(revising()), {}, 0, 0
        while start < len(log):
            size = cuts[i % len(cuts)]
            stage.feed(log[start : start + size], 0)
            start, i = start + size, i + 1
            commit(stage)
            if box := stage.outbox(0):
                for item in (partials.decode(m.value or b"") for m in box.first):
                    assert isinstance(item, partials.Partial)
                    found[item.model, item.start_ms, item.cut_ms] = partials.encode(item)
                stage.emitted(box, 0)
        return found

    assert sent(sizes) == sent([len(log)])


class TestStageTwo:
    offset = 0

    def at(self, item: partials.Partial | partials.Watermark) -> StoredRecord:
        self.offset += 1
        return StoredRecord(self.offset - 1, 0, partials.encode(item))

    def partial(
        self, n: int, *, partition: int = 0, start: int = 0, cut: int | None = None, hi: int = 9, version: str = "1",
        block: int = 0, blocks: int = 1,
    ) -> StoredRecord:  # fmt: skip
        profile = Profile(Layout())
        profile.rows[0] = 0 if block else n
        blocks_of = (block, blocks, profile.to_bytes())
        return self.at(
            partials.Partial(SOURCE, partition, 1, hi, "m", version, start, 10, 0, hi, 0, n, 0, "", "", *blocks_of, cut_ms=cut)
        )

    def mark(self, closed: int, *, partition: int = 0, idle: bool = False) -> StoredRecord:
        return self.at(partials.Watermark(SOURCE, partition, 1, 0, {0: closed}, idle, 0))

    def stage(
        self, partitions: int = 1, own: Settings | None = None, store: Mapping[bytes, bytes] | None = None
    ) -> MergePartition:
        own = own or revising(Revising(50, 10), WindowSpec(10, 10), grace_ms=0)
        stage = MergePartition(
            own, 0, topology={SOURCE: partitions}, epoch=2 if store else 1, judge=running_total, references=References(),
            rows=(store or {}).items(),
        )  # fmt: skip
        if not store:
            stage.skip_to(0)
        return stage

    def published(self, stage: MergePartition) -> list[tuple[str, int, int]]:
        commit(stage)
        box = stage.outbox(0)
        if box:
            stage.emitted(box, 0)
        return [
            ((m.key or b"").decode(), msgspec.json.decode(m.value or b"")["n"], msgspec.json.decode(m.value or b"")["total"])
            for m in box.first
        ]

    def test_late_rows_wait_for_the_watermark_that_cuts_them_off(self) -> None:
        stage = self.stage()
        stage.feed([self.partial(5), self.mark(20), self.partial(2, cut=30)], 0)
        assert self.published(stage) == [("m|0|10|0", 5, 5), ("m|10|10|0", 0, 5)]
        stage.feed([self.mark(29)], 0)
        assert self.published(stage) == []
        stage.feed([self.mark(30)], 0)
        assert self.published(stage) == [("m|0|10|1", 7, 7), ("m|10|10|1", 0, 7), ("m|20|10|0", 0, 7)]

    def test_a_jump_of_the_watermark_publishes_what_small_steps_do(self) -> None:
        log = [self.partial(5), self.partial(1, start=20), self.partial(2, cut=30), self.partial(3, cut=50, hi=12)]
        one, many = self.stage(), self.stage()
        one.feed([*log, self.mark(60)], 0)
        self.offset = len(log)
        many.feed([*log, *(self.mark(closed) for closed in range(10, 61, 10))], 0)
        assert self.published(one) == self.published(many)
        assert one.counters()["revisions", "m"] == 6  # of two windows with the first cut, of four with the second

    def test_a_partition_that_was_idle_revises_with_the_next_cut_what_it_missed(self) -> None:
        stage = self.stage(2)
        stage.feed([self.mark(0, partition=1, idle=True), self.partial(5), self.mark(20)], 0)
        assert self.published(stage)[0] == ("m|0|10|0", 5, 5)
        stage.feed([self.partial(3, partition=1), self.mark(30), self.mark(30, partition=1)], 0)
        assert ("m|0|10|1", 8, 8) in self.published(stage)
        assert ("events", "m", "late_after_final") not in stage.counters()

    @pytest.mark.parametrize("is_restarted", [False, True])
    def test_the_other_half_of_what_was_half_told_at_the_end_revises(self, is_restarted: bool) -> None:
        stage = self.stage(2)
        half = {"partition": 1, "blocks": 2}
        store: dict[bytes, bytes] = {}
        stage.feed([self.mark(0, partition=1, idle=True), self.partial(5), self.partial(3, **half), self.mark(20)], 0)
        commit(stage, store)
        if is_restarted:
            stage = self.stage(2, store=store)
        stage.feed([self.partial(3, block=1, **half), self.mark(30), self.mark(30, partition=1)], 0)
        assert ("m|0|10|1", 8, 8) in self.published(stage)
        assert ("events", "m", "late_after_final") not in stage.counters()

    def test_what_stays_half_told_until_its_pane_takes_no_more_is_late_once(self) -> None:
        stage = self.stage(2)
        half = {"partition": 1, "blocks": 2}
        log = [self.mark(0, partition=1, idle=True), self.partial(5), self.partial(3, **half), self.mark(20), self.mark(100)]
        stage.feed([*log, self.partial(3, block=1, **half), self.mark(110)], 0)
        assert all(not key.endswith("|1") for key, _, _ in self.published(stage))
        assert stage.counters()["events", "m", "late_after_final"] == 3

    def test_what_comes_after_its_time_is_counted_late_whatever_is_still_kept(self) -> None:
        stage = self.stage()
        stage.feed([self.partial(5), self.mark(70), self.partial(2, cut=80), self.mark(90)], 0)
        assert all(not key.endswith("|1") for key, _, _ in self.published(stage))
        assert stage.counters()["events", "m", "late_after_final"] == 2

    def test_partials_that_come_again_do_nothing(self) -> None:
        stage = self.stage()
        stage.feed([self.partial(5), self.mark(20), self.partial(2, cut=30), self.partial(2, cut=30), self.mark(30)], 0)
        stage.feed([self.partial(2, cut=30), self.partial(5), self.mark(40)], 0)
        assert [row for row in self.published(stage) if row[0].startswith("m|0|")] == [("m|0|10|0", 5, 5), ("m|0|10|1", 7, 7)]
        assert stage.counters()["duplicates",] == 3

    def test_a_window_that_nothing_was_known_of_becomes_final_in_its_place(self) -> None:
        stage = self.stage(own=revising(Revising(500, 10), WindowSpec(10, 10), grace_ms=0))
        stage.feed([self.partial(5, start=300), self.mark(310), self.partial(2, start=0, cut=320), self.mark(320)], 0)
        found = self.published(stage)
        assert ("m|0|10|0", 2, 2) in found
        assert ("m|300|10|1", 5, 7) in found

    def test_a_version_that_an_empty_window_was_published_for_goes_on_with_the_next_revision(self) -> None:
        """Found by a seed: late rows of version 2 had it forgotten, and those of version 1 were published as revision 0 again."""

        def by_version(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
            key = f"{closed.version}|{closed.window.start_ms}|{closed.revision}".encode()
            return Judgement(((key, b"%d" % closed.profile.n),), (), b"", ())

        own = revising(Revising(50, 10), WindowSpec(10, 10), grace_ms=0)
        for is_stored in (False, True):
            store: dict[bytes, bytes] = {}
            stage = MergePartition(own, 0, topology={SOURCE: 1}, epoch=1, judge=by_version, references=References())
            stage.skip_to(0)
            self.offset, epoch, sent = 0, 1, []
            for records in (
                [self.partial(5), self.mark(20)],
                [self.partial(2, start=10, cut=30, version="2"), self.mark(30)],
                [self.partial(3, start=10, cut=40, hi=12), self.mark(40)],
            ):
                stage.feed(records, 0)
                commit(stage, store)
                box = stage.outbox(0)
                sent += [(message.key, message.value) for message in box.first]
                stage.emitted(box, 0)
                commit(stage, store)
                if is_stored:
                    epoch += 1
                    stage = MergePartition(
                        own, 0, topology={SOURCE: 1}, epoch=epoch, judge=by_version, references=References(), rows=store.items()
                    )
            of_window = [(key, n) for key, n in sent if key is not None and key.split(b"|")[1] == b"10"]
            assert of_window == [(b"1|10|0", b"0"), (b"2|10|0", b"2"), (b"1|10|1", b"3")]

    def test_a_crash_between_any_two_rows_of_a_checkpoint_loses_no_revision(self) -> None:
        log = [
            self.partial(5),
            self.mark(20),
            self.partial(2, cut=30),
            self.mark(30),
            self.partial(1, cut=50, hi=12),
            self.mark(50),
        ]
        calm = self.stage()
        calm.feed(log, 0)
        expected = self.published(calm)
        for n_before in range(len(log)):
            for n_rows in range(8):
                store: dict[bytes, bytes] = {}
                first = self.stage()
                first.feed(log[:n_before], 0)
                commit(first, store)
                first.feed(log[n_before:], 0)
                checkpoint = first.checkpoint()
                assert checkpoint is not None
                for key, value in checkpoint.rows[:n_rows]:
                    store.pop(key, None)
                    if value is not None:
                        store[key] = value
                own = revising(Revising(50, 10), WindowSpec(10, 10), grace_ms=0)
                again = MergePartition(
                    own, 0, topology={SOURCE: 1}, epoch=2, judge=running_total, references=References(), rows=store.items()
                )
                if again.next_offset < 0:
                    again.skip_to(0)
                again.feed(log, 0)
                assert set(self.published(again)) >= set(expected), (n_before, n_rows)


class TestStageOne:
    def test_late_rows_before_one_cut_are_one_partial_and_those_after_it_another(self) -> None:
        """
        pane [0..10), cuts every 20, grace 4
        events 5 , 30 , 6(watermark 26: cut 40) , 43 , 7(39: cut 40) , 44 , 8(40: cut 60) , 70
        """
        stage = ingest(revising())
        stage.feed([record(i, "m", t) for i, t in enumerate([5, 30, 6, 43, 7, 44, 8, 70])], 0)
        commit(stage)
        found = [partials.decode(m.value or b"") for m in stage.outbox(0).first]
        assert {(p.start_ms, p.cut_ms, p.n, p.first, p.last) for p in found if isinstance(p, partials.Partial)} == {
            (0, None, 1, 0, 0), (30, None, 1, 1, 1), (0, 40, 2, 2, 4), (40, None, 2, 3, 5), (0, 60, 1, 6, 6)
        }  # fmt: skip
        assert (count(stage, "counted"), count(stage, "revised"), count(stage, "late")) == (5, 3, 0)

    def test_what_is_later_than_that_is_dropped_and_witnessed(self) -> None:
        stage = ingest(revising())
        stage.feed([record(i, "m", t) for i, t in enumerate([5, 64, 9, 63])], 0)  # watermark 60 = end 10 + 50
        assert (count(stage, "counted"), count(stage, "revised"), count(stage, "late")) == (3, 0, 1)

    def test_what_late_rows_are_cut_off_by_is_not_the_clock_of_who_reads_them(self) -> None:
        found = []
        for now in (0, 10**12):
            stage = ingest(revising(), now_ms=now)
            stage.feed([record(i, "m", t) for i, t in enumerate([5, 30, 6, 43, 7, 90])], now)
            commit(stage)
            found.append([m.value for m in stage.outbox(now).first])
        assert found[0] == found[1]


def test_rows_of_a_window_are_bounded_by_how_long_it_may_be_revised() -> None:
    world = World(1, 400, revising(Revising(30, 10)))
    for place in world.places:
        stage = place.owner()
        for start in range(0, len(place.log.records), 3):
            place.now_ms += 40
            stage.feed(place.log.records[start : start + 3], place.now_ms)
            for _ in place.tick(stage, world.dice):
                pass
        sizes = Counter(key.split(b"|")[0] for key in place.changelog)
        assert sizes[b"sealed"] <= 2 * (30 + 30 + 40) // 10 * 2
        assert sizes[b"late"] <= 40


def test_forever_is_later_than_every_cut() -> None:
    assert REVISING.next_cut_ms(FOREVER_MS - 21) <= FOREVER_MS
