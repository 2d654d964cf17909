"""Bytes that earlier versions of the program wrote are read: profiles, references, state rows, partials, incidents."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import cramjam
import msgspec
import numpy as np
import pytest

from monitor import incidents
from monitor.bootstrap import build_pipeline
from monitor.columns import ColumnBatch
from monitor.decision.state import DecisionState
from monitor.errors import UnknownCodec
from monitor.ports import Message, StoredRecord
from monitor.profiles import CODEC_VERSION, Profile
from monitor.reference import Reference
from monitor.sketches.bounded import key_hash
from monitor.stages import partials, rows
from tests.codec_events import CONFIG, CUT, LAYOUT, N_EVENTS, features, records
from tests.codec_fixture import NOW_MS, plain, tick

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures").glob("codec_v*.json"))
VERSION_1 = json.loads((Path(__file__).parent.parent / "fixtures/codec_v1.json").read_text())


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def written(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text())
    return found


def same(found: Any, expected: Any) -> bool:
    """Whether everything that was written then is there now, distances to 1e-9; newer fields are not looked at."""
    if isinstance(expected, dict):
        return all(name in found and same(found[name], value) for name, value in expected.items())
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    return bool(found == expected)


def test_every_version_has_a_fixture() -> None:
    written = [b64decode(json.loads(path.read_text())["profile"])[0] for path in FIXTURES]
    assert written == list(range(1, CODEC_VERSION + 1))


def test_a_profile_decodes_to_what_it_held(written: dict[str, Any]) -> None:
    profile, content = Profile.from_bytes(b64decode(written["profile"]), LAYOUT), written["content"]
    assert profile.n == content["rows"] == N_EVENTS
    for name, summary in content["features"].items():
        assert same(plain(profile, name), summary)
    assert [[str(a), str(b)] for a, b in profile.sums[0]] == content["sums"]
    assert (profile.inspected, profile.unexpected) == (content["inspected"], content["unexpected"])


def test_the_fixture_holds_what_was_sent(written: dict[str, Any]) -> None:
    rows = [features(i) for i in range(N_EVENTS)]
    cities = [row.get("city") for row in rows]
    known = ["ams", "ber", "cdg", "dub", "edi"]
    summary = written["content"]["features"]["city"]
    assert summary["values"] == [*map(cities.count, known[:3]), sum(map(cities.count, known[3:]))]
    assert summary["never_seen"] == sum(city is not None and city not in known for city in cities)


def test_a_reference_decodes(written: dict[str, Any]) -> None:
    reference = Reference.from_bytes(json.dumps(written["reference"]).encode())
    assert reference.layout.sha256 == LAYOUT.sha256
    assert reference.profile.n == written["reference"]["rows"]


def test_a_partition_goes_on_from_stored_rows_to_the_same_windows(written: dict[str, Any]) -> None:
    """Workers are started anew with this program in the middle of the log, on the rows and partials of the former one."""
    pipeline = build_pipeline(CONFIG, [Reference.from_bytes(json.dumps(written["reference"]).encode())])
    ingest = pipeline.ingest("predictions", 0, partitions=1, epoch=2, rows=stored(written["ingest_rows"]))
    merge = pipeline.merge(0, topology={"predictions": 1}, epoch=2, rows=stored(written["merge_rows"]))
    assert (ingest.next_offset, merge.next_offset) == (CUT, len(written["partials"]))
    results: list[Message] = []
    for start in range(CUT, N_EVENTS, 30):
        ingest.feed(records()[start : start + 30], NOW_MS)
        for message in tick(ingest, {}):
            merge.feed([StoredRecord(merge.next_offset, 0, message.value, message.key)], NOW_MS)
            results += [m for m in tick(merge, {}) if m.topic == "m.results"]
    assert results
    known = {result["window"]["start_ms"]: result for result in written["results"]}
    for message in results:
        found = json.loads(message.value or b"")
        expected = known[found["window"]["start_ms"]]
        assert same(found["features"], expected["features"])
        assert same(found, {name: expected[name] for name in ("n", "revision", "reference", "source_offsets", "unexpected")})


@pytest.mark.parametrize(
    ("key", "codec", "message"),
    [
        (b"pane|credit|7|0|3600000|0", rows.CODEC_VERSION + 1, "codec version"),
        (b"forecast|credit", rows.CODEC_VERSION, "the unknown kind 'forecast'"),
    ],
)
def test_a_row_of_a_later_version_is_refused_by_both_stages(
    written: dict[str, Any], key: bytes, codec: int, message: str
) -> None:
    pipeline = build_pipeline(CONFIG)
    later = (rows.stored_key(key, 1), bytes([codec]) + bytes(20))
    with pytest.raises(UnknownCodec, match=message):
        pipeline.ingest("predictions", 0, partitions=1, epoch=2, rows=[*stored(written["ingest_rows"]), later])
    with pytest.raises(UnknownCodec, match=message):
        pipeline.merge(0, topology={"predictions": 1}, epoch=2, rows=[*stored(written["merge_rows"]), later])


def stored(rows: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(b64decode(key), b64decode(value)) for key, value in rows]


def test_partials_decode(written: dict[str, Any]) -> None:
    items = [partials.decode(b64decode(data)) for data in written["partials"]]
    panes = [item for item in items if isinstance(item, partials.Partial)]
    assert panes
    assert {type(item) for item in items} == {partials.Partial, partials.Watermark}
    assert [Profile.from_bytes(p.profile, LAYOUT).n for p in panes] == [p.n for p in panes]


def test_open_incidents_are_known(written: dict[str, Any]) -> None:
    state = DecisionState.load(b64decode(written["incidents"]))
    transitions = incidents.step(state, [], lambda _: "", 0, is_complete=True)
    resolved = {(t.finding.measurement.check, t.incident_id) for t in transitions}
    fired = {(a["data"]["check"], a["id"]) for a in written["alerts"] if a["data"]["status"] == "firing"}
    assert resolved
    assert resolved <= fired
    assert state.to_bytes() == b""


def test_what_version_1_did_not_count_is_unknown_or_within_a_wider_error() -> None:
    profile = Profile.from_bytes(b64decode(VERSION_1["profile"]), LAYOUT)
    cities = [features(i).get("city") for i in range(N_EVENTS)]
    new = Counter(key_hash(str(city)) for city in cities if city not in (None, "ams", "ber", "cdg", "dub", "edi"))
    outside = profile.outside[0]
    assert outside.kept == {int(key): n for key, n in VERSION_1["content"]["unseen"][0].items()}
    assert outside.kept == {key: new[key] for key in sorted(new)[:64]}
    assert len(new) > 64
    assert profile.summary("city").distinct is None
    hitters = outside.hitters
    assert all(hitters.counts.get(key, 0) <= n <= hitters.counts.get(key, 0) + hitters.error for key, n in new.items())
    assert profile.summary("flag").distinct == 2


def test_a_version_1_profile_of_few_new_values_and_no_others_is_as_good_as_one_of_now() -> None:
    for column, is_known in ((["ams", "new", "new", "newer"], True), (["ams", "new", "dub"], False)):
        now = Profile(LAYOUT)
        n = len(column)
        now.update(ColumnBatch(n, np.zeros((1, n)), None, [column, [True] * n]))
        then = Profile.from_bytes(as_version_1(now), LAYOUT)
        assert (then.to_bytes() == now.to_bytes()) is is_known
        assert then.summary("city").distinct == (now.summary("city").distinct if is_known else None)


def as_version_1(profile: Profile) -> bytes:
    """Put the kept hashes where version 1 had them."""
    wire = msgspec.msgpack.decode(bytes(cramjam.zstd.decompress(profile.to_bytes()[1:])), strict=False)
    layout, _, rows, counts, sums, minimum, maximum, _, *names, _ = wire
    pairs = list(zip(sums[::2], sums[1::2], strict=True))
    kept = [outside.kept for outside in profile.outside]
    return b"\x01" + bytes(
        cramjam.zstd.compress(msgspec.msgpack.encode([layout, rows, counts, pairs, minimum, maximum, kept, *names]))
    )
