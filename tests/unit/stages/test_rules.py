"""Ingest and merge, rule by rule: lateness, silence, gaps, collection, identity of the state."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from monitor.errors import OffsetGap, StaleOwner, StateMismatch
from monitor.layout import Layout
from monitor.ports import LOG_APPEND_TIME, Checkpoint, StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages import partials, rows
from monitor.stages.ingest.panes import settings_of
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS, Final
from monitor.stages.merge.partition import MergePartition
from monitor.stages.pieces import Row
from monitor.stages.settings import Settings, SourceSettings
from monitor.stages.watermarks import Watermarks
from monitor.windows import NEVER_MS, WindowSpec
from tests.simulation import SOURCE, BareFormat, count_rows, record, settings

HOUR = 3_600_000
YEAR = 365 * 24 * HOUR
WALL = {SOURCE: SourceSettings(SOURCE, clock="wall", idle_after_ms=1_000, max_future_ms=300_000, max_delay_ms=HOUR)}


def ingest(own: Settings | None = None, items: list[tuple[bytes, bytes]] | None = None, **kwargs: object) -> IngestPartition:
    values: dict[str, object] = {"partitions": 1, "epoch": 1, "references": References()} | kwargs
    stage = IngestPartition(
        own or settings(),
        SOURCE,
        0,
        wire=BareFormat(),
        rows=items or [],
        **values,  # type: ignore[arg-type]
    )
    if stage.next_offset < 0:
        stage.skip_to(0)
    return stage


def merge(own: Settings, partitions: int = 1, items: list[tuple[bytes, bytes]] | None = None, epoch: int = 1) -> MergePartition:
    stage = MergePartition(
        own, 0, topology={SOURCE: partitions}, epoch=epoch, judge=count_rows, references=References(), rows=items or []
    )
    if stage.next_offset < 0:
        stage.skip_to(0)
    return stage


def commit(stage: IngestPartition | MergePartition, store: dict[bytes, bytes] | None = None) -> Checkpoint | None:
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        for key, value in (*checkpoint.rows, checkpoint.meta):
            if store is not None and value is not None:
                store[key] = value
            elif store is not None:
                store.pop(key, None)
        stage.committed(checkpoint)
    return checkpoint


def count(stage: IngestPartition, outcome: str) -> int:
    return sum(n for key, n in stage.counters().items() if key[0] == "events" and key[2] == outcome)


def marks(stage: IngestPartition, now_ms: int = 0) -> list[partials.Watermark]:
    box = stage.outbox(now_ms)
    found = [partials.decode(m.value or b"") for m in box.then]
    if box:
        stage.emitted(box, now_ms)
    return [m for m in found if isinstance(m, partials.Watermark)]


class TestLateness:
    def test_an_event_is_late_when_its_pane_has_ended_at_its_own_offset(self) -> None:
        """
        pane      [0..10)[10..20)[20..30)
        events     5 , 14 , 9 , 25 , 9(late) , 19(late: grace 4) , 21
        """
        stage = ingest(settings(grace_ms=4))
        times = [5, 13, 9, 25, 9, 19, 21]
        stage.feed([record(i, "m", t) for i, t in enumerate(times)], 0)
        assert (count(stage, "counted"), count(stage, "late")) == (5, 2)

    def test_batching_does_not_change_what_is_late(self) -> None:
        times = [5, 30, 9, 25, 9, 41, 39, 12]
        found = set()
        for size in (1, 3, 8):
            stage = ingest()
            records = [record(i, "m", t) for i, t in enumerate(times)]
            for start in range(0, len(records), size):
                stage.feed(records[start : start + size], 0)
            found.add((count(stage, "counted"), count(stage, "late")))
        assert len(found) == 1

    def test_a_future_event_is_rejected_and_never_moves_the_clock(self) -> None:
        own = settings(WindowSpec(HOUR, HOUR), sources=WALL)
        stage = ingest(own, now_ms=YEAR)
        stage.feed([record(0, "m", YEAR), record(1, "m", 50 * YEAR, stamp=YEAR), record(2, "m", YEAR + 1)], YEAR)
        assert stage.clock_ms == YEAR + 1
        assert stage.counters()["rejections", "future_timestamp"] == 1

    def test_every_record_of_a_live_log_append_topic_moves_the_clock_less_the_longest_delay(self) -> None:
        own = settings(WindowSpec(HOUR, HOUR), sources=WALL)
        stage = ingest(own)
        value = msgspec.json.encode(["m", YEAR])
        stage.feed([StoredRecord(0, YEAR + 5 * HOUR, value, timestamp_type=LOG_APPEND_TIME)], YEAR)
        assert stage.clock_ms == YEAR + 4 * HOUR
        assert count(stage, "late") == 1

    def test_models_on_one_topic_may_differ_in_grace(self) -> None:
        own = settings(WindowSpec(10, 10), grace_ms=0)
        patient = type(own.defaults)((WindowSpec(10, 10),), grace_ms=50)
        own = type(own)(own.app, {"patient": patient}, own.defaults, own.sources, partials_partitions=1, retire_after_ms=0)
        stage = ingest(own)
        stage.feed([record(0, "m", 5), record(1, "m", 30), record(2, "m", 5), record(3, "patient", 5)], 0)
        assert (count(stage, "counted"), count(stage, "late")) == (3, 1)
        commit(stage)
        assert marks(stage)[0].closed == {0: 30, 50: -20}

    def test_a_partition_speaks_for_models_that_it_has_never_seen(self) -> None:
        own = settings(WindowSpec(10, 10), grace_ms=2)
        named = type(own.defaults)((WindowSpec(10, 10),), grace_ms=50)
        own = type(own)(own.app, {"named": named}, own.defaults, own.sources, partials_partitions=1, retire_after_ms=0)
        stage = ingest(own)
        stage.feed([record(0, "named", 95)], 0)
        commit(stage)
        assert marks(stage)[0].closed == {2: 90, 50: 40}

    def test_the_limit_of_models_does_not_depend_on_how_the_log_is_fetched(self) -> None:
        own = settings(WindowSpec(10, 10), sources=WALL, max_models=2)
        names = ["a", "future", "b", "c", "a", "d", "b"]
        log = [record(i, n, 10 * YEAR if n == "future" else 5, stamp=5) for i, n in enumerate(names)]
        found = set()
        for size in (1, 2, 7):
            stage = ingest(own)
            for start in range(0, len(log), size):
                stage.feed(log[start : start + size], YEAR)
            found.add((count(stage, "counted"), stage.counters()["rejections", "model_limit"]))
        assert found == {(4, 2)}


class TestSilence:
    def live(self) -> IngestPartition:
        stage = ingest(settings(WindowSpec(10_000, 10_000), grace_ms=2_000, sources=WALL), now_ms=YEAR)
        stage.feed([record(0, "m", YEAR)], YEAR)
        return stage

    def test_a_silent_live_partition_moves_on_by_the_time_that_passed_from_where_it_stood(self) -> None:
        stage = self.live()
        stage.advance(YEAR + 900, at_end=True)
        assert stage.clock_ms == YEAR
        stage.advance(YEAR + 20_000, at_end=True)
        assert stage.clock_ms == YEAR + 20_000

    def test_it_does_not_move_while_records_are_still_to_be_read(self) -> None:
        stage = self.live()
        stage.advance(YEAR + 20_000, at_end=False)
        assert stage.clock_ms == YEAR

    def test_it_is_idle_once_nothing_is_open_and_a_record_ends_that(self) -> None:
        stage = self.live()
        stage.advance(YEAR + 20_000, at_end=True)
        commit(stage)
        assert not marks(stage)[0].idle  # its pane was sent just now
        stage.advance(YEAR + 20_200, at_end=True)
        commit(stage)
        assert marks(stage)[0].idle
        stage.feed([record(1, "m", YEAR + 21_000)], YEAR + 21_000)
        commit(stage)
        assert not marks(stage)[0].idle

    def test_a_backfill_that_pauses_loses_nothing(self) -> None:
        """Year-old events, pauses of 30 s where idle_after is 1 s and panes are 10 s: the clock waits."""
        own = settings(WindowSpec(10_000, 10_000), grace_ms=0, sources=WALL)
        stage = ingest(own, now_ms=2 * YEAR)
        now, offset = 2 * YEAR, 0
        for step in range(20):
            stage.feed([record(offset + i, "m", YEAR + step * 7_000 + i) for i in range(10)], now)
            offset += 10
            now += 30_000
            stage.advance(now, at_end=True)
            commit(stage)
            marks(stage, now)
        assert (count(stage, "counted"), count(stage, "late")) == (200, 0)

    def test_a_backfill_that_ends_closes_after_the_longest_delay(self) -> None:
        stage = ingest(settings(WindowSpec(10_000, 10_000), sources=WALL), now_ms=2 * YEAR)
        stage.feed([record(0, "m", YEAR)], 2 * YEAR)
        stage.advance(2 * YEAR + HOUR, at_end=True)
        assert stage.clock_ms == YEAR + HOUR

    def test_a_source_with_event_clock_never_moves_by_itself(self) -> None:
        stage = ingest(now_ms=YEAR)
        stage.feed([record(0, "m", 5)], YEAR)
        stage.advance(2 * YEAR, at_end=True)
        assert stage.clock_ms == 5

    def test_the_step_is_in_meta_before_anything_is_sent(self) -> None:
        stage, store = self.live(), {}
        stage.advance(YEAR + 20_000, at_end=True)
        assert not stage.outbox(YEAR + 20_000)
        commit(stage, store)
        again = ingest(stage._settings, list(store.items()), epoch=2, now_ms=YEAR + 20_000)
        assert again.clock_ms == YEAR + 20_000
        assert stage.outbox(YEAR + 20_000).first

    def test_a_partition_without_any_record_is_idle_at_once(self) -> None:
        stage = ingest(settings(sources=WALL), now_ms=YEAR)
        stage.advance(YEAR, at_end=True)
        commit(stage)
        assert marks(stage)[0].idle

    def test_when_all_are_idle_windows_close_at_clock_speed_and_empty_ones_are_published_for_a_while(self) -> None:
        own = settings(WindowSpec(10_000, 10_000), sources=WALL)
        one, two = ingest(own, now_ms=YEAR), merge(own)
        one.feed([record(0, "m", YEAR)], YEAR)
        published, offset = [], 0
        for now in range(YEAR, YEAR + 400_000, 5_000):
            one.advance(now, at_end=True)
            commit(one)
            box = one.outbox(now)
            for message in (*box.first, *box.then):
                two.feed([StoredRecord(offset, 0, message.value)], now)
                offset += 1
            if box:
                one.emitted(box, now)
            commit(two)
            out = two.outbox(now)
            published += [msgspec.json.decode(m.value or b"")["n"] for m in out.first]
            if out:
                two.emitted(out, now)
        assert published == [1] + [0] * MAX_EMPTY_WINDOWS


class TestTold:
    """What a stage tells of itself."""

    def test_counters_and_gauges_of_ingest(self) -> None:
        stage = ingest(replace(settings(grace_ms=4), unknown_model="drop"))
        stage.feed([record(0, "m", 5), record(1, "tick", 30)], 0)
        assert stage.counters() == {("labels",): 0, ("ticks",): 1, ("gaps",): 0, ("lost",): 0, ("dropped",): 1}
        stage = ingest(settings(grace_ms=4))
        assert stage.gauges()["watermark_ms",] != stage.gauges()["watermark_ms",]  # not known yet
        stage.feed([record(0, "m", 5), record(1, "m", 35), record(2, "m", 5)], 0)
        told = {("watermark_ms",): 35.0, ("open_rows",): 2.0, ("rows",): 2.0, ("idle",): 0.0}
        assert {name: value for name, value in stage.gauges().items() if name in told} == told
        assert (count(stage, "counted"), count(stage, "late")) == (2, 1)
        commit(stage)
        marks(stage)
        assert (stage.gauges()["open_rows",], stage.gauges()["rows",]) == (1.0, 2.0)

    def test_a_dead_letter_is_the_record_itself_and_says_where_it_stood_and_why(self) -> None:
        stage = ingest(settings(WindowSpec(HOUR, HOUR), sources=WALL), now_ms=YEAR)
        refused = StoredRecord(1, YEAR, msgspec.json.encode(["m", 50 * YEAR]), b"key", LOG_APPEND_TIME)
        stage.feed([record(0, "m", YEAR), refused], YEAR)
        checkpoint = commit(stage)
        assert checkpoint is not None
        (letter,) = checkpoint.dead_letters
        assert (letter.topic, letter.key, letter.value) == ("m.dead-letter", b"key", refused.value)
        facts = {"topic": SOURCE, "partition": 0, "offset": 1, "timestamp": YEAR, "reason": "future_timestamp", "pointer": "time"}
        assert letter.headers == {f"__monitor.errors.{name}": str(value).encode() for name, value in facts.items()}
        stage.feed([record(2, "m", YEAR)], YEAR)
        again = commit(stage)
        assert again is not None and again.dead_letters == ()

    def test_what_was_late_or_ahead_and_by_how_much_is_in_the_pane_that_held_the_clock(self) -> None:
        sources = {SOURCE: replace(WALL[SOURCE], clock="event", max_future_ms=100)}
        stage = ingest(settings(sources=sources), now_ms=10**6)
        stage.feed(
            [record(0, "m", 31), record(1, "m", 5), record(2, "m", 500, stamp=33), record(3, "m", 8), record(4, "m", 77)], 10**6
        )
        commit(stage)
        (sent,) = (partials.decode(m.value or b"") for m in stage.outbox(0).first)
        assert isinstance(sent, partials.Partial)
        stream = Profile.from_bytes(sent.profile, Layout()).stream
        assert (sent.start_ms, sent.n, sent.first, sent.last, sent.clock_before_ms) == (30, 1, 0, 3, NEVER_MS)
        assert (stream.count("late"), stream.most("lateness"), stream.count("future"), stream.most("ahead")) == (2, 26, 1, 467)

    def test_state_can_be_read_without_the_references_topic(self) -> None:
        references, store = References(), {}
        references.add(Reference.build("m", "1", Profile(Layout())))
        stage = ingest(references=references)
        stage.feed([record(0, "m", 5), record(1, "m", 15)], 0)
        checkpoint = commit(stage, store)
        assert checkpoint is not None
        assert [key[:10] for key, _ in checkpoint.rows].count(b"reference|") == 1
        stage.feed([record(2, "m", 16), record(3, "tick", 50)], 0)
        checkpoint = commit(stage, store)
        assert checkpoint is not None
        assert not any(key.startswith(b"reference|") for key, _ in checkpoint.rows)  # once
        again = ingest(items=list(store.items()), epoch=2, references=References())
        commit(again)
        assert len(again.outbox(0).first) == 2


class TestTakingOver:
    def test_the_last_durable_watermark_goes_to_every_partition_of_partials_at_a_takeover(self) -> None:
        own = replace(settings(), partials_partitions=3)
        stage, store = ingest(own), {}
        stage.feed([record(0, "tick", 57)], 0)
        commit(stage, store)  # and it ends before it has sent anything
        again = ingest(own, list(store.items()), epoch=2)
        assert not again.outbox(0)  # an epoch that it speaks in is durable first
        commit(again, store)
        sent = [(m.partition, partials.decode(m.value or b"")) for m in again.outbox(0).then]
        assert [(q, mark.epoch, mark.closed) for q, mark in sent if isinstance(mark, partials.Watermark)] == [
            (q, 2, {0: 50}) for q in range(3)
        ]

    def test_the_watermark_is_said_again_every_few_seconds(self) -> None:
        own = replace(settings(), watermark_every_ms=5_000)
        stage = ingest(own)
        stage.feed([record(0, "tick", 57)], 0)
        commit(stage)
        assert [len(marks(stage, now_ms)) for now_ms in (0, 4_999, 5_000, 9_999, 10_000)] == [1, 0, 1, 0, 1]

    def test_that_a_partition_is_idle_is_said_again(self) -> None:
        own = settings(sources=WALL)
        stage, store = ingest(own, now_ms=YEAR), {}
        stage.advance(YEAR, at_end=True)
        commit(stage, store)
        again = ingest(own, list(store.items()), epoch=2, now_ms=YEAR)
        commit(again)
        assert [mark.idle for mark in marks(again)] == [True]

    def test_a_pane_that_was_closed_and_not_sent_goes_before_the_watermark_that_passes_it(self) -> None:
        stage, store = ingest(), {}
        stage.feed([record(0, "m", 5), record(1, "tick", 57)], 0)
        commit(stage, store)
        again = ingest(items=list(store.items()), epoch=2)
        assert not again.outbox(0)
        commit(again, store)
        box = again.outbox(0)
        assert (len(box.first), len(box.then)) == (1, 1)

    def test_silence_is_measured_on_one_owners_clock(self) -> None:
        """The owner before had a clock that is an hour behind: its last record is as old as this one's start, not an hour older."""
        own = settings(WindowSpec(10_000, 10_000), grace_ms=2_000, sources=WALL)
        stage, store = ingest(own, now_ms=YEAR - HOUR), {}
        value = msgspec.json.encode(["m", YEAR])
        stage.feed([StoredRecord(0, YEAR, value, timestamp_type=LOG_APPEND_TIME)], YEAR - HOUR)
        commit(stage, store)
        again = ingest(own, list(store.items()), epoch=2, now_ms=YEAR)
        again.advance(YEAR + 900, at_end=True)
        assert again.clock_ms == YEAR
        again.advance(YEAR + 5_000, at_end=True)
        assert again.clock_ms == YEAR + 5_000


