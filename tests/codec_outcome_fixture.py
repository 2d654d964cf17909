"""Writes the fixture of what labels have brought: `python -m tests.codec_outcome_fixture > tests/fixtures/outcomes_v1.json`.

It holds the rows of ingest, join and stage 2 as they are in the middle of a log, the join's entries of ids, messages of `outcomes` and
`partials`, and what is published afterwards. Run it once for each new version, as `tests.codec_fixture`; never again for an old one.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from monitor.bootstrap import build_pipeline
from monitor.formats.native import NativeFormat
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, ReferencePerformance
from monitor.stages.join.memory_pending import MemoryPending
from monitor.stages.join.pending import FORMAT
from monitor.stages.outcomes import CODEC_VERSION
from tests.codec_fixture import NOW_MS, Store, pairs, text
from tests.codec_outcome_events import BROKEN_HOURS, CONFIG, CUT_HOUR, LAYOUT, PER_HOUR, POLICY, batches, prediction

TOPOLOGY = {"predictions": 1, "labels": 1}
R = CONFIG.outcomes_partitions
N_SENT, N_REFERENCE = 12, 12_000


def reference() -> Reference:
    """Of predictions while nothing is broken."""
    known = ReferencePerformance(
        task="binary", n=1000, values={"accuracy": 0.9, "auc": 0.8}, classes=["0", "1"], positive_class="1"
    )
    values = [StoredRecord(i, 0, prediction(i)) for i in range(N_REFERENCE) if i // PER_HOUR not in BROKEN_HOURS]
    wire = NativeFormat()
    decoded = wire.decode(values)
    profile = Profile(LAYOUT)
    profile.update(wire.columns(LAYOUT, decoded.payloads, decoded.offsets))
    return Reference.build("credit", "7", profile, performance=known)


class World:
    """Both ingest partitions, both of the join, and stage 2. written: of a fixture, to go on from."""

    def __init__(self, of: Reference, written: Mapping[str, Any] | None = None) -> None:
        pipeline = build_pipeline(CONFIG, [of])
        pipeline.policies.add(POLICY)
        self.rows: dict[str, Store] = {}
        self.pending = [MemoryPending() for _ in range(R)]
        self.unread: list[list[bytes]] = [[] for _ in range(R)]
        self.sent: dict[str, list[bytes]] = {"outcomes": [], "partials": []}
        self.published: dict[str, list[Any]] = {"results": [], "alerts": []}
        if written is not None:
            self.rows = {name: dict(map(both, items)) for name, items in written["rows"].items()}
            self.unread = [list(map(b64decode, values)) for values in written["unread"]]
            for pending, kept in zip(self.pending, written["pending"], strict=True):
                pending.write(dict(map(both, kept["entries"])), b64decode(kept["state"]))
        epoch = 1 if written is None else 2
        self.ingest = {
            topic: pipeline.ingest(topic, 0, partitions=1, epoch=epoch, rows=self._stored(topic)) for topic in TOPOLOGY
        }
        self.join = [
            pipeline.join(r, topology=TOPOLOGY, pending=self.pending[r], epoch=epoch, rows=self._stored(f"join{r}"))
            for r in range(R)
        ]
        self.merge = pipeline.merge(0, topology={"predictions": 1}, epoch=epoch, rows=self._stored("merge"))
        if written is None:
            for stage in (*self.ingest.values(), *self.join, self.merge):
                stage.skip_to(0)

    def _stored(self, name: str) -> list[tuple[bytes, bytes]]:
        return list(self.rows.setdefault(name, {}).items())

    def run(self, hours: range) -> None:
        """Let everything of some hours come; the second partition of the join is a message behind."""
        for hour, topic, records in batches():
            if hour in hours:
                self._turn(topic, self.ingest[topic], records)
                self.follow(behind=1)

    def follow(self, behind: int) -> None:
        """Let the join read what it was told, its second partition all but so many messages."""
        for r, stage in enumerate(self.join):
            n = len(self.unread[r]) - (behind if r else 0)
            values, self.unread[r] = self.unread[r][:n], self.unread[r][n:]
            self._turn(f"join{r}", stage, following(stage, values))

    def _turn(self, name: str, stage: PartitionStage, records: Sequence[StoredRecord]) -> None:
        """Let a stage take records in, make it durable, and send what it has to say; stage 2 reads at once."""
        stage.feed(records, NOW_MS)
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            self._send(checkpoint.outcomes)
            for key, value in (*checkpoint.rows, checkpoint.meta):
                self.rows[name].pop(key, None)
                if value is not None:
                    self.rows[name][key] = value
            stage.committed(checkpoint)
        box = stage.outbox(0)
        if box:
            stage.emitted(box, 0)
            self._send([*box.first, *box.then])

    def _send(self, messages: Sequence[Message]) -> None:
        partials = []
        for message in messages:
            assert message.value is not None
            kind = message.topic.removeprefix("m.")
            if kind in self.published:
                self.published[kind].append(json.loads(message.value))
                continue
            self.sent[kind].append(message.value)
            if kind == "partials":
                partials.append(message.value)
            elif message.partition is not None:
                self.unread[message.partition].append(message.value)
        if partials:
            self._turn("merge", self.merge, following(self.merge, partials))


def following(stage: PartitionStage, values: Sequence[bytes]) -> list[StoredRecord]:
    """Return values as the next records of a stage's log."""
    return [StoredRecord(stage.next_offset + i, 0, value) for i, value in enumerate(values)]


def both(item: Sequence[str]) -> tuple[bytes, bytes]:
    """Read a pair of `codec_fixture.pairs`."""
    return b64decode(item[0]), b64decode(item[1])


def later(world: World) -> None:
    """Let all come that the fixture's state has not."""
    world.run(range(CUT_HOUR, 1 << 20))
    world.follow(behind=0)


def reports(world: World) -> list[dict[str, Any]]:
    """Return what was published of the performance of all rows, without what other rules or later fields would change."""
    names = ("id", "supersedes", "as_of_ms", "is_final", "n", "labelled", "coverage", "lag", "confusion", "values")
    found = [one for one in world.published["results"] if one.get("type") == "performance" and one["segment"] == "all"]
    return [{name: one[name] for name in names} for one in found]


def alerts(world: World) -> list[list[str]]:
    """Return id, status and check of each alert."""
    return [[one["id"], one["data"]["status"], one["data"]["check"]] for one in world.published["alerts"]]


def main() -> None:
    world = World(reference())
    world.run(range(-1, CUT_HOUR))
    kept = {
        "made_by": f"outcomes codec {CODEC_VERSION}, entries {FORMAT}",
        "reference": json.loads(reference().to_bytes()),
        "rows": {name: pairs(store) for name, store in sorted(world.rows.items())},
        "unread": [list(map(text, values)) for values in world.unread],
        "pending": [
            {
                "entries": [[text(key), text(value)] for key, value in pending.scan(b"", 1 << 20)],
                "state": text(pending.state or b""),
            }
            for pending in world.pending
        ],
        "sent": {kind: list(map(text, values[-N_SENT:])) for kind, values in world.sent.items()},
    }
    world.published = {"results": [], "alerts": []}
    later(world)
    print(json.dumps(kept | {"reports": reports(world), "alerts": alerts(world)}, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
