"""Writes the fixture of the present codec versions: `python -m tests.codec_fixture > tests/fixtures/codec_v2.json`.

Run it once for each new version, with the code that writes that version first; never again for an old one.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import asdict

from monitor.bootstrap import build_pipeline
from monitor.formats.native import NativeFormat
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.profiles import CODEC_VERSION, Profile
from monitor.reference import Reference
from monitor.stages.merge.final_rows import Final
from monitor.stages.pieces import Row
from monitor.stages.rows import Versions
from tests.codec_events import CONFIG, CUT, LAYOUT, N_EVENTS, features, records

NOW_MS = 1 << 60
BATCH = 30

Store = dict[bytes, bytes]


def plain(profile: Profile, name: str) -> dict[str, Any]:
    """Return a feature's summary as JSON has it."""
    found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(profile.summary(name)).items()}
    return dict(json.loads(msgspec.json.encode(found)))


def profile_of(rows: list[int]) -> Profile:
    wire = NativeFormat()
    decoded = wire.decode(records())
    profile = Profile(LAYOUT)
    profile.update(wire.columns(LAYOUT, [decoded.payloads[i] for i in rows], decoded.offsets[rows]))
    return profile


def reference() -> Reference:
    """Of the events whose city is not new."""
    known = ("ams", "ber", "cdg", "dub", None)
    return Reference.build("credit", "7", profile_of([i for i in range(N_EVENTS) if features(i).get("city") in known]))


def tick(stage: PartitionStage, store: Store) -> list[Message]:
    """Make a stage durable, and return what it sends."""
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        for key, value in (*checkpoint.rows, checkpoint.meta):
            store.pop(key, None)
            if value is not None:
                store[key] = value
        stage.committed(checkpoint)
    box = stage.outbox(0)
    if box:
        stage.emitted(box, 0)
    return [*box.first, *(m for m in box.then if m.partition == 0)]


def run() -> dict[str, Any]:
    """Run both stages over the events; return the rows as they were at `CUT`, and everything that was sent."""
    pipeline = build_pipeline(CONFIG, [reference()])
    ingest = pipeline.ingest("predictions", 0, partitions=1)
    merge = pipeline.merge(0, topology={"predictions": 1})
    ingest.skip_to(0)
    merge.skip_to(0)
    ingest_rows: Store = {}
    merge_store: Store = {}
    sent: list[bytes] = []
    published: dict[str, list[Any]] = {"results": [], "alerts": []}
    kept: dict[str, Any] = {}
    for start in range(0, N_EVENTS, BATCH):
        if start == CUT:
            kept = {"ingest_rows": pairs(ingest_rows), "merge_rows": pairs(merge_store), "partials": list(map(text, sent))}
            kept["incidents"] = text(incidents_of(merge_store))
        ingest.feed(records()[start : start + BATCH], NOW_MS)
        for message in tick(ingest, ingest_rows):
            assert message.value is not None
            merge.feed([StoredRecord(len(sent), 0, message.value, message.key)], NOW_MS)
            sent.append(message.value)
            for out in tick(merge, merge_store):
                published[out.topic.removeprefix("m.")].append(json.loads(out.value or b""))
    return kept | published


def incidents_of(rows: Store) -> bytes:
    """Return the decision state after the last final window."""
    versions = Versions(rows.items(), epoch=2).best
    last = max(key for key in versions if key.startswith(b"window") and key.endswith(b"|0"))
    final = Row.load(last, {0: versions[last]}, Final)
    assert final is not None
    return final.value.after["7"]


def pairs(rows: Store) -> list[list[str]]:
    return [[text(key), text(value)] for key, value in sorted(rows.items())]


def text(data: bytes) -> str:
    return b64encode(data).decode()


def main() -> None:
    profile = profile_of(list(range(N_EVENTS)))
    content = {
        "rows": profile.n,
        "features": {feature.name: plain(profile, feature.name) for feature in LAYOUT.features},
        "sums": [[str(a), str(b)] for a, b in profile.sums[0]],
        "inspected": profile.inspected,
        "unexpected": profile.unexpected,
    }
    fixture = {
        "made_by": f"profile codec {CODEC_VERSION}",
        "profile": text(profile.to_bytes()),
        "content": content,
        "reference": json.loads(reference().to_bytes()),
    }
    print(json.dumps(fixture | run(), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
