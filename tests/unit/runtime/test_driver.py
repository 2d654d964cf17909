from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import confluent_kafka as ck
import pytest
from aiokafka.errors import KafkaTimeoutError

from monitor.errors import StateMismatch
from monitor.ports import Message, Outbox, Record
from monitor.runtime import driver as module
from monitor.runtime import pace
from monitor.runtime.driver import LostRecords
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership
from monitor.runtime.store import StoreFull
from tests.unit.runtime.counting import META, CountingStage, Event, Log, Place, batch, drive


@pytest.fixture(autouse=True)
def _ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_END_S", 0.0)


def started(*rows: tuple[bytes, bytes], hi: int = -1) -> CountingStage:
    return CountingStage([*rows, (META, b"[%d, 0]" % hi)])


class TestStart:
    @pytest.mark.parametrize(("start", "offset"), [("earliest", 3), ("latest", 9)])
    def test_without_state_it_starts_where_it_is_told(self, start: Any, offset: int) -> None:
        stage = CountingStage()
        assert asyncio.run(drive(stage, Log(low=3, high=9), Place(), start=start).start_offset()) == offset
        assert stage.skipped == [(offset, False)]

    def test_with_state_it_starts_after_it_whatever_else_is_configured(self) -> None:
        stage = started((b"k", b"[4, 1]"), hi=4)
        assert asyncio.run(drive(stage, Log(high=9), Place(), start="latest").start_offset()) == 5
        assert stage.skipped == []

    def test_records_that_retention_took_are_declared_lost(self) -> None:
        stage = started((b"k", b"[4, 1]"), hi=4)
        assert asyncio.run(drive(stage, Log(low=7, high=9), Place()).start_offset()) == 7
        assert stage.skipped == [(7, True)]

    def test_a_log_that_ends_before_the_state_is_refused_with_an_instruction(self) -> None:
        stage = started((b"k", b"[4, 1]"), hi=4)
        with pytest.raises(StateMismatch, match=r"t/0 ends at offset 4, its state has read up to 5.*another `app` name"):
            asyncio.run(drive(stage, Log(high=4), Place()).start_offset())

    def test_a_state_that_is_gone_though_the_group_has_read_is_refused_with_an_instruction(self) -> None:
        driver = drive(CountingStage(), Log(high=9, group=7), Place())
        with pytest.raises(StateMismatch, match=r"read up to offset 7, but its state is gone from t-changelog: restore"):
            asyncio.run(driver.start_offset())

    def test_a_state_that_was_not_recovered_ends_the_process_to_be_recovered_again(self) -> None:
        driver = drive(CountingStage(), Log(high=9, group=7, changelog=(3, 8)), Place())
        with pytest.raises(LostRecords, match=r"from t-changelog, which has offsets 3 to 7 of it: it was to be read"):
            asyncio.run(driver.start_offset())

    def test_what_the_group_has_committed_never_says_where_to_start(self) -> None:
        stage = started((b"k", b"[4, 1]"), hi=4)
        assert asyncio.run(drive(stage, Log(high=9, group=7), Place()).start_offset()) == 5


class TestGaps:
    def test_offsets_that_hold_no_record_are_skipped_with_one_question(self) -> None:
        stage, log = started(), Log([0, 1, 3, 6], high=7)
        event = batch(0, 1, 3, 6)
        asyncio.run(drive(stage, log, Place()).feed(event))
        assert stage.rows[b"k"] == [6, 4]
        assert log.asked == ["present"]

    def test_a_record_that_is_on_the_log_and_did_not_come_is_an_error(self) -> None:
        stage, log = started(), Log([0, 1, 2, 3], high=4)
        with pytest.raises(LostRecords, match=r"expected offset 1, got 3; the log has 1"):
            asyncio.run(self.feed(stage, log, batch(0, 1), batch(3), first_only=1))

    async def feed(self, stage: CountingStage, log: Log, *events: Event, first_only: int) -> None:
        driver = drive(stage, log, Place())
        events[0].value = events[0].value[:first_only]
        for event in events:
            await driver.feed(event)

    def test_a_record_that_the_broker_does_not_have_is_an_error(self) -> None:
        with pytest.raises(LostRecords, match="the log has neither"):
            asyncio.run(drive(started(), Log([], high=4), Place()).feed(batch(3)))


class SlowStage(CountingStage):
    """Takes a batch in by one record with each step."""

    def steps(self, records: Sequence[Record], now_ms: int) -> Iterator[None]:
        for record in records:
            self.feed([record], now_ms)
            yield


