"""What earlier versions of the program stored and sent of outcomes is read: rows, entries of ids, ranges, differences."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.hash_key import NO_KEY
from monitor.performance import OutcomeCells, PerformanceSpec, realised
from monitor.reference import Reference
from monitor.stages import outcomes, partials
from monitor.stages.join import pending
from monitor.stages.join.partition import JoinMeta
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.performance_rows import Known, OutcomeMeta, Reported
from monitor.stages.pieces import Row
from monitor.stages.rows import META, Versions
from tests.codec_outcome_events import CUT_HOUR, HOUR_MS, N_HOURS, PER_HOUR, START_MS, labels_of, prediction
from tests.codec_outcome_fixture import World, alerts, both, later, reports
from tests.unit.test_codecs import same

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures").glob("outcomes_v*.json"))
N = N_HOURS * PER_HOUR
KEYS = {
    digest.tobytes(): i
    for i, digest in enumerate(NO_KEY.digests("credit|", (f"id-{i}".encode() for i in range(N))))
}  # fmt: skip
ORPHANS = {digest.tobytes() for digest in NO_KEY.digests("credit|", (f"nobody-{i}".encode() for i in range(N)))}


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def written(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text())
    return found


def versions(written: dict[str, Any], name: str) -> Versions:
    return Versions(map(both, written["rows"][name]), epoch=2)


def time_of(i: int) -> int:
    return START_MS + i * HOUR_MS // PER_HOUR


def test_every_version_has_a_fixture() -> None:
    made_by = [json.loads(path.read_text())["made_by"] for path in FIXTURES]
    assert made_by == [f"outcomes codec {v}, entries {v}" for v in range(1, outcomes.CODEC_VERSION + 1)]
    assert pending.FORMAT == outcomes.CODEC_VERSION


def test_the_fixture_has_every_kind_of_row_that_outcomes_made(written: dict[str, Any]) -> None:
    kinds = {key.partition(b"|")[0] for name in written["rows"] for key in versions(written, name).best}
    assert {b"delta", b"outcome", b"known", b"reported", b"early", META} <= kinds


def test_workers_go_on_from_stored_rows_and_entries_to_the_same_reports_and_alerts(written: dict[str, Any]) -> None:
    """Started anew with this program in the middle of the logs: no entry is made anew, what was told early is known at the close."""
    world = World(Reference.from_bytes(json.dumps(written["reference"]).encode()), written)
    for r, stage in enumerate(world.join):
        assert stage.next_offset == versions(written, f"join{r}").best[META].hi + 1
    later(world)
    found = {one["id"]: one for one in reports(world)}
    assert len(found) == len(written["reports"]) > 20
    assert all(same(found[one["id"]], one) for one in written["reports"])
    assert alerts(world) == written["alerts"]
    assert {check for _, _, check in written["alerts"]} == {"performance.accuracy", "health.missing"}


def test_metas_decode(written: dict[str, Any]) -> None:
    stored = versions(written, "merge").best[META]
    of_merge = Meta.from_bytes(stored.payload)
    assert isinstance(of_merge.outcomes, OutcomeMeta)
    assert of_merge.outcomes.windows == {"credit": of_merge.outcomes.serials["credit"] - of_merge.outcomes.revisions["credit"]}
    for r in range(2):
        stored = versions(written, f"join{r}").best[META]
        of_join = JoinMeta.from_bytes(stored.payload)
        assert (of_join.outcomes_partition, of_join.partitions, of_join.partials_partitions) == (r, 2, 1)
        assert set(of_join.clock.vector) == {"predictions|0", "labels|0"}
        assert of_join.clock.reached[60_000] == min(mark.closed[60_000] for mark in of_join.clock.marks.values())


def test_early_known_and_reported_rows_decode(written: dict[str, Any]) -> None:
    spec = PerformanceSpec.of(Reference.from_bytes(json.dumps(written["reference"]).encode()))
    best = versions(written, "merge").best
    made: dict[int, int] = {}
    published = 0
    for key, version in best.items():
        kind, *parts = key.decode().split("|")
        if kind == "known":
            row = Row.load(key, {0: version}, Known)
            assert row is not None and not row.value.cells[1:]
            made[int(parts[2])] = realised(OutcomeCells.from_bytes(spec, row.value.cells[0][1])).n_made
        elif kind == "reported":
            report = Row.load(key, {0: version}, Reported)
            assert report is not None and not report.value.unsent
            published += report.value.is_published
        elif kind == "early":
            early = Row.load(key, {0: version}, Early)
            assert early is not None and list(early.value.told) == ["7"]
    with_id = [sum(b'"id"' in prediction(i) for i in range(h * PER_HOUR, (h + 1) * PER_HOUR)) for h in range(CUT_HOUR)]
    assert made == {START_MS + h * HOUR_MS: with_id[h] for h in range(len(made))}
    assert min(len(made), published) > 10


def test_ranges_decode_to_the_events_that_they_tell(written: dict[str, Any]) -> None:
    told = [outcomes.decode(b64decode(data)) for data in written["sent"]["outcomes"]]
    assert {one.place for one in told} == {"predictions|0", "labels|0"}
    rows = labels = 0
    for one in told:
        for part in one.predictions:
            _, times, predicted, scores, segments = part.columns()
            ids = np.frombuffer(part.ids, np.uint8).reshape(-1, 16)
            for row, digest in enumerate(ids):
                i, event = (at := KEYS[digest.tobytes()]), msgspec.json.decode(prediction(at))
                assert times[row] == time_of(i)
                assert predicted[row] == {"0": 0, "1": 1, "maybe": -1}[event["prediction"]]
                assert scores[row, 0] == event["score"] or (event["score"] is None and np.isnan(scores[row, 0]))
                assert int(segments[row, 0]) == {"red": 1, "blue": 2}.get(event.get("tags", {}).get("team"), 3)
                rows += 1
        for known in one.labels:
            ids, times = np.frombuffer(known.ids, np.uint8).reshape(-1, 16), np.frombuffer(known.times, "<i8")
            for digest, time, value in zip(ids, times.tolist(), known.values, strict=True):
                assert digest.tobytes() in ORPHANS or (time, value) in labels_of(KEYS[digest.tobytes()])
                labels += 1
    assert rows > 50
    assert labels > 50


def test_entries_of_ids_decode_to_the_events_that_they_hold(written: dict[str, Any]) -> None:
    n = n_labels = 0
    for r, kept in enumerate(written["pending"]):
        state = msgspec.msgpack.decode(b64decode(kept["state"]), type=pending.PendingState)
        assert state.identity.startswith(f"{pending.FORMAT}|m.outcomes|{r}|2|")
        for key, data in map(both, kept["entries"]):
            entry = msgspec.msgpack.decode(data, type=pending.Entry)
            assert state.kinds[entry.kind].model == "credit"
            if entry.time_ms is not None:
                i = KEYS[key]
                assert (entry.time_ms, entry.offset, state.places[entry.place]) == (time_of(i), i, "predictions|0")
                assert {(one.time_ms, one.value) for one in entry.labels} <= set(labels_of(i))
            n, n_labels = n + 1, n_labels + len(entry.labels)
    assert n > 150
    assert n_labels > 50


def test_differences_decode(written: dict[str, Any]) -> None:
    items = [partials.decode(b64decode(data)) for data in written["sent"]["partials"]]
    found = [one for one in items if isinstance(one, partials.OutcomePartial)]
    reference = Reference.from_bytes(json.dumps(written["reference"]).encode())
    assert found
    for one in found:
        assert (one.model, one.version, one.reference, one.size_ms) == ("credit", "7", reference.sha256, HOUR_MS)
        assert one.cut_ms > one.start_ms
        assert not OutcomeCells.from_bytes(PerformanceSpec.of(reference), one.cells).is_zero
