"""Sources that come and go between lives of all workers: exact, or refused with a sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from monitor.errors import StateMismatch
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.reference import References
from monitor.stages import outcomes, partials, rows
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.join.memory_pending import MemoryPending
from monitor.stages.join.partition import JoinPartition
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Settings, SourceSettings
from tests.simulation import BareFormat, Place, Topic, count_rows, finish, record, run, settings

Rows = list[tuple[bytes, bytes]]
N = 60
"""Events of a source in each of its lives; nine in ten are in order."""


def own(*sources: str, **kwargs: object) -> Settings:
    return settings(sources={name: SourceSettings(name, clock="event", max_future_ms=None) for name in sources}, **kwargs)


class App:
    """Sources of one partition, and stage 2 behind those that are configured."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.partials = Topic()
        self.ingest: dict[str, Place] = {}
        self.merge = Place(self.partials, self._no_stage, self.published.append)

    @staticmethod
    def _no_stage(epoch: int, items: Rows, now_ms: int) -> PartitionStage:
        raise AssertionError

    def configure(self, *sources: str) -> list[Place]:
        """Change what workers that start from now on are configured with; return their places."""
        shared = own(*sources)
        for source in sources:
            place = self.ingest.setdefault(source, Place(Topic(), self._no_stage, self.partials.append))
            place.make = self._ingest(shared, source)
        self.merge.make = lambda epoch, items, now_ms: MergePartition(
            shared, 0,
            topology=dict.fromkeys(sources, 1), epoch=epoch, judge=count_rows, references=References(), rows=items, now_ms=now_ms,
        )  # fmt: skip
        places = [self.ingest[source] for source in sources]
        epoch = max(place.epoch for place in [*self.ingest.values(), self.merge])
        for place in [*places, self.merge]:
            place.epoch = epoch  # one group has one generation
        return [*places, self.merge]

    def _ingest(self, shared: Settings, source: str) -> Callable[[int, Rows, int], PartitionStage]:
        return lambda epoch, items, now_ms: IngestPartition(
            shared, source, 0,
            partitions=1, epoch=epoch, wire=BareFormat(), references=References(), rows=items, now_ms=now_ms,
        )  # fmt: skip

    def produce(self, dice: random.Random, start_ms: int, *sources: str) -> int:
        """Put events of two models, and then a tick that closes them, on the logs; return how many."""
        for source in sources:
            log = self.ingest[source].log
            for i in range(N):
                time = start_ms + i - (dice.randrange(15) if dice.random() < 0.1 else 0)
                log.records.append(record(len(log.records), dice.choice(("m", "other")), max(0, time)))
            log.records.append(record(len(log.records), "tick", start_ms + N + 20))
        return N * len(sources)

    def accounted(self) -> int:
        """Rows of final windows, each counted once, and late ones."""
        windows = {message.key: msgspec.json.decode(message.value or b"")["n"] for message in self.published}
        late = sum(_late(place.owner()) for place in [*self.ingest.values(), self.merge])
        return sum(windows.values()) + late


def _late(stage: PartitionStage) -> int:
    return sum(n for key, n in stage.counters().items() if key[0] == "events" and key[2] in ("late", "late_after_final"))


@pytest.mark.parametrize("seed", range(25))
def test_every_event_is_counted_once_or_late_when_a_source_is_added_and_another_one_taken_away(seed: int) -> None:
    """Within each life owners die at any step; between two lives everything ends cleanly."""
    dice, app = random.Random(seed), App()
    lives = [(("a",), 0), (("a", "b"), 200), (("b",), 400), (("b", "a"), 600)]
    n = 0
    for sources, start_ms in lives:
        places = app.configure(*sources)
        n += app.produce(dice, start_ms, *sources)
        run(places, dice, 300)
        for place in places:
            finish(place, dice)
        for place in places[:-1]:
            _fall_idle(place, dice)
        finish(app.merge, dice)
    assert app.accounted() == n
    assert len(app.published) > 8 * len(lives)


def _fall_idle(place: Place, dice: random.Random) -> None:
    stage = place.owner()
    stage.advance(place.now_ms, at_end=True)
    place.now_ms += 10 * 60_000
    stage.advance(place.now_ms, at_end=True)
    for _ in place.tick(stage, dice):
        pass