class TestSteps:
    def test_others_have_their_turn_between_the_steps_of_a_stage_and_no_tick_of_its_own_comes_in_between(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "STEP_S", -1.0)
        seen: list[int] = []

        async def look(stage: SlowStage) -> None:
            for _ in range(3):
                seen.append(stage.hi)
                await asyncio.sleep(0)

        async def run() -> int:
            stage, place = SlowStage([(META, b"[-1, 0]")]), Place()
            driver = drive(stage, Log([0, 1, 2], high=3), place, checkpoint_s=0)
            await asyncio.gather(driver.feed(batch(0, 1, 2)), look(stage), driver.tick())
            return place.writes

        assert asyncio.run(run()) == 1
        assert seen[0] < seen[1] < seen[2] == 2


class TestCheckpoint:
    def test_before_anything_is_made_of_records_meta_is_written_as_it_was_taken_over(self) -> None:
        async def run() -> list[tuple[int, bytes | None]]:
            stage, place = started((b"k", b"[4, 1]"), hi=4), Place()
            stage.meta_dirty = True
            place.during_write = lambda: found.append((stage.hi, place.rows.get(META)))
            driver = drive(stage, Log(high=9), place, checkpoint_s=60)
            found: list[tuple[int, bytes | None]] = []
            await driver.feed(batch(5, 6))
            await driver.feed(batch(7))
            return [*found, (stage.hi, place.rows[META])]

        assert asyncio.run(run()) == [(4, None), (7, b"[4, 0]")]

    def test_a_disk_that_is_full_then_holds_the_first_batch_back(self) -> None:
        async def run() -> tuple[int, int]:
            stage, place = started(hi=4), Place(has_room=False)
            stage.meta_dirty = True
            driver = drive(stage, Log(high=9), place, checkpoint_s=60)
            await driver.feed(batch(5, 6))
            held, place.has_room = stage.hi, True
            await asyncio.sleep(1.1)
            await driver.tick()
            return held, stage.hi

        assert asyncio.run(run()) == (4, 6)

    def test_a_batch_is_acknowledged_by_the_checkpoint_that_covers_it_and_not_before(self) -> None:
        async def run() -> tuple[bool, bool]:
            event, driver = batch(0, 1), drive(started(), Log([0, 1], high=2), Place())
            await driver.feed(event)
            before = event.is_acked
            await driver.tick()
            return before, event.is_acked

        assert asyncio.run(run()) == (False, True)

    def test_checkpoints_wait_for_their_time_unless_something_waits_for_them(self) -> None:
        async def run() -> list[int]:
            stage, place = started(), Place()
            driver = drive(stage, Log([0], high=1), place, checkpoint_s=60)
            writes = []
            await driver.feed(batch(0))
            await driver.tick()
            writes.append(place.writes)
            stage.total_due = True
            await driver.tick()
            return [*writes, place.writes]

        assert asyncio.run(run()) == [0, 1]

    def test_checkpoints_that_cost_much_become_rarer_but_for_one_that_is_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "LONGEST", 1e9)

        async def run() -> list[int]:
            stage, place, writes = started(), Place(), []
            driver = drive(stage, Log([0, 1, 2, 3], high=4), place, checkpoint_s=0.01)
            await driver.feed(batch(0))
            await driver.tick()
            before = place.writes
            driver._around.pace.spent(driver, 60.0)
            for offset, is_awaited in enumerate((False, True, False)):  # the second one costs next to nothing
                await driver.feed(batch(offset + 1))
                await asyncio.sleep(0.2)
                stage.total_due = is_awaited
                await driver.tick()
                writes.append(place.writes - before)
            return writes

        assert asyncio.run(run()) == [0, 1, 2]

    def test_after_a_turn_that_was_broken_off_the_stage_is_never_used_again(self) -> None:
        async def run() -> CountingStage:
            stage, place = started(), Place()
            driver = drive(stage, Log([0, 1], high=2), place)
            await driver.feed(batch(0))

            def fail() -> None:
                raise OSError

            place.during_write = fail
            with pytest.raises(OSError):  # noqa: PT011
                await driver.tick()
            await driver.feed(batch(1))
            await driver.tick()
            await driver.last_checkpoint()
            assert place.writes == 0
            return stage

        assert asyncio.run(run()).next_offset == 1

    def test_what_is_lost_while_a_checkpoint_is_under_way_is_neither_written_nor_acknowledged(self) -> None:
        async def run() -> None:
            stage, place, event = started(), Place(), batch(0)
            driver = drive(stage, Log([0], high=1), place)
            await driver.feed(event)
            place.during_write = lambda: setattr(place, "is_owned", False)
            with pytest.raises(LostOwnership):
                await driver.tick()
            assert place.rows == {}
            assert not event.is_acked

        asyncio.run(run())

    def test_nothing_happens_after_the_partition_is_lost(self) -> None:
        async def run() -> None:
            stage, log, place = started(), Log([0], high=1), Place(is_owned=False)
            driver = drive(stage, log, place)
            await driver.feed(batch(0))
            await driver.tick()
            await driver.last_checkpoint()
            assert (stage.next_offset, log.asked, place.writes, place.sent) == (0, [], 0, [])

        asyncio.run(run())


