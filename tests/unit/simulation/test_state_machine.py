"""The same world under hypothesis: it chooses what happens, and shrinks what breaks an invariant to the shortest story."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulation.oracle import expect
from tests.simulation.owner import Owner
from tests.simulation.scenario import ZOMBIE_MS, Scenario
from tests.simulation.world import Faults, Process, World


class Group(RuleBasedStateMachine):
    """Processes that live, die and sleep on two source partitions and one of `partials`."""

    @initialize(seed=st.integers(0, 1 << 16), is_live=st.booleans(), duplicates=st.booleans())
    def begin(self, seed: int, is_live: bool, duplicates: bool) -> None:
        faults = Faults(in_flight=0.5, duplicates=0.1 * duplicates, lost_disk=0.2, skew=0.5)
        self.world = World(seed, Scenario.of({"x": 2}, is_live=is_live, end_ms=180), faults, n_events=12)
        self.world.rebalance()

    def _owners(self) -> list[tuple[Process, Owner]]:
        return [(process, owner) for process in self.world.processes for owner in process.owners.values()]

    @rule(which=st.integers(0, 2), times=st.integers(1, 6))
    def produce(self, which: int, times: int) -> None:
        producers = self.world.producers
        for _ in range(times):
            producers[which % len(producers)].produce(self.world.now_ms)

    @rule(which=st.integers(0, 20), n=st.integers(1, 30))
    def step(self, which: int, n: int) -> None:
        """One owner, a paused one perhaps that has woken up, does some things while nobody else does anything."""
        for _ in range(n):
            owners = self._owners()
            if not owners:
                return
            self.world.pass_time()
            owners = self._owners()
            if owners:
                self.world.advance(*owners[which % len(owners)])

    @rule(n=st.integers(1, 60))
    def everybody(self, n: int) -> None:
        for _ in range(n):
            self.world.pass_time()
            for process, owner in self._owners():
                if process in self.world.processes:
                    self.world.advance(process, owner)

    @rule(which=st.integers(0, 5))
    @precondition(lambda self: self.world.processes)
    def kill(self, which: int) -> None:
        self.world.kill(self.world.processes[which % len(self.world.processes)])

    @rule(which=st.integers(0, 5))
    @precondition(lambda self: self.world.members)
    def pause(self, which: int) -> None:
        """A process that the coordinator hears of no more: others take over, and it goes on until its guard ends it."""
        process = self.world.members[which % len(self.world.members)]
        process.ends_ms = self.world.now_ms + ZOMBIE_MS
        self.world.rebalance()

    @rule()
    def take_over(self) -> None:
        self.world.rebalance()

    @rule(which=st.integers(0, 2))
    def compact(self, which: int) -> None:
        self.world.compact(self.world.places[which])

    @rule(which=st.integers(0, 5))
    @precondition(lambda self: self.world.members)
    def keep_a_copy_of_a_disk(self, which: int) -> None:
        members = self.world.members
        self.world.free_disks.append({name: store.copy() for name, store in members[which % len(members)].disk.items()})

    @rule(ms=st.sampled_from([3, 30, 300]))
    def wait(self, ms: int) -> None:
        self.world.pass_time(ms)

    @invariant()
    def what_is_published_never_changes_and_is_what_the_log_says(self) -> None:
        expected = expect(self.world.scenario, self.world.logs)
        by_key: dict[bytes, set[bytes]] = defaultdict(set)
        for topic in ("results", "alerts"):
            for key, value in self.world.published[topic]:
                by_key[topic.encode() + key].add(value)
        assert all(len(values) == 1 for values in by_key.values())
        if not self.world.scenario.is_live:
            for key, value in self.world.published["results"]:
                assert f'"n":{expected.results[key]["n"]},'.encode() in value

    @invariant()
    def a_local_store_is_a_prefix_of_its_changelog(self) -> None:
        """I3, whoever wrote that; rows are in it up to where meta says, and never less (I2)."""
        for process in self.world.processes:
            for place in self.world.places:
                store = process.disk.get(place.name)
                if store is not None and store.offset is not None:
                    assert store.differences(place.changelog) == []

    def teardown(self) -> None:
        self.world.finish()
        assert self.world.anomalies() == []


Group.TestCase.settings = settings(max_examples=settings().max_examples // 5, stateful_step_count=50)
TestGroup = Group.TestCase
