"""What revisions leave alone: what windows are compared with, and what a reference is learnt from."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from monitor.bootstrap import build_pipeline
from monitor.config.settings import Config
from monitor.findings import ClosedWindow, Judgement
from monitor.formats.native import NativeFormat
from monitor.ports import LOG_APPEND_TIME, Message, PartitionStage, StoredRecord
from monitor.reference import References
from monitor.replay import Replay
from monitor.stages import partials
from monitor.stages.merge import trail as trails
from monitor.stages.settings import Revising, Settings, Trail
from tests.simulation import PARTITIONS, SOURCE, ZOMBIE_MS, Topic, count_rows, places_of, run
from tests.unit.stages import test_learning, test_trail
from tests.unit.stages.test_learning import event, settings, tick

REVISING = Revising(for_ms=60, every_ms=20)


def revising(own: Settings, **changes: object) -> Settings:
    return replace(own, defaults=replace(own.defaults, revising=REVISING, **changes))  # type: ignore[arg-type]


def events(dice: random.Random, n: int) -> Topic:
    log = Topic()
    for i in range(n):
        late_by = dice.choice([0, 0, 0, 25, 50])
        time = max(0, i * 2 + dice.randrange(-8, 4) - late_by)
        log.records.append(event(i, dice.choice(["a", "bb"]), time, {"x": dice.gauss(0.5, 1)}))
    log.records.append(tick(n, 1_000))
    return log


def compared_with(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """`test_trail.judge`, with the revision in the key and the window's rows beside what they are compared with."""
    judged = test_trail.judge(closed, before, history)
    [(key, value)] = judged.results
    facts = msgspec.json.encode([closed.profile.n, msgspec.Raw(value)])
    return judged._replace(results=((key + f"|{closed.revision}".encode(), facts),))


def by_window(published: list[Message]) -> dict[str, dict[int, list[object]]]:
    found: dict[str, dict[int, list[object]]] = defaultdict(dict)
    for message in published:
        key, _, revision = (message.key or b"").decode().rpartition("|")
        found[key][int(revision)] = msgspec.json.decode(message.value or b"")
    return found


@pytest.mark.parametrize("trail", [Trail(span_ms=50), Trail(span_ms=120, every_ms=40)])
def test_every_revision_of_a_window_is_compared_with_the_same_earlier_rows(monkeypatch: pytest.MonkeyPatch, trail: Trail) -> None:
    monkeypatch.setattr(trails, "MIN_ROWS", test_trail.MIN_ROWS)
    n_revised = n_compared = 0
    for seed in range(10):
        dice = random.Random(seed)
        references = References()
        for model in ("a", "bb"):
            references.add(test_trail.own_reference(model))
        logs = [events(dice, 90) for _ in range(PARTITIONS)]
        own = revising(settings(None), trail=trail)
        places, _, published = places_of(own, NativeFormat(), compared_with, logs, lambda known=references: known)
        run(places, dice, 700)
        for revisions in by_window(published).values():
            assert len({msgspec.json.encode(compared) for _, compared in revisions.values()}) == 1
            n_revised += len(revisions) > 1
            n_compared += len(revisions) > 1 and revisions[0][1][1] is not None  # type: ignore[index]
    assert n_revised > 100
    assert n_compared > 20


def test_a_reference_is_learnt_from_rows_that_were_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain loop of test_learning knows nothing of late rows; nor does what is learnt."""
    for seed in range(8):
        world = test_learning.World(seed)
        world.logs = [events(world.dice, 90) for _ in range(PARTITIONS)]
        world.settings = revising(settings())
        made = places_of(world.settings, NativeFormat(), test_learning.judge, world.logs, References)
        world.places, world.partials, world.published = made
        run(world.places, world.dice, 700)
        learnt = {message.key: message.value for message in world.published if message.topic == "m.references"}
        assert learnt
        assert learnt == world.expected(), seed
        late = [item for item in map(_partial, world.partials.records) if item is not None and item.cut_ms is not None]
        assert late
        assert not any(item.discovery for item in late)


def _partial(record: object) -> partials.Partial | None:
    item = partials.decode(record.value)  # type: ignore[attr-defined]
    return item if isinstance(item, partials.Partial) else None


def counts(stage: PartitionStage) -> Counter[str]:
    found: Counter[str] = Counter()
    for key, n in stage.counters().items():
        if key[0] == "events":
            found[key[2]] += n
    return found


def test_a_partition_of_state_without_revisions_goes_on_with_them_and_back() -> None:
    """`late` may be changed at a restart: nothing of what was written before is refused."""
    dice = random.Random(2)
    log = events(dice, 60)
    own = settings(None)
    places, _, _ = places_of(own, NativeFormat(), count_rows, [log], References)
    run(places, dice, 200)
    before = counts(places[0].owner())
    for changed, outcome in ((revising(own), "revised"), (own, "late")):
        n = len(log.records)
        last = 1_000 * n  # beyond the former tick
        log.records += [event(n, "a", last, {"x": 1.0}), event(n + 1, "a", last - 40, {"x": 1.0}), tick(n + 2, last + 200)]
        made, _, _ = places_of(changed, NativeFormat(), count_rows, [log], References)
        for old, new in zip(places, made, strict=True):
            old.make = new.make
        run(places, dice, 100)
        now = counts(places[0].owner())
        assert now - before == Counter({"counted": 1, outcome: 1})
        before = now


def test_a_replay_publishes_the_revisions_and_alerts_of_a_run_with_crashes_byte_for_byte() -> None:
    """With the judge of the program, ids that repeat, and a rule on rows whose alerts late rows take back."""
    model = {"windows": [{"size": "10m"}, {"size": "30m", "step": "10m"}], "grace": "1m", "late": "revise", "revise_for": "1h"}
    config = Config.model_validate(
        {
            "sources": [{"topic": SOURCE, "clock": "event"}],
            "defaults": model | {"deduplicate": True, "learning": {"enabled": False}},
            "rules": {"traffic.low": {"below": 6}},
            "partials_partitions": 1,
        }
    )
    pipeline = build_pipeline(config)
    own = replace(pipeline.settings, app="m", retire_after_ms=ZOMBIE_MS)
    for seed in range(4):
        dice = random.Random(seed)
        logs = [minutes(dice, 70) for _ in range(PARTITIONS)]
        places, _, published = places_of(own, NativeFormat(), pipeline.judge, logs, References)
        run(places, dice, 800)
        replay = Replay(own, SOURCE, wire=NativeFormat(), judge=pipeline.judge)
        outcome = replay.run([(partition, record) for partition, log in enumerate(logs) for record in log.records])
        for kind, expected in (("m.results", outcome.results), ("m.alerts", outcome.alerts)):
            assert {(m.key, m.value) for m in published if m.topic == kind} == set(expected), seed
        assert min(outcome.revised, outcome.duplicate, outcome.revisions) > 3
        assert any(msgspec.json.decode(value)["data"]["supersedes"] for _, value in outcome.alerts)


def minutes(dice: random.Random, n: int) -> Topic:
    log = Topic()
    for i in range(n):
        time_ms = 60_000 * max(0, 2 * i - dice.choice([0, 0, 0, 15, 35]))
        body = {"model": "a", "time": time_ms, "id": f"{i}", "features": {"x": dice.random()}}
        value = log.records[dice.randrange(i)].value if i and dice.random() < 0.1 else msgspec.json.encode(body)
        log.records.append(StoredRecord(i, 60_000 * 2 * i, value, timestamp_type=LOG_APPEND_TIME))
    log.records.append(tick(n, 60_000 * (2 * n + 300)))
    return log