class TestSilence:
    def tick(self, stage: CountingStage, log: Log, place: Place, times: int = 1) -> None:
        async def run() -> None:
            driver = drive(stage, log, place)
            for _ in range(times):
                await driver.tick()

        asyncio.run(run())

    def test_a_silent_partition_is_at_its_end_when_the_broker_says_so(self) -> None:
        stage, place = started((b"k", b"[4, 1]"), hi=4), Place()
        stage.is_silent = True
        self.tick(stage, Log([4], high=5), place)
        assert stage.ends == [True]

    def test_it_is_not_while_a_record_is_on_its_way(self) -> None:
        stage, log = started((b"k", b"[4, 1]"), hi=4), Log([4, 5], high=6)
        stage.is_silent = True
        self.tick(stage, log, Place())
        assert (stage.ends, stage.skipped) == ([False], [])

    def test_markers_of_transactions_at_the_end_are_skipped(self) -> None:
        stage, log = started((b"k", b"[4, 1]"), hi=4), Log([4], high=7)
        stage.is_silent = True
        self.tick(stage, log, Place())
        assert (stage.ends, stage.skipped) == ([True], [(7, False)])

    def test_a_broker_that_does_not_answer_is_no_end(self) -> None:
        class Deaf(Log):
            def offsets(self, topic: str, partition: int) -> tuple[int, int]:
                raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))

        stage = started(hi=4)
        stage.is_silent = True
        self.tick(stage, Deaf(), Place())
        assert stage.ends == [False]

    def test_a_partition_with_traffic_asks_nothing(self) -> None:
        log = Log([4], high=9)
        self.tick(started(hi=4), log, Place(), times=3)
        assert log.asked == []


class TestStanding:
    """What a watchdog sees: the same answer for too long means that the client is stuck."""

    @pytest.fixture(autouse=True)
    def _ask_lag_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ASK_LAG_S", 0.0)

    def test_records_that_wait_are_told_with_the_offset_that_is_read_next(self) -> None:
        async def run() -> list[dict[str, int]]:
            driver, seen = drive(started(hi=4), Log([5, 6], high=7), Place()), []
            seen.append(driver.standing())
            await driver.tick()
            seen.append(driver.standing())
            await driver.tick()
            seen.append(driver.standing())
            await driver.feed(batch(5, 6))
            await driver.tick()
            return [*seen, driver.standing()]

        waiting = {"records wait to be read": 5}
        assert asyncio.run(run()) == [{}, waiting, waiting, {}]

    def test_markers_of_transactions_are_no_records_that_wait(self) -> None:
        async def run() -> tuple[dict[str, int], int]:
            driver = drive(started(hi=4), Log([4], high=7), Place())
            for _ in range(2):
                await driver.tick()
            return driver.standing(), driver.lag

        assert asyncio.run(run()) == ({}, 0)

    def test_a_turn_that_goes_on_is_told_by_its_number(self) -> None:
        async def run() -> list[dict[str, int]]:
            stage, place, seen = started(hi=4), Place(), []
            driver = drive(stage, Log([5], high=5), place)
            place.during_write = lambda: seen.append(driver.standing())
            for offset in (5, 6):
                await driver.feed(batch(offset))
                await driver.tick()
            return seen

        assert asyncio.run(run()) == [{"a turn is under way": 2}, {"a turn is under way": 4}]


class TestSending:
    def test_what_comes_first_is_sent_first_and_only_what_is_durable(self) -> None:
        stage, place = started((b"k", b"[4, 3]"), hi=4), Place()
        stage.is_silent = stage.meta_dirty = True

        async def run() -> None:
            driver = drive(stage, Log([4], high=5), place)
            await driver.tick()

        asyncio.run(run())
        assert place.sent == [(b"part", b"3"), (b"mark", b"3")]
        assert stage.sent == [3]

    def test_of_an_outbox_that_was_cut_short_nothing_counts_as_sent(self) -> None:
        stage, place = started((b"k", b"[4, 3]"), hi=4), Place()
        stage.is_silent = stage.meta_dirty = True
        send = place.send_all

        async def send_first_only(messages: Any, is_owner: Any) -> list[Any]:
            found = await send(messages, is_owner)
            place.is_owned = False
            return found

        place.send_all = send_first_only  # type: ignore[method-assign]
        with pytest.raises(LostOwnership):
            asyncio.run(drive(stage, Log([4], high=5), place).tick())
        assert place.sent == [(b"part", b"3")]
        assert stage.sent == []


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.0)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_S", 0.0)