class TestGaps:
    def test_a_gap_before_the_batch_is_refused_before_any_effect_and_passed_once_explained(self) -> None:
        stage = ingest()
        stage.feed([record(0, "m", 1)], 0)
        with pytest.raises(OffsetGap) as caught:
            stage.feed([record(3, "m", 2)], 0)
        assert (caught.value.expected, caught.value.got) == (1, 3)
        stage.skip_to(3)
        stage.feed([record(3, "m", 2)], 0)
        assert (stage.next_offset, stage.counters()["gaps",], count(stage, "counted")) == (4, 2, 2)

    def test_gaps_inside_a_batch_too(self) -> None:
        stage = ingest()
        batch = [record(0, "m", 1), record(2, "m", 2), record(5, "m", 3)]
        for got in (2, 5):
            with pytest.raises(OffsetGap) as caught:
                stage.feed(batch, 0)
            assert caught.value.got == got
            stage.skip_to(got)
        stage.feed(batch, 0)
        assert (stage.next_offset, stage.counters()["gaps",], count(stage, "counted")) == (6, 3, 3)

    def test_lost_records_mark_the_windows_that_may_miss_them(self) -> None:
        stage = ingest()
        stage.feed([record(0, "m", 1)], 0)
        stage.skip_to(11, lost=True)
        stage.feed([record(11, "m", 25)], 0)
        commit(stage)
        found = [partials.decode(m.value or b"") for m in stage.outbox(0).first]
        assert [p.lost for p in found if isinstance(p, partials.Partial)] == [10]
        assert stage.counters()["lost",] == 10