class TestRefused:
    def one_life(self) -> App:
        """Of the sources a and b; their events are counted, and their last windows are open."""
        dice, app = random.Random(1), App()
        places = app.configure("a", "b")
        app.produce(dice, 0, "a", "b")
        for place in (*places, app.merge):
            finish(place, dice)
        return app

    def test_where_rows_hold_more_than_meta_covers(self) -> None:
        app = self.one_life()
        app.ingest["a"].log.records.append(record(N + 1, "m", 200))
        finish(app.ingest["a"], random.Random(2))
        stage = app.merge.owner()
        mark = {source: partials.Watermark(source, 0, 1, 0, {0: 500}, False, 1) for source in "ab"}
        stage.feed([StoredRecord(stage.next_offset + i, 0, partials.encode(mark[source])) for i, source in enumerate("ab")], 0)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        assert max(rows.parse(key, value)[1].hi for key, value in checkpoint.rows if value is not None) == stage.next_offset - 1
        for row in checkpoint.rows:
            app.merge.write(*row)
        for sources, message in (("abc", "now they are a, b, c"), ("a", "now they are a")):
            app.configure(*sources)
            with pytest.raises(
                StateMismatch, match=f"written for the sources a, b, {message}, .* before a checkpoint was complete"
            ):
                app.merge.owner()
        app.configure("a", "b")
        app.merge.owner()
        app.merge.write(*checkpoint.meta)
        app.configure("a", "b", "c")
        app.merge.owner()

    def test_a_source_that_goes_while_its_windows_are_open(self) -> None:
        app = self.one_life()
        app.configure("a")
        with pytest.raises(StateMismatch, match="the source b is not configured any more, but events of it wait in open windows"):
            app.merge.owner()
        assert app.merge.changelog
        _fall_idle(app.configure("a", "b")[1], random.Random(3))
        finish(app.merge, random.Random(4))
        app.configure("a")
        finish(app.merge, random.Random(5))
        (meta,) = {
            bytes(stored.payload)
            for key, stored in (rows.parse(*row) for row in app.merge.changelog.items())
            if key == rows.META and stored.epoch == app.merge.epoch
        }
        assert Meta.from_bytes(meta).sources == {"a": 1}
        assert set(Meta.from_bytes(meta).marks) == {"a|0"}

    @pytest.mark.parametrize(
        ("epochs_ago", "idle", "message"),
        [
            (0, True, "another worker that runs now reads the source z, and this one does not"),
            (0, False, "another worker that runs now"),
            (1, False, "the source z is not configured any more"),
            (1, True, None),
        ],
    )
    def test_what_is_told_of_a_source_that_is_not_configured(self, epochs_ago: int, idle: bool, message: str | None) -> None:
        app = self.one_life()
        stage = app.merge.owner()
        mark = partials.Watermark("z", 0, app.merge.epoch - epochs_ago, 0, {0: 5}, idle, 1)
        told = [StoredRecord(stage.next_offset, 0, partials.encode(mark))]
        if message is None:
            stage.feed(told, 0)
            assert stage.next_offset == told[0].offset + 1
        else:
            with pytest.raises(StateMismatch, match=message):
                stage.feed(told, 0)

    def test_another_number_of_partitions(self) -> None:
        app = self.one_life()
        with pytest.raises(StateMismatch, match=r"topic b has 2 partitions, the state of m\.partials was written for 1"):
            MergePartition(
                own("a", "b"), 0,
                topology={"a": 1, "b": 2}, epoch=99, judge=count_rows, references=References(), rows=app.merge.changelog.items(),
            )  # fmt: skip

    def test_by_the_join_too(self) -> None:
        shared, pending = replace(own("a", "b"), outcomes_partitions=1), MemoryPending()

        def join(epoch: int, store: dict[bytes, bytes], *sources: str) -> JoinPartition:
            return JoinPartition(
                shared, 0,
                topology=dict.fromkeys(sources, 1), epoch=epoch, references=References(), pending=pending, rows=store.items(),
            )  # fmt: skip

        def life(epoch: int, *told: outcomes.Range) -> None:
            stage = join(epoch, store, "a", "b")
            if stage.next_offset < 0:
                stage.skip_to(0)
            first = stage.next_offset
            stage.feed([StoredRecord(first + i, 0, outcomes.encode(one)) for i, one in enumerate(told)], 0)
            checkpoint = stage.checkpoint()
            assert checkpoint is not None
            stage.committed(checkpoint)
            store.update([*((k, v) for k, v in checkpoint.rows if v is not None), checkpoint.meta])  # type: ignore[list-item]

        store: dict[bytes, bytes] = {}
        life(1, outcomes.Range("a", 0, 1, -1, 5, {0: 10}, False, 1), outcomes.Range("b", 0, 1, -1, 7, {0: 10}, False, 1))
        with pytest.raises(StateMismatch, match="the source b is not configured any more"):
            join(2, store, "a")
        life(2, outcomes.Range("b", 0, 2, 7, 7, {0: 10}, True, 1))
        join(3, store, "a")
        with pytest.raises(StateMismatch, match="another worker that runs now reads the source z"):
            life(3, outcomes.Range("z", 0, 3, -1, 5, {0: 10}, False, 1))


class TestSources:
    """What ingest knows of its own source."""

    def ingest(self, shared: Settings, store: dict[bytes, bytes], epoch: int) -> IngestPartition:
        stage = IngestPartition(
            shared, "a", 0,
            partitions=1, epoch=epoch, wire=BareFormat(), references=References(), rows=store.items(),
        )  # fmt: skip
        if stage.next_offset < 0:
            stage.skip_to(0)
        return stage

    def test_how_records_are_read_may_change_where_meta_covers_all_rows(self) -> None:
        shared = own("a")
        changed = replace(shared, sources={"a": replace(shared.sources["a"], sha256="other")})
        stage, store = self.ingest(shared, {}, 1), dict[bytes, bytes]()
        for time, with_meta, other in ((5, True, changed), (6, False, shared)):
            stage.feed([record(stage.next_offset, "m", time)], 0)
            checkpoint = stage.checkpoint()
            assert checkpoint is not None
            stage.committed(checkpoint)
            store.update((key, value) for key, value in checkpoint.rows if value is not None)
            if with_meta:
                store.update([checkpoint.meta])  # type: ignore[list-item]
            assert self.ingest(other, store, 2).next_offset == 1
        with pytest.raises(StateMismatch, match=r"how records of a are read was changed, .* before a checkpoint was complete"):
            self.ingest(changed, store, 2)

    def test_labels_that_were_joined_stay_configured(self) -> None:
        shared = replace(own("a"), outcomes_partitions=2)
        stage = self.ingest(shared, {}, 1)
        stage.feed([record(0, "m", 5)], 0)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        store = {key: value for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None}
        assert self.ingest(shared, store, 2).next_offset == 1
        with pytest.raises(StateMismatch, match="no source of labels is configured now"):
            self.ingest(own("a"), store, 2)
