"""Facts of a stream are a function of the log: of neither batches, nor crashes, nor the order in which parts are merged."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.columns import Envelope, names_of
from monitor.formats.native import NativeFormat
from monitor.layout import Layout
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import References
from monitor.stages import partials
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.stream_facts import StreamFacts
from monitor.windows import WindowSpec

names = st.sampled_from([None, "a", "b", *(f"host-{i}" for i in range(60))])
rows = st.lists(
    st.tuples(
        st.integers(0, 500), st.integers(-50, 5_000), st.integers(0, 600),
        st.integers(0, 9), names, names, st.sampled_from([None, "ok", "bad"]), st.sampled_from([None, 0.1, 0.5, 1.0, 1e-6]),
    ),
    max_size=40,
)  # fmt: skip


def facts_of(part: list[tuple[Any, ...]]) -> StreamFacts:
    facts = StreamFacts()
    if part:
        times, delays, clock, ids, schemas, producers, statuses, rates = zip(*part, strict=True)
        known = np.array([rate for rate in rates if rate is not None], np.float64)
        said = Envelope([b"%d" % i for i in ids], known, {"id": ids.count(9)}, *map(names_of, (schemas, producers, statuses)))
        facts.add_rows(said, np.array(times), np.array(times) + np.array(delays), np.array(clock))
        facts.add_late([t for t in times if t % 7 == 0])
        facts.add_future([t for t in times if t % 11 == 0])
    return facts


@given(rows, st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=100)
def test_any_partitioning_merged_in_any_order_gives_the_same_bytes(data: list[tuple[Any, ...]], dice: Any, n: int) -> None:
    parts = [facts_of(data[i::n]) for i in range(n)]
    for _ in range(3):
        dice.shuffle(parts)
        total = StreamFacts()
        for part in parts:
            total.merge(part)
        whole = facts_of(data)
        assert total.to_wire() == whole.to_wire()
        assert StreamFacts.from_wire(total.to_wire()).to_wire() == total.to_wire()


def test_they_are_part_of_a_profiles_bytes_and_of_its_merge() -> None:
    one, two = Profile(Layout()), Profile(Layout())
    two.stream = facts_of([(5, 10, 20, 1, "a", "b", "ok", 0.5)])
    one.merge(two)
    assert one.to_bytes() == two.to_bytes() != Profile(Layout()).to_bytes()
    assert Profile.from_bytes(one.to_bytes(), Layout()).stream.named("schema")["a"].rows == 1


# --- through a partition

PANE_MS, GRACE_MS, MAX_FUTURE_MS = 10, 3, 15


Sent = tuple[bytes, int, int, int, int, int]
"""Of a partial: facts, rows, hi, first and last offset, clock before the first."""


def partition(stored: list[tuple[bytes, bytes]], epoch: int = 1) -> IngestPartition:
    defaults = ModelSettings((WindowSpec(PANE_MS, PANE_MS),), grace_ms=GRACE_MS)
    source = SourceSettings("predictions", clock="event", max_future_ms=MAX_FUTURE_MS)
    chosen = Settings("m", {}, defaults, {"predictions": source}, partials_partitions=1, retire_after_ms=1 << 40)
    return IngestPartition(
        chosen, "predictions", 0, partitions=1, epoch=epoch, wire=NativeFormat(), references=References(), rows=stored
    )


logs = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=40
).map(
    lambda drawn: [
        StoredRecord(i, max(0, t + i - late) if ahead else t + i, body(model, t + i - late + (40 if ahead == 1 else 0), i))
        for i, (model, t, late, ahead) in enumerate(drawn)
    ]
)


def body(model: str, time_ms: int, i: int) -> bytes:
    event = {"id": f"r-{i % 5}", "model": model, "time": time_ms, "features": {}, "producer": f"host-{i % 2}"}
    return json.dumps(event).encode()


def in_one_go(log: list[StoredRecord]) -> dict[tuple[str, int], Sent]:
    return fed(log, [len(log)], [])


def fed(log: list[StoredRecord], cuts: list[int], crashes: list[bool]) -> dict[tuple[str, int], Sent]:
    """Feed a log in batches; after some of them the owner dies, when its rows are stored and its meta is not. Return facts by pane."""
    stored: dict[bytes, bytes] = {}
    sent: dict[tuple[str, int], Sent] = {}
    stage, epoch = partition([]), 1
    stage.skip_to(0)
    ends = [*sorted({cut for cut in cuts if cut < len(log)}), len(log)]
    dying = list(crashes)
    while stage.next_offset < len(log):
        stage.feed(log[stage.next_offset : next(end for end in ends if end > stage.next_offset)], 1 << 60)
        is_dying = dying.pop() if dying else False
        keep(stage, stored, sent, with_meta=not is_dying)
        if is_dying:
            epoch += 1
            stage = partition(list(stored.items()), epoch)
            if stage.next_offset < 0:
                stage.skip_to(0)
    stage.finish_input()
    keep(stage, stored, sent)
    return sent


def keep(
    stage: IngestPartition, stored: dict[bytes, bytes], sent: dict[tuple[str, int], Sent], *, with_meta: bool = True
) -> None:
    checkpoint = stage.checkpoint()
    if checkpoint is None:
        return
    stored.update({key: value for key, value in checkpoint.rows if value is not None})
    if not with_meta:
        return
    stored.update([checkpoint.meta])
    stage.committed(checkpoint)
    box = stage.outbox(0)
    for message in box.first:
        partial = partials.decode(message.value or b"")
        assert isinstance(partial, partials.Partial)
        facts = Profile.from_bytes(partial.profile, Layout()).stream.to_wire()
        sent[partial.model, partial.start_ms] = (
            facts,
            partial.n,
            partial.hi,
            partial.first,
            partial.last,
            partial.clock_before_ms,
        )
    if box:
        stage.emitted(box, 0)


@given(logs, st.lists(st.integers(1, 40), max_size=6), st.lists(st.booleans(), max_size=4))
@settings(max_examples=300)
def test_they_depend_on_neither_batches_nor_crashes(log: list[StoredRecord], cuts: list[int], crashes: list[bool]) -> None:
    assert fed(log, cuts, crashes) == in_one_go(log)


@given(logs)
@settings(max_examples=200)
def test_they_are_what_a_loop_over_the_log_says(log: list[StoredRecord]) -> None:
    clock, known = -(1 << 62), set()
    expected: dict[tuple[str, int], dict[str, int]] = {}

    spans: dict[tuple[str, int], list[int]] = {}

    def count(model: str, at: int, name: str, i: int) -> None:
        pane = expected.setdefault((model, at // PANE_MS * PANE_MS), {})
        pane[name] = pane.get(name, 0) + 1
        spans.setdefault((model, at // PANE_MS * PANE_MS), [i, before, i])[2] = i

    for record in log:
        event = json.loads(record.value or b"")
        model, time, i, before = event["model"], event["time"], record.offset, clock
        if time > record.timestamp + MAX_FUTURE_MS:
            if model in known:
                count(model, clock, "future", i)
            continue
        known.add(model)
        clock = max(clock, min(time, record.timestamp))
        if (time // PANE_MS + 1) * PANE_MS <= clock - GRACE_MS:
            count(model, clock, "late", i)
            continue
        count(model, time, "rows", i)
        if time < clock:
            count(model, time, "out_of_order", i)
    sent = in_one_go(log)
    found = {pane: StreamFacts.from_wire(wire) for pane, (wire, *_) in sent.items()}
    counted = {
        pane: {name: n for name in ("rows", "late", "future", "out_of_order") if (n := facts.count(name))}
        for pane, facts in found.items()
    }
    assert counted == expected
    assert {pane: [first, before, last] for pane, (_, _, _, first, last, before) in sent.items()} == spans
