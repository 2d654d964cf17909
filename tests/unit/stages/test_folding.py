"""Rows of many models: sorted by pane some fetches at a time, and counted together, with the bytes that each pane alone would have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from monitor import compiled, table_reader
from monitor.columns import DecodedBatch
from monitor.errors import OffsetGap
from monitor.features import CategoryFeature
from monitor.formats.native import NativeFormat
from monitor.layout import Layout, layout_of
from monitor.ports import Record, StoredRecord
from monitor.profiles import Profile
from monitor.reference import PREDICTION, Reference, ReferencePerformance, References
from monitor.segments import Key, Segmentation
from monitor.stages.ingest import folding, partition_panes, reading
from monitor.stages.ingest import partition as partition_module
from monitor.stages.ingest.gathered import rows as gathered_rows
from monitor.stages.ingest.gathered.counts import GatheredCounts
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.ingest.panes import Pane
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.reading import Reading
from monitor.stages.rows import META, parse
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.table_rows import TableRows
from monitor.windows import WindowSpec
from tests.native import needs_native
from tests.shapes import number_feature_of

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 473_000 * HOUR
HEADER_BYTES = 10
"""Before the payload of a row."""
DAYS = ("mon", "tue", "wed")


def layout(seed: int, *, extra: bool = False, split: bool = False) -> Layout:
    dice = np.random.default_rng(seed)
    features = [
        number_feature_of("x", dice.normal(size=2_000)),
        number_feature_of("whole", dice.integers(0, 500, 2_000).astype(np.float64)),
        CategoryFeature(name="day", values=DAYS),
        CategoryFeature(name="flag", values=("false", "true"), value_type="boolean"),
        CategoryFeature(name=PREDICTION, values=("no", "yes")),
    ]
    if extra:
        features.append(number_feature_of("extra", dice.normal(size=2_000)))
    segments = (Segmentation((Key(name="day"),), (("mon",), ("tue",))),) if split else ()
    return layout_of(features, segmentations=segments)


LAYOUTS = {
    "same-1": layout(1),
    "same-2": layout(1),
    "other-cells": layout(2),
    "other-shape": layout(3, extra=True),
    "split": layout(4, split=True),
    "split-too": layout(4, split=True),
}
MODELS = (*LAYOUTS, "unknown")
"""`unknown` has no reference."""


def references() -> References:
    found, known = References(), ReferencePerformance(task="binary", n=1_000, classes=["no", "yes"], positive_class="yes")
    for model, of_model in LAYOUTS.items():
        found.add(Reference.build(model, "1", Profile(of_model), performance=known))
    return found


def partition(
    known: References,
    *,
    joins: bool = False,
    windows: Sequence[WindowSpec] = (WindowSpec(HOUR, HOUR),),
    items: Sequence[tuple[bytes, bytes]] = (),
    epoch: int = 1,
    in_tables: bool = True,
) -> IngestPartition:
    source = SourceSettings("events", clock="event")
    settings = Settings("m", {}, ModelSettings(tuple(windows)), {"events": source}, outcomes_partitions=2 if joins else 0)
    wire = NativeFormat(in_tables=in_tables)
    stage = IngestPartition(settings, "events", 0, partitions=1, epoch=epoch, wire=wire, references=known, rows=items)
    if stage.next_offset < 0:
        stage.skip_to(0)
    return stage


def value(dice: np.random.Generator) -> object:
    """A number, now and then one that needs care."""
    odd = [None, "NaN", "-Infinity", "text", 1e300, 2.5, True]
    return odd[dice.integers(len(odd))] if dice.random() < 0.1 else float(np.round(dice.normal(), 4))


def log(n: int, seed: int = 0) -> list[StoredRecord]:
    """Return events of all models in turn: some values odd, some rows late, some of the future, some out of order."""
    dice, records = np.random.default_rng(seed), []
    for offset in range(n):
        time = START + offset * 3 * HOUR // n - int(dice.integers(0, 90_000))
        if dice.random() < 0.01:
            time += int(dice.choice((-2, 2))) * HOUR
        features = {
            "x": value(dice),
            "whole": int(dice.integers(0, 600)) + (0.5 if dice.random() < 0.02 else 0),
            "day": str(dice.choice((*DAYS, "thu", "fri"))),
            "flag": bool(dice.integers(2)),
            "extra": value(dice),
        }
        if dice.random() < 0.05:
            features |= {"x y": 1} if dice.random() < 0.5 else {"day": 3}
        model = MODELS[offset % len(MODELS)]
        said: dict[str, object] = {"model": model, "version": "1", "time": time, "features": features}
        said["prediction"] = ("yes", "no", "perhaps")[dice.integers(3)]
        if dice.random() < 0.9:
            said["id"] = f"id-{dice.integers(n)}" if dice.random() < 0.95 else 7
        if dice.random() < 0.3:
            said |= {"schema": f"s{dice.integers(3)}", "sample_rate": 0.5}
        stamp = START + offset * 3 * HOUR // n + 1_000
        records.append(StoredRecord(offset, stamp if dice.random() < 0.95 else -1, json.dumps(said).encode()))
    return records


def rows(stage: IngestPartition, records: Sequence[StoredRecord], fetch: int, every: int) -> list[object]:
    """Return what the checkpoints write and what the counts are then, after every so many records."""
    found: list[object] = []
    for begin in range(0, len(records), fetch):
        stage.feed(records[begin : begin + fetch], START + 4 * HOUR)
        if begin // every < (begin + fetch) // every:
            checkpoint = stage.checkpoint()
            assert checkpoint is not None
            stage.committed(checkpoint)
            key, meta = checkpoint.meta
            found.append((sorted(checkpoint.rows), key, IngestMeta.from_bytes(meta[HEADER_BYTES:]), checkpoint.outcomes))
            found.append(dict(stage.counters()))
            box = stage.outbox(START)
            found.append(box.first)
            if box:
                stage.emitted(box, START)
    return found


@pytest.fixture(params=[1, 64])
def read_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many rows of a shape are read with their fetch."""
    monkeypatch.setattr(reading, "READ_ROWS", request.param)
    return int(request.param)


