"""Results of many windows that end at the same time wait packed, and are sent a few MiB at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from monitor.findings import ClosedWindow, Judgement
from monitor.layout import Layout
from monitor.ports import Message, StoredRecord
from monitor.profiles import Profile
from monitor.reference import References
from monitor.stages import partials
from monitor.stages.merge import sending
from monitor.stages.merge.partition import MergePartition
from monitor.windows import NEVER_MS
from tests.simulation import SOURCE, settings

N_MODELS, RESULT_BYTES = 30, 200_000


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """Say much, an alert of every other window."""
    value = f"{closed.model} {closed.window.start_ms}".encode().ljust(RESULT_BYTES, b" ")
    alerts = ((closed.model.encode(), value[:20]),) if closed.window.start_ms % 20 else ()
    return Judgement(((closed.model.encode(), value),), alerts, b"", tuple("warning" for _ in alerts))


def told(*ends: int) -> Iterator[StoredRecord]:
    """Yield a partial of every model for the panes before each end, and then the watermark."""
    items: list[partials.Partial | partials.Watermark] = []
    profile = Profile(Layout())
    profile.rows[0] = 1
    for end in ends:
        for model in range(N_MODELS):
            pane = (f"m{model:02d}", "1", end - 10, 10)
            items.append(partials.Partial(SOURCE, 0, 1, end, *pane, 0, end, NEVER_MS, 1, 0, "", "", 0, 1, profile.to_bytes()))
        items.append(partials.Watermark(SOURCE, 0, 1, end, {0: end}, False, 1))
    yield from (StoredRecord(offset, 0, partials.encode(item)) for offset, item in enumerate(items))


def stage_of(*ends: int, rows: dict[bytes, bytes] | None = None, epoch: int = 1) -> MergePartition:
    found = MergePartition(
        settings(), 0, topology={SOURCE: 1}, epoch=epoch, judge=judge, references=References(), rows=(rows or {}).items()
    )
    if found.next_offset < 0:
        found.skip_to(0)
    found.feed(list(told(*ends))[found.next_offset :], 0)
    return found


def commit(stage: MergePartition, store: dict[bytes, bytes]) -> None:
    checkpoint = stage.checkpoint()
    assert checkpoint is not None
    for key, value in (*checkpoint.rows, checkpoint.meta):
        store.update({key: value}) if value is not None else store.pop(key, None)
    stage.committed(checkpoint)


def sent(stage: MergePartition, n_boxes: int = 1_000) -> list[list[Message]]:
    boxes = []
    while len(boxes) < n_boxes and (box := stage.outbox(0)):
        boxes.append([*box.first, *box.then])
        stage.emitted(box, 0)
    return boxes


def test_what_waits_is_a_tenth_of_its_size_and_goes_out_in_order_a_few_mib_at_a_time() -> None:
    stage = stage_of(10, 20)
    assert stage.memory()["windows"] < N_MODELS * RESULT_BYTES / 10
    commit(stage, {})
    boxes = sent(stage)
    sizes = [sum(len(message.value or b"") for message in box) for box in boxes]
    assert len(boxes) == 3
    assert all(sending.PORTION <= size < sending.PORTION + 2 * RESULT_BYTES for size in sizes[:-1])
    results = [bytes(message.value or b"").strip().decode() for box in boxes for message in box if message.topic == "m.results"]
    assert results == [f"m{model:02d} {start}" for start in (0, 10) for model in range(N_MODELS)]
    assert [m.key for box in boxes for m in box if m.topic == "m.alerts"] == [
        f"m{model:02d}".encode() for model in range(N_MODELS)
    ]


def test_a_worker_that_ends_between_two_of_them_sends_the_rest_and_repeats_only_what_no_checkpoint_covers() -> None:
    stage, store = stage_of(10, 20), dict[bytes, bytes]()
    commit(stage, store)
    (first,) = sent(stage, 1)
    commit(stage, store)
    (second,) = sent(stage, 1)
    again = stage_of(10, 20, rows=store, epoch=2)
    rest = [message for box in sent(again) for message in box]
    assert rest[: len(second)] == second
    assert len(first) + len(rest) == 3 * N_MODELS
    assert not {msgspec.json.encode([m.topic, m.value]) for m in first} & {msgspec.json.encode([m.topic, m.value]) for m in rest}


def test_one_that_is_larger_than_a_portion_is_sent_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PORTION", RESULT_BYTES // 2)
    stage = stage_of(10)
    commit(stage, {})
    assert [len(box) for box in sent(stage)] == [1] * N_MODELS
