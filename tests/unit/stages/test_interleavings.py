"""One test per rule of the state protocol, over random interleavings of owners, zombies and crashes between single records."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import msgspec
import pytest

from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.segments import Key, Segmentation
from monitor.windows import WindowSpec
from tests.defects import planted
from tests.simulation import PARTITIONS, BareFormat, Topic, count_rows, places_of, record, run, settings

SPECS = (WindowSpec(10, 10), WindowSpec(30, 10))
GRACE_MS = 4
BY_TAG = Segmentation((Key(name="tags.t"),), (("u",), ("v",)))
TAGS = ("u", "v", "w")


class World:
    """Two source partitions, one partition of `partials`, and what was published."""

    def __init__(self, seed: int, n_events: int = 60, *, segmented: bool = False) -> None:
        self.dice = random.Random(seed)
        self.references = References()
        self.tags = TAGS if segmented else (None,)
        for model in "ab" if segmented else "":
            self.references.add(Reference.build(model, "1", Profile(Layout((), (BY_TAG,)))))
        self.settings = settings(*SPECS, grace_ms=GRACE_MS)
        self.logs = [self._events(n_events) for _ in range(PARTITIONS)]
        made = places_of(self.settings, BareFormat(), count_rows, self.logs, lambda: self.references)
        self.places, self.partials, self.published = made

    def _events(self, n: int) -> Topic:
        log = Topic()
        for i in range(n):
            time = max(0, i * 2 + self.dice.randrange(-12, 4))
            log.records.append(record(i, self.dice.choice("ab"), time, tag=self.dice.choice(self.tags)))
        log.records.append(record(n, "tick", 1_000))
        return log

    def expected(self) -> tuple[dict[bytes, Counter[str]], int]:
        """Rows per window and tag, `late` those while it was current; and all late rows: by a plain loop over the logs."""
        panes: Counter[tuple[str, int, str]] = Counter()
        late: Counter[tuple[str, int, str]] = Counter()
        for log in self.logs:
            clock = -(10**9)
            for item in log.records:
                model, time, *tag = msgspec.json.decode(item.value or b"")
                clock = max(clock, time)
                if model == "tick":
                    continue
                if time // 10 * 10 + 10 + GRACE_MS <= clock:
                    late[model, clock // 10 * 10, "late"] += 1
                else:
                    panes[model, time // 10 * 10, tag[0] if tag else ""] += 1
        windows: dict[bytes, Counter[str]] = defaultdict(Counter)
        for (model, pane, segment), n in (*panes.items(), *late.items()):
            for spec in SPECS:
                for w in spec.windows_of(pane, pane + 1):
                    windows[f"{model}|{w.start_ms}|{w.size_ms}".encode()][segment] += n
        return windows, late.total()

    def wrong(self) -> list[str]:
        """Everything that is not as it must be."""
        windows, _ = self.expected()
        by_key: dict[bytes, set[bytes]] = defaultdict(set)
        for message in self.published:
            assert message.key is not None and message.value is not None
            by_key[message.key].add(message.value)
        problems = [f"CHANGED {key!r}" for key, values in by_key.items() if len(values) > 1]
        problems += [f"MISSING {key!r}" for key in windows if key not in by_key]
        for key, values in by_key.items():
            found, rows = msgspec.json.decode(next(iter(values))), windows.get(key, Counter())
            by_segment = [rows["u"], rows["v"], rows["w"]] if len(self.tags) > 1 else []
            expected = (rows.total() - rows["late"], by_segment, rows["late"])
            if (found["n"], found["segments"] or [0] * len(by_segment), found["late"]) != expected:
                problems.append(f"WRONG {key!r} {found} {rows}")
        return problems


def failures(n_seeds: int, *, segmented: bool = False, **kwargs: bool) -> list[tuple[int, list[str]]]:
    found = []
    for seed in range(n_seeds):
        world = World(seed, segmented=segmented)
        run(world.places, world.dice, 700, **kwargs)
        problems = world.wrong()
        if problems:
            found.append((seed, problems))
    return found


def test_every_window_is_exact_and_never_changes_whoever_dies_or_wakes_up() -> None:
    assert failures(150) == []


def test_so_are_its_segments_which_are_stored_and_sent_in_blocks_of_their_own() -> None:
    assert failures(100, segmented=True) == []


def test_counted_and_late_rows_are_functions_of_the_log() -> None:
    for seed in range(40):
        world = World(seed)
        run(world.places, world.dice, 300)
        stages = [place.owner() for place in world.places[:PARTITIONS]]
        counts: Counter[str] = Counter()
        for stage in stages:
            for key, n in stage.counters().items():
                if key[0] == "events":
                    counts[key[2]] += n
        late = world.expected()[1]
        assert counts["late"] == late
        assert counts["counted"] + late == sum(len(log.records) - 1 for log in world.logs)


@pytest.mark.parametrize("name", ["skip_row_offset_check", "last_writer_wins", "epoch_first"])
def test_a_planted_defect_is_found(name: str) -> None:
    with planted(name):
        assert failures(60)


def test_meta_that_goes_out_with_its_rows_is_found() -> None:
    assert failures(60, meta_first=True)