@pytest.mark.parametrize("fetch", [70, 14])
@pytest.mark.parametrize("joins", [False, True])
def test_rows_read_with_their_fetch_are_counted_as_those_that_were_not(
    fetch: int, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = log(1_400)
    monkeypatch.setattr(reading, "READ_ROWS", 1 << 30)
    later = rows(partition(references(), joins=joins), records, fetch, 350)
    n_read, fold = Counter[type](), Reading.fold

    def folded(read: Reading) -> list[Pane]:
        for gathered in read._gathered.values():
            n_read[type(gathered)] += gathered.n_waiting + gathered.n_counted
        return fold(read)

    monkeypatch.setattr(reading, "READ_ROWS", 1)
    monkeypatch.setattr(Reading, "fold", folded)
    assert rows(partition(references(), joins=joins), records, fetch, 350) == later
    assert n_read.total() > len(records) // 3
    if compiled.is_available and not joins:
        assert n_read[GatheredCounts] > len(records) // 5


@needs_native
@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("fetch", [70, 14])
def test_rows_read_as_tables_leave_what_those_do_that_were_read_one_by_one(
    fetch: int, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, n_in_tables = log(2_800, seed=6), Counter[bool]()
    monkeypatch.setattr(reading, "READ_ROWS", 1)
    monkeypatch.setattr(table_reader, "SPARED", 0)
    one_by_one = rows(partition(references(), joins=joins, in_tables=False), records, fetch, 350)
    read = NativeFormat.decode

    def decode(form: NativeFormat, some: Sequence[Record]) -> DecodedBatch:
        found = read(form, some)
        n_in_tables[isinstance(found.payloads, TableRows)] += len(some)
        return found

    monkeypatch.setattr(NativeFormat, "decode", decode)
    assert rows(partition(references(), joins=joins), records, fetch, 350) == one_by_one
    assert n_in_tables[True] > len(records) // 2


@pytest.mark.parametrize("joins", [False, True])
def test_panes_folded_together_hold_what_each_alone_would(joins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    records = log(1_400)
    together = rows(partition(references(), joins=joins), records, 70, 350)
    monkeypatch.setattr(folding, "FEW_ROWS", 0)
    alone = rows(partition(references(), joins=joins), records, 70, 350)
    assert together == alone
    assert len(together) == 12
    assert any(message.value for checkpoint in together[::3] for message in checkpoint[3]) == joins  # type: ignore[index]


def test_rows_that_panes_held_before_a_crash_are_not_lost_and_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    records = log(1_400, seed=5)
    monkeypatch.setattr(reading, "READ_ROWS", 1)
    store: dict[bytes, bytes | None] = {}
    stage = partition(references())
    for begin, has_meta in ((0, True), (500, False)):  # of the second checkpoint only rows are written
        stage.feed(records[begin : begin + 500], START + 4 * HOUR)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        store |= dict(checkpoint.rows) | (dict([checkpoint.meta]) if has_meta else {})
        stage.committed(checkpoint)

    def counted(stage: IngestPartition, store: dict[bytes, bytes | None]) -> tuple[object, ...]:
        for first in range(stage.next_offset, 1_400, 70):
            stage.feed(records[first : min(first + 70, 1_400)], START + 4 * HOUR)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        found = [parse(key, value) for key, value in (store | dict(checkpoint.rows)).items() if value is not None]
        return {key: row.payload for key, row in found if key != META}, dict(stage.counters())

    again = partition(references(), items=[(key, value) for key, value in store.items() if value is not None], epoch=2)
    assert again.next_offset == 500
    assert counted(again, store) == counted(partition(references()), {})


@pytest.mark.usefixtures("read_rows")
def test_groups_of_any_size_hold_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    records = log(700, seed=1)
    whole = rows(partition(references()), records, 70, 350)
    for module in (folding, gathered_rows):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 60)
    assert rows(partition(references()), records, 70, 350) == whole


@pytest.mark.usefixtures("read_rows")
@pytest.mark.parametrize("joins", [False, True])
def test_a_fetch_is_folded_in_pieces_that_leave_no_trace(joins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    records = log(1_400, seed=6)
    at_once = rows(partition(references(), joins=joins), records, 350, 350)
    for rows_at_once in ("ROWS_AT_ONCE", "TABLE_ROWS_AT_ONCE"):
        monkeypatch.setattr(partition_module, rows_at_once, 60)
    assert rows(partition(references(), joins=joins), records, 350, 350) == at_once


def test_a_gap_in_a_later_piece_of_a_fetch_is_refused_before_any_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows_at_once in ("ROWS_AT_ONCE", "TABLE_ROWS_AT_ONCE"):
        monkeypatch.setattr(partition_module, rows_at_once, 10)
    stage, records = partition(references()), log(140, seed=7)
    with pytest.raises(OffsetGap) as caught:
        stage.feed(records[:50] + records[51:], START + 4 * HOUR)
    assert (caught.value.expected, caught.value.got, stage.next_offset) == (50, 51, 0)
    stage.skip_to(51)
    stage.feed(records[:50] + records[51:], START + 4 * HOUR)
    assert (stage.next_offset, stage.counters()["gaps",]) == (140, 1)


@pytest.mark.usefixtures("read_rows")
def test_rows_sorted_by_pane_later_are_where_they_would_be_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = log(1_400, seed=2)
    later = rows(partition(references()), records, 14, 350)
    monkeypatch.setattr(partition_panes, "MAX_PENDING_ROWS", 1)
    assert rows(partition(references()), records, 14, 350) == later


@pytest.mark.usefixtures("read_rows")
def test_counts_and_panes_are_those_of_the_last_row_read() -> None:
    stage, records = partition(references()), log(14, seed=3)
    stage.feed(records, START + 4 * HOUR)
    counts = stage.counters()
    assert sum(n for name, n in counts.items() if name[0] == "events") + counts.get(("rejections", "future_timestamp"), 0) == 14
    assert stage.gauges()["rows",] >= len(MODELS) - 1


def test_a_pane_is_due_though_its_rows_were_not_sorted_yet() -> None:
    stage = partition(references())
    for offset, minute in enumerate((0, 65)):
        body = json.dumps({"model": "same-1", "version": "1", "time": START + minute * MINUTE, "features": {}}).encode()
        stage.feed([StoredRecord(offset, START + minute * MINUTE, body)], START + 4 * HOUR)
        is_due = stage._panes.has_due(stage.clock_ms)
        assert is_due == (minute > 60)
    checkpoint = stage.checkpoint()
    assert checkpoint is not None
    stage.committed(checkpoint)
    assert len(stage.outbox(START).first) == 1


def test_models_with_the_same_features_are_read_in_one_pass_once_one_was_folded() -> None:
    wire = NativeFormat()
    records = [
        record for record in log(140, seed=4) if b'"same-' in (record.value or b"") or b'"other-cells' in (record.value or b"")
    ]
    for first in (True, False):
        batch = wire.decode(records)
        is_read = [not type(event.features).__name__.startswith("Raw") for event, _ in batch.payloads]  # type: ignore[attr-defined]
        assert any(is_read) is not first
        for i, (model, _) in enumerate(batch.keys):
            at = np.flatnonzero(batch.key_index == i)
            wire.columns(LAYOUTS[model], [batch.payloads[j] for j in at.tolist()], batch.offsets[at])
    assert sum(is_read) > len(is_read) // 2


def test_layouts_that_differ_in_their_cells_only_have_one_shape() -> None:
    assert LAYOUTS["same-1"].shape == LAYOUTS["other-cells"].shape
    assert LAYOUTS["same-1"].sha256 != LAYOUTS["other-cells"].sha256
    assert LAYOUTS["same-1"].shape != LAYOUTS["other-shape"].shape
    text, number = (layout_of([CategoryFeature(name="day", values=DAYS, value_type=kind)]) for kind in ("string", "number"))
    assert text.shape != number.shape