@pytest.mark.usefixtures("_at_once")
class TestFullDisk:
    def test_nothing_is_folded_until_there_is_room_and_then_everything_that_came(self) -> None:
        async def run() -> None:
            stage, place, events = started(), Place(has_room=False), [batch(0), batch(1), batch(2, 3)]
            driver = drive(stage, Log([0, 1, 2, 3], high=4), place)
            await driver.feed(events[0])
            await driver.tick()
            for event in events[1:]:
                await driver.feed(event)
                await driver.tick()
            assert (stage.next_offset, place.rows, place.writes) == (1, {}, 1)
            assert isinstance(driver.waits_for, StoreFull)
            place.has_room = True
            await driver.tick()
            assert (driver.waits_for, stage.next_offset, place.writes) == (None, 4, 1)
            assert [event.is_acked for event in events] == [True, False, False]
            await driver.tick()
            assert place.rows[b"k"] == b"[3, 4]"
            assert all(event.is_acked for event in events)
            assert [type(obstacle) for obstacle in place.obstacles] == [StoreFull] * 3 + [type(None)]

        asyncio.run(run())

    def test_what_is_in_the_changelog_is_not_sent_there_again(self) -> None:
        async def run() -> None:
            place = Place(has_room=False)
            driver = drive(started(), Log([0], high=1), place)
            await driver.feed(batch(0))
            for _ in range(5):
                await driver.tick()
            assert place.writes == 1

        asyncio.run(run())

    def test_a_revocation_does_not_wait_for_room_and_acknowledges_nothing(self) -> None:
        async def run() -> None:
            place, event = Place(has_room=False), batch(0)
            driver = drive(started(), Log([0], high=1), place)
            await driver.feed(event)
            await driver.tick()
            await driver.last_checkpoint()
            assert (place.writes, event.is_acked) == (1, False)

        asyncio.run(run())

    def test_a_partition_that_is_lost_while_it_waits_does_nothing_more(self) -> None:
        async def run() -> None:
            place = Place(has_room=False)
            driver = drive(started(), Log([0], high=1), place)
            await driver.feed(batch(0))
            await driver.tick()
            place.is_owned, place.has_room = False, True
            await driver.tick()
            assert place.rows == {}

        asyncio.run(run())

    def test_more_batches_than_were_on_their_way_are_not_taken_in(self) -> None:
        async def run() -> None:
            place = Place(has_room=False)
            driver = drive(started(), Log([0], high=1), place)
            await driver.feed(batch(0))
            await driver.tick()
            for i in range(module.MAX_HELD):
                await driver.feed(batch(1 + i))
            one_more = asyncio.create_task(driver.feed(batch(1 + module.MAX_HELD)))
            await asyncio.sleep(0.3)
            assert not one_more.done()
            place.has_room = True
            await driver.tick()
            await asyncio.wait_for(one_more, 5)
            assert driver.stage.next_offset == 2 + module.MAX_HELD

        asyncio.run(run())


