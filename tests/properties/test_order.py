"""I4: what a window contains does not depend on the order of what came within grace, nor on how the log was fetched.

10,000 examples with `pytest --hypothesis-profile=full tests/properties/test_order.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.features import NumberFeature
from monitor.findings import ClosedWindow, Judgement
from monitor.formats.native import NativeFormat
from monitor.layout import Layout
from monitor.ports import PartitionStage, StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.segments import Key, Segmentation
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.waiting import NO_LIMIT, Waiting
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec

GRACE_MS = 12
SPECS = (WindowSpec(10, 10), WindowSpec(30, 5))
FEATURE = NumberFeature(name="x", edges=(0.0, 1.0), reported=(0.0, 1.0), minimum=-3.0, maximum=3.0, centre=0.0, exponent=-30)
LAYOUT = Layout((FEATURE,), (Segmentation((Key(name="tags.t"),), (("u",), ("v",))),))
REFERENCES = References()
REFERENCES.add(Reference.build("m", "1", Profile(LAYOUT)))
SETTINGS = Settings(
    "m",
    {},
    ModelSettings(SPECS, grace_ms=GRACE_MS),
    {"s": SourceSettings("s", "event", max_future_ms=None)},
    partials_partitions=1,
)
END_MS = 1_000


class Event(NamedTuple):
    """delay_ms: how much later than its time it comes, on the clock of event times."""

    time_ms: int
    x: float
    tag: str
    delay_ms: int


def events(longest_delay_ms: int) -> st.SearchStrategy[list[Event]]:
    x = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 0.5, 1.0, 1e300])
    event = st.builds(Event, st.integers(0, 120), x, st.sampled_from("uvw"), st.integers(0, longest_delay_ms))
    return st.lists(event, min_size=1, max_size=30)


def arriving(found: list[Event]) -> list[Event]:
    return sorted(found, key=lambda event: event.time_ms + event.delay_ms)


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    profile = closed.profile
    facts = [profile.rows.tolist(), profile.counts.tolist(), [[str(a), str(b)] for a, b in profile.sums[:, 0]]]
    key = f"{closed.window.start_ms}|{closed.window.size_ms}".encode()
    return Judgement(((key, msgspec.json.encode(facts)),), (), b"", ())


def send(stage: PartitionStage) -> list[bytes]:
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        stage.committed(checkpoint)
    box = stage.outbox(0)
    if box:
        stage.emitted(box, 0)
    return [msgspec.msgpack.encode([message.key, message.value]) for message in (*box.first, *box.then)]


def windows(log: list[Event], batch: int, limit: int = NO_LIMIT) -> tuple[dict[bytes, bytes], Counter[str]]:
    """Return what both stages publish of a log that is fetched in batches, and the counters. limit: bytes of rows that may wait."""
    records = [
        StoredRecord(
            i, 0,
            msgspec.json.encode(
                {"model": "m", "version": "1", "time": e.time_ms, "features": {"x": e.x}, "tags": {"t": e.tag}}
            ),
        )
        for i, e in enumerate(log)
    ]  # fmt: skip
    records.append(StoredRecord(len(log), 0, msgspec.json.encode({"tick": END_MS})))
    records = [StoredRecord(r.offset, END_MS, r.value) for r in records]
    ingest = IngestPartition(
        SETTINGS, "s", 0, partitions=1, epoch=1, wire=NativeFormat(), references=REFERENCES, waiting=Waiting(limit)
    )
    merge = MergePartition(SETTINGS, 0, topology={"s": 1}, epoch=1, judge=judge, references=REFERENCES)
    ingest.skip_to(0)
    merge.skip_to(0)
    published: dict[bytes, bytes] = {}
    for start in range(0, len(records), batch):
        ingest.feed(records[start : start + batch], 0)
        for message in send(ingest):
            merge.feed([StoredRecord(merge.next_offset, 0, msgspec.msgpack.decode(message)[1])], 0)
            published |= dict(msgspec.msgpack.decode(result) for result in send(merge))
    counts = Counter({key[2]: n for key, n in ingest.counters().items() if key[0] == "events"})
    return published, counts


@given(events(GRACE_MS), st.integers(1, 31), st.integers(1, 31), st.randoms(use_true_random=False))
def test_any_order_within_grace_gives_the_same_windows(found: list[Event], batch: int, other: int, dice: object) -> None:
    in_order = sorted(found, key=lambda event: event.time_ms)
    shuffled = [event._replace(delay_ms=dice.randint(0, GRACE_MS)) for event in found]  # type: ignore[attr-defined]
    expected, counts = windows(in_order, batch)
    assert counts == Counter(counted=len(found), late=0)
    assert windows(arriving(found), other) == (expected, counts)
    assert windows(arriving(shuffled), batch) == (expected, counts)


@given(events(4 * GRACE_MS), st.integers(1, 31), st.integers(0, 4_000))
def test_how_much_may_wait_changes_nothing(found: list[Event], batch: int, limit: int) -> None:
    log = arriving(found)
    assert windows(log, batch, limit) == windows(log, batch)


@given(events(4 * GRACE_MS), st.integers(1, 31))
def test_what_comes_later_is_counted_late_and_the_sum_matches(found: list[Event], batch: int) -> None:
    log = arriving(found)
    clock, on_time = -1, []
    for event in log:
        clock = max(clock, event.time_ms)
        if event.time_ms // 5 * 5 + 5 + GRACE_MS > clock:
            on_time.append(event)
    published, counts = windows(log, batch)
    assert counts == Counter(counted=len(on_time), late=len(log) - len(on_time))
    rows = {key: msgspec.json.decode(value)[0][0] for key, value in published.items()}
    for spec in SPECS:
        total = sum(n for key, n in rows.items() if key.endswith(f"|{spec.size_ms}".encode()))
        assert total == len(on_time) * spec.size_ms // spec.step_ms