class TestState:
    @pytest.mark.parametrize("epoch", [3, 7])
    def test_an_epoch_in_the_store_that_is_not_below_ones_own_is_refused(self, epoch: int) -> None:
        stage, store = ingest(epoch=7), {}
        stage.feed([record(0, "m", 1)], 0)
        commit(stage, store)
        with pytest.raises(StaleOwner) as caught:
            ingest(items=list(store.items()), epoch=epoch)
        assert (caught.value.own_epoch, caught.value.found_epoch) == (epoch, 7)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"partitions": 3}, "s has 3 partitions, its state was written for 1"),
            ({"topic_id": "b"}, "deleted and created again"),
        ],
    )
    def test_state_of_another_topic_is_refused(self, change: dict[str, object], message: str) -> None:
        stage, store = ingest(topic_id="a"), {}
        stage.feed([record(0, "m", 1)], 0)
        commit(stage, store)
        with pytest.raises(StateMismatch, match=message):
            ingest(items=list(store.items()), **{"epoch": 2, "topic_id": "a"} | change)

    def test_state_for_another_number_of_partitions_of_partials_is_refused(self) -> None:
        stage, store = ingest(), {}
        stage.feed([record(0, "m", 1)], 0)
        commit(stage, store)
        with pytest.raises(StateMismatch, match="partials has 4 partitions, its state was written for 1"):
            ingest(replace(settings(), partials_partitions=4), list(store.items()), epoch=2)

    def test_a_collected_pane_that_a_zombie_writes_again_is_dropped_and_deleted(self) -> None:
        own = settings()
        own = type(own)(own.app, {}, own.defaults, own.sources, partials_partitions=1, retire_after_ms=0)
        stage, store = ingest(own), {}
        stage.feed([record(0, "m", 5), record(1, "m", 15)], 0)
        commit(stage, store)
        old = {key: value for key, value in store.items() if key.startswith(b"pane|m|1|0|")}
        assert old
        for _ in range(4):
            box = stage.outbox(0)
            if box:
                stage.emitted(box, 0)
            commit(stage, store)
        assert not any(key in store for key in old)
        store |= old
        again = ingest(own, list(store.items()), epoch=2)
        checkpoint = again.checkpoint()
        assert checkpoint is not None
        assert {key for key, value in checkpoint.rows if value is None} >= set(old)

    def test_rows_of_a_pane_that_a_paused_owner_has_sent_are_counted_and_those_behind_them_late(self) -> None:
        """Its meta is deleted before its rows: an owner may find the pane sent while meta stands before its rows."""
        stage, store, older = ingest(), {}, {}
        stage.feed([record(0, "m", 1)], 0)
        commit(stage, older)
        stage.feed([record(1, "m", 5), record(2, "m", 15)], 0)
        commit(stage, store)
        stage.emitted(stage.outbox(0), 0)
        commit(stage, store)
        ahead = {key: value for key, value in store.items() if key.startswith(b"pane|m|1|0|")}
        meta = {key: value for key, value in older.items() if key.startswith(rows.META)}
        again = ingest(items=list((ahead | meta).items()), epoch=2)
        again.feed([record(1, "m", 5), record(2, "m", 15), record(3, "m", 7)], 0)
        assert (count(again, "counted"), count(again, "late")) == (3, 1)

    def test_gc_upto_is_durable_one_checkpoint_before_its_tombstones(self) -> None:
        stage, store = ingest(replace(settings(), partials_partitions=1, retire_after_ms=0)), {}
        stage.feed([record(0, "m", 5), record(1, "m", 15)], 0)
        commit(stage, store)
        stage.emitted(stage.outbox(0), 0)
        commit(stage, store)
        collecting = commit(stage, store)
        assert collecting is not None
        assert not any(value is None and key.startswith(b"pane") for key, value in collecting.rows)
        deleting = commit(stage, store)
        assert deleting is not None
        assert any(value is None and key.startswith(b"pane") for key, value in deleting.rows)

    def test_what_an_owner_wrote_that_was_further_stays_until_its_successor_is_as_far(self) -> None:
        """It may have deleted rows that only its own meta tells are not needed."""
        own, store = replace(settings(), retire_after_ms=10), dict[bytes, bytes]()
        log = [record(i, "m", i) for i in range(9)]
        first = ingest(own)
        first.feed(log[:2], 0)
        commit(first, store)
        second = ingest(own, list(store.items()), epoch=2)
        first.feed(log[2:6], 5)
        commit(first, store)
        found = []
        for upto in range(3, 10):
            second.feed(log[:upto], 20)
            second.advance(20, at_end=False, end=6 + upto // 6)  # none of them has read what came later
            commit(second, store)
            found.append(rows.stored_key(rows.META, 1) in store)
            assert ingest(own, list(store.items()), epoch=3).next_offset == max(6, upto)
        assert found == [True] * 4 + [False] * 3

    def test_the_rows_of_what_was_sent_stay_while_an_older_owner_may_be_alive(self) -> None:
        stage, store = ingest(replace(settings(), retire_after_ms=1_000)), {}
        stage.feed([record(0, "m", 5), record(1, "m", 15)], 0)
        for now_ms in (0, 0, 999, 999):
            stage.advance(now_ms, at_end=False)
            commit(stage, store)
            marks(stage)
        assert any(key.startswith(b"pane|m|1|0|") for key in store)
        for _ in range(2):
            stage.advance(1_000, at_end=False)
            commit(stage, store)
        assert not any(key.startswith(b"pane|m|1|0|") for key in store)

    def test_what_changes_content_is_in_the_panes_key_or_row_and_in_its_partial(self) -> None:
        own = settings()
        own = replace(own, defaults=replace(own.defaults, sha256="these"))
        stage, store = ingest(own), {}
        stage.feed([record(0, "m", 1), record(1, "tick", 30)], 0)
        commit(stage, store)
        (sent,) = (partials.decode(m.value or b"") for m in stage.outbox(0).first)
        assert isinstance(sent, partials.Partial)
        assert (sent.settings, sent.size_ms) == ("these", own.defaults.pane_ms)
        (row,) = (rows.parse(key, value)[1] for key, value in store.items() if key.startswith(b"pane|m|1|0|10"))
        assert settings_of(row.payload) == "these"
        changed = replace(own, defaults=replace(own.defaults, specs=(WindowSpec(20, 20),)))
        with pytest.raises(StateMismatch, match="the state of model m is made of panes of 10ms"):
            ingest(changed, list(store.items()), epoch=2)


class TestMerge:
    def partial(self, hi: int, n: int, *, partition: int = 0, start: int = 0, block: int = 0, blocks: int = 1) -> StoredRecord:
        profile = Profile(Layout())
        profile.rows[0] = 0 if block else n
        item = partials.Partial(
            SOURCE, partition, 1, hi, "m", "1", start, 10, 0, hi, NEVER_MS, n, 0, "", "", block, blocks, profile.to_bytes()
        )
        self.offset += 1
        return StoredRecord(self.offset - 1, 0, partials.encode(item))

    def mark(self, closed: int, *, partition: int = 0, epoch: int = 1, idle: bool = False) -> StoredRecord:
        self.offset += 1
        item = partials.Watermark(SOURCE, partition, epoch, 0, {0: closed}, idle, self.partitions)
        return StoredRecord(self.offset - 1, 0, partials.encode(item))

    offset, partitions = 0, 1

    def merge_of_two(self) -> MergePartition:
        self.partitions = 2
        return merge(settings(), partitions=2)

    def published(self, stage: MergePartition) -> list[int]:
        commit(stage)
        box = stage.outbox(0)
        if box:
            stage.emitted(box, 0)
        return [msgspec.json.decode(m.value or b"")["n"] for m in box.first]

    def test_a_window_waits_for_every_partition_that_is_not_idle(self) -> None:
        stage = self.merge_of_two()
        stage.feed([self.partial(3, 5), self.mark(10)], 0)
        assert self.published(stage) == []
        stage.feed([self.partial(8, 2, partition=1), self.mark(10, partition=1)], 0)
        assert self.published(stage) == [7]

    def test_a_worker_that_sees_another_number_of_partitions_is_noticed(self) -> None:
        stage = merge(settings(), partitions=1)
        self.partitions = 2
        with pytest.raises(StateMismatch, match="has 1 partitions for this worker and 2 for another one"):
            stage.feed([self.mark(10)], 0)

    def test_an_idle_partition_holds_nobody_back(self) -> None:
        stage = self.merge_of_two()
        stage.feed([self.mark(0, partition=1, idle=True), self.partial(3, 5), self.mark(10)], 0)
        assert self.published(stage) == [5]

    def test_the_partial_with_the_greatest_hi_counts_and_repeats_do_nothing(self) -> None:
        stage = merge(settings())
        stage.feed([self.partial(3, 5), self.partial(9, 8), self.partial(3, 5), self.mark(10)], 0)
        assert self.published(stage) == [8]
        assert stage.counters()["duplicates",] == 1

    def test_what_comes_after_the_end_is_counted_by_its_difference(self) -> None:
        stage = merge(settings())
        stage.feed([self.partial(3, 5), self.mark(10), self.partial(9, 8), self.partial(9, 8), self.partial(12, 9)], 0)
        assert self.published(stage) == [5]
        assert stage.counters()["events", "m", "late_after_final"] == 4

    def test_of_what_is_half_told_at_the_end_the_rows_are_late_and_counted_once(self) -> None:
        stage = self.merge_of_two()
        half = {"partition": 1, "blocks": 2}
        stage.feed([self.mark(0, partition=1, idle=True), self.partial(3, 5), self.partial(0, 2, **half), self.mark(10)], 0)
        assert self.published(stage) == [5]
        assert stage.counters()["events", "m", "late_after_final"] == 2
        stage.feed([self.partial(0, 2, block=1, **half), self.partial(0, 2, **half), self.partial(4, 3, **half)], 0)
        assert stage.counters()["events", "m", "late_after_final"] == 3

    def test_what_is_half_told_beyond_what_was_told_is_late(self) -> None:
        stage = self.merge_of_two()
        half = {"partition": 1, "blocks": 2}
        told = [self.mark(0, partition=1, idle=True), self.partial(0, 2, **half), self.partial(0, 2, block=1, **half)]
        stage.feed([*told, self.partial(7, 6, **half), self.mark(10), self.partial(7, 6, block=1, **half)], 0)
        assert self.published(stage) == [2]
        assert stage.counters()["events", "m", "late_after_final"] == 4

    def test_what_is_sent_again_after_its_pane_was_collected_is_a_repeat_and_not_late(self) -> None:
        stage = merge(replace(settings(), retire_after_ms=0))
        stage.feed([self.partial(0, 5), self.mark(10), self.partial(0, 1, start=10), self.mark(20)], 0)
        for _ in range(3):
            self.published(stage)
        stage.feed([self.partial(0, 5)], 0)
        assert (stage.counters()["duplicates",], stage.counters().get(("events", "m", "late_after_final"))) == (1, None)
        stage.feed([self.partial(7, 6)], 0)
        assert stage.counters()["events", "m", "late_after_final"] == 6

    def test_a_younger_owners_watermark_replaces_and_an_older_ones_is_ignored(self) -> None:
        stage = self.merge_of_two()
        stage.feed([self.mark(50, epoch=1), self.mark(0, epoch=2), self.mark(50, epoch=1)], 0)
        stage.feed([self.mark(50, partition=1), self.partial(3, 5)], 0)
        stage.feed([self.mark(0, partition=1, epoch=1)], 0)
        assert self.published(stage) == []

    def test_two_owners_of_one_log_publish_the_same_bytes(self) -> None:
        log = [self.partial(3, 5), self.mark(10), self.partial(5, 4, start=10), self.mark(30)]
        found = []
        for size in (1, 4):
            stage = merge(settings(WindowSpec(10, 10), WindowSpec(20, 10)))
            for i in range(0, len(log), size):
                stage.feed(log[i : i + size], 0)
            commit(stage)
            found.append([(m.key, m.value) for m in stage.outbox(0).first])
        assert found[0] == found[1]

    def test_everything_that_a_finalisation_changes_is_one_record(self) -> None:
        stage, store = merge(settings()), {}
        for start in (0, 10):
            stage.feed([self.partial(start, 5, start=start), self.mark(start + 10)], 0)
            checkpoint = commit(stage, store)
            assert checkpoint is not None
            stage.emitted(stage.outbox(0), 0)
            written = rows.Versions(((key, value) for key, value in checkpoint.rows if value is not None), 2).best
            finals = [row for key, row in written.items() if key.startswith(b"window|") and row.state == rows.CLOSED]
            value = Row.load(b"", dict(enumerate(finals)), Final)
            assert len(finals) == 1 and value is not None
            assert value.value.after == {"1": str(start // 10 + 1).encode()}
            assert [msgspec.json.decode(data)["n"] for _, data in value.value.results] == [5]

    def test_collection_is_noted_one_checkpoint_before_its_tombstones(self) -> None:
        stage = merge(replace(settings(), retire_after_ms=0))
        noted, n_gone = NEVER_MS, 0
        for start in range(0, 60, 10):
            stage.feed([self.partial(start, 5, start=start), self.mark(start + 10)], 0)
            for _ in range(3):
                checkpoint = commit(stage)
                gone = [key for key, value in checkpoint.rows if value is None] if checkpoint else []
                ends = [int(rows.key_parts(key[:-4])[2]) for key in gone if key.startswith(b"window|")]
                assert all(end <= noted for end in ends)
                noted, n_gone = stage._meta.gc_windows.get("m|10|10", NEVER_MS), n_gone + len(ends)
                box = stage.outbox(0)
                if box:
                    stage.emitted(box, 0)
        assert n_gone >= 4

    def test_what_a_zombie_writes_again_after_it_was_collected_is_dropped_and_deleted(self) -> None:
        own, store, old = replace(settings(), retire_after_ms=0), {}, {}
        stage = merge(own)
        for start in range(0, 40, 10):
            stage.feed([self.partial(start, 5, start=start)], 0)
            commit(stage, store)
            old |= store
            stage.feed([self.mark(start + 10)], 0)
            for _ in range(3):
                commit(stage, store)
                old |= store
                box = stage.outbox(0)
                if box:
                    stage.emitted(box, 0)
        kinds = {key.split(b"|")[0] for key in old.keys() - store.keys()}
        assert kinds == {b"partial", b"sealed", b"window"}
        again = merge(own, items=list((old | store).items()), epoch=2)
        assert set(again._models["m"].sealed) <= {30}
        assert [window.end_ms for window, _ in again._models["m"].final[WindowSpec(10, 10)]] == [40]
        checkpoint = commit(again)
        assert checkpoint is not None
        gone = {key for key, value in checkpoint.rows if value is None}
        assert {key for key in old.keys() - store.keys() if key.split(b"|")[0] != b"partial"} <= gone

    def test_counters_and_gauges(self) -> None:
        stage = merge(settings())
        stage.feed([self.partial(3, 5), self.partial(3, 5), self.partial(4, 5, start=10), self.mark(10)], 0)
        assert stage.counters() == {("duplicates",): 1, ("gaps",): 0, ("lost",): 0, ("windows", "m"): 1}
        assert stage.gauges() == {("open_rows",): 1.0, ("rows",): 2.0}
        stage.feed([self.partial(3, 5)], 0)
        stage.feed([self.partial(9, 8), self.partial(7, 6), self.partial(9, 8)], 0)
        assert stage.counters()["events", "m", "late_after_final"] == 3
        assert stage.counters()["duplicates",] == 4

    def test_a_watermark_covers_panes_that_end_where_it_stands(self) -> None:
        marks_of = Watermarks({SOURCE: 1}, {})
        found = partials.decode(self.partial(3, 5).value or b"")
        assert isinstance(found, partials.Partial)
        assert not marks_of.is_repeat(found, 0)
        for closed, hi, is_repeat in ((10, 3, True), (9, 3, False), (10, 2, False), (11, 4, True)):
            marks_of.take(partials.Watermark(SOURCE, 0, 1, hi, {0: closed}, False, 1))
            assert marks_of.is_repeat(found, 0) is is_repeat
        told = {0: 10, 5: 9}
        marks_of.take(partials.Watermark(SOURCE, 0, 1, 4, told, False, 1))
        assert [marks_of.is_repeat(found, grace) for grace in (0, 5, 7)] == [
            True,
            False,
            False,
        ]  # 7: it was another one when that was told
        marks_of.take(partials.Watermark(SOURCE, 0, 1, 4, {0: 20, 5: 10}, False, 1))
        assert marks_of.is_repeat(found, 7)

    def test_partials_of_another_pane_length_are_refused(self) -> None:
        stage = merge(settings(WindowSpec(20, 20)))
        with pytest.raises(StateMismatch, match="the state of model m is made of panes of 10ms"):
            stage.feed([self.partial(3, 5)], 0)

    def test_results_are_frozen_before_they_are_sent_and_sent_again_after_a_crash(self) -> None:
        stage, store = merge(settings()), {}
        stage.feed([self.partial(3, 5), self.mark(10)], 0)
        assert not stage.outbox(0)
        commit(stage, store)
        first = stage.outbox(0)
        again = MergePartition(
            settings(), 0, topology={SOURCE: 1}, epoch=2, judge=count_rows, references=References(), rows=store.items()
        )
        assert [m.value for m in again.outbox(0).first] == [m.value for m in first.first]


def test_rank_prefers_more_events_then_the_younger_owner() -> None:
    versions = [rows.Stored(hi, epoch, 0, b"") for hi, epoch in ((5, 1), (5, 2), (7, 1))]
    assert max(versions, key=rows.rank) == versions[2]
    assert max(versions[:2], key=rows.rank) == versions[1]