@pytest.mark.usefixtures("_at_once")
class TestRefusal:
    def test_boxes_are_sent_one_after_the_other_and_from_the_one_on_that_was_refused(self) -> None:
        class Thrice(CountingStage):
            def outbox(self, now_ms: int) -> Outbox:
                n = len(self.sent)
                return Outbox((Message("alerts" if n else "totals", b"%d" % n, b""),), (), n) if n < 3 else Outbox()

        async def run() -> None:
            stage, place = Thrice([(b"k", b"[4, 3]"), (META, b"[4, 0]")]), Place(refuses={"alerts"})
            driver = drive(stage, Log([4], high=5), place)
            await driver.tick()
            assert (place.sent, stage.sent) == ([(b"0", b"")], [0])
            place.refuses = set()
            await driver.tick()
            assert (place.sent, stage.sent) == ([(b"0", b""), (b"1", b""), (b"2", b"")], [0, 1, 2])

        asyncio.run(run())

    def test_what_a_topic_refuses_is_sent_until_it_is_taken_and_what_others_took_is_not_sent_again(self) -> None:
        class Totals(CountingStage):
            def outbox(self, now_ms: int) -> Outbox:
                found = super().outbox(now_ms)
                alert = (Message("alerts", b"alert", b"1"), Message("alerts", b"resolved", b"1"))
                return found and Outbox((*found.first, *alert), found.then, found.token)

        async def run() -> None:
            stage, place = Totals([(b"k", b"[4, 3]"), (META, b"[4, 0]")]), Place(refuses={"alerts"})
            stage.is_silent = stage.meta_dirty = True
            driver = drive(stage, Log([4, 5], high=5), place)
            for _ in range(3):
                await driver.tick()
            await driver.feed(batch(5))
            assert place.sent == [(b"part", b"3")]
            assert isinstance(driver.waits_for, Refused)
            assert (stage.sent, stage.next_offset) == ([], 5)
            place.refuses = set()
            await driver.tick()
            assert place.sent == [(b"part", b"3"), (b"alert", b"1"), (b"resolved", b"1"), (b"mark", b"3")]
            assert (stage.sent, driver.waits_for, stage.next_offset) == ([3], None, 6)

        asyncio.run(run())

    def test_a_checkpoint_whose_dead_letters_are_refused_is_written_later_as_it_was(self) -> None:
        async def run() -> None:
            stage, place, event = started(), Place(), batch(0)
            driver = drive(stage, Log([0], high=1), place)
            await driver.feed(event)

            def refuse() -> None:
                raise Refused({"dead-letter": KafkaTimeoutError()}, [])

            place.during_write = refuse
            await driver.tick()
            assert (place.writes, event.is_acked) == (0, False)
            place.during_write = lambda: None
            await driver.tick()
            assert (place.rows[b"k"], event.is_acked) == (b"[0, 1]", True)

        asyncio.run(run())

    def test_attempts_become_rarer_but_not_too_rare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FIRST_BACKOFF_S", 1.0)
        monkeypatch.setattr(module, "LONGEST_BACKOFF_S", 10.0)
        clock = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: clock)
        stage, place = started((b"k", b"[4, 3]"), hi=4), Place(refuses={"totals"})
        stage.is_silent = stage.meta_dirty = True
        driver = drive(stage, Log([4], high=5), place)
        attempts: list[float] = []

        async def run() -> None:
            nonlocal clock
            for _ in range(200):
                seen = len(place.obstacles)
                await driver.tick()
                if len(place.obstacles) > seen:
                    attempts.append(clock)
                clock += 0.25

        asyncio.run(run())
        assert [round(b - a) for a, b in itertools.pairwise(attempts)] == [1, 2, 4, 8, 10, 10, 10]


def test_what_was_folded_is_let_go_before_it_is_acknowledged() -> None:
    """Until the next checkpoint all that was read since would stay in memory: seconds of traffic."""
    event = batch(0, 1)
    driver = drive(started(), Log([0, 1], high=2), Place())
    asyncio.run(driver.feed(event))
    assert not event.value
    assert not event.is_acked
    asyncio.run(driver.tick())
    assert event.is_acked


class TestDue:
    """What a batch lets a stage send does not wait for the next tick, but is not sent more often than with every tick."""

    def ended(self) -> CountingStage:
        stage = started()
        stage.total_due = True
        return stage

    def test_it_is_due_with_the_batch_that_allows_it_and_never_twice_within_a_tick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: clock)

        async def run() -> None:
            nonlocal clock
            driver = drive(self.ended(), Log([0, 1, 2], high=3), Place(), checkpoint_s=60)
            await driver.feed(batch(0))
            assert not driver.is_due
            clock += module.TICK_S
            assert driver.is_due
            await driver.tick()
            assert not driver.is_due
            await driver.feed(batch(1))
            assert not driver.is_due
            clock += module.TICK_S
            assert driver.is_due

        asyncio.run(run())

    def test_a_batch_after_which_there_is_nothing_to_send_waits_for_its_checkpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TICK_S", 0.0)
        driver = drive(started(), Log([0], high=1), Place())
        asyncio.run(driver.feed(batch(0)))
        assert not driver.is_due

    def test_nothing_is_due_while_something_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TICK_S", 0.0)

        async def run() -> None:
            stage, place = self.ended(), Place(has_room=False)
            driver = drive(stage, Log([0], high=1), place)
            await driver.feed(batch(0))
            assert driver.is_due
            await driver.tick()
            stage.meta_dirty = True
            assert driver.waits_for is not None
            assert stage.wants_checkpoint
            assert not driver.is_due

        asyncio.run(run())
