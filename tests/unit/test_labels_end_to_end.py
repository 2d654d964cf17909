"""From records of predictions and labels to reports and alerts: whoever dies, wakes up or loses a disk, they are those of a replay."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from monitor.alerts import Alert
from monitor.backtest import backtest_reports, read_reports
from monitor.errors import InputError
from monitor.findings import ClosedWindow, Judgement
from monitor.formats.native import NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement, judge_performance
from monitor.performance import Needed
from monitor.policy import Policies, RuleSet
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.replay import Labels, Replay, ReplayOutcome
from monitor.results.operation import operation_of
from monitor.rules import Rule
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Labelling, Settings
from monitor.windows import WindowSpec
from tests.simulation import Place, run
from tests.simulation.joins import PANE_MS, RETENTION_MS, SOURCES, Logs, World, draw, references, settings

RULES = RuleSet({"performance.accuracy": Rule(below=0.99, segments=("*",)), "performance.f1": Rule(below=0.99, over=2)})

NEEDED = Needed(2, 0.0)


def reporting() -> Settings:
    own = settings()
    specs = (WindowSpec(PANE_MS, PANE_MS), WindowSpec(3 * PANE_MS, PANE_MS))
    labelling = Labelling(RETENTION_MS, (0, RETENTION_MS // 4, RETENTION_MS))
    return replace(own, defaults=replace(own.defaults, specs=specs, labelling=labelling))


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    return Judgement((), (), b"", (), operation=operation_of(closed, {}) if closed.profile.n else b"")


def performance(closed: ClosedOutcomes, before: bytes) -> PerformanceJudgement:
    return judge_performance(closed, before, RULES, NEEDED)


@dataclass
class WholeWorld(World):
    """With stage 2 behind it, and what was published."""

    settings: Settings = field(default_factory=reporting)
    published: list[Message] = field(default_factory=list)

    def places(self) -> list[Place]:
        return [*super().places(), Place(self.partials, self._merge, self.published.append)]

    def _merge(self, epoch: int, items: list[tuple[bytes, bytes]], now_ms: int) -> PartitionStage:
        return MergePartition(
            self.settings, 0,
            topology={"p": SOURCES["p"]}, epoch=epoch, judge=judge, judge_performance=performance, references=references(),
            rows=items, now_ms=now_ms,
        )  # fmt: skip


def replayed(logs: Logs) -> ReplayOutcome:
    events, labels = ([(p, r) for (topic, p), log in logs.items() if topic == of for r in log.records] for of in "pl")
    known = [references().at("m", version, 0) for version in ("1", "2")]
    engine = Replay(
        reporting(),
        "p",
        wire=NativeFormat(),
        judge=judge,
        references=[reference for reference in known if reference is not None],
        future_guard=False,
        labels=Labels(labels, NativeLabelFormat(), performance, "l", has_timestamps=False),
    )
    return engine.run(events)


@pytest.mark.parametrize("seed", range(8))
def test_reports_and_alerts_are_those_of_a_replay(seed: int) -> None:
    dice = random.Random(seed)
    world = WholeWorld(draw(dice), dice)
    run(world.places(), dice, 1_200)
    outcome = replayed(world.logs)
    for topic, expected in (("a.results", outcome.results), ("a.alerts", outcome.alerts)):
        assert {(m.key, m.value) for m in world.published if m.topic == topic} == set(expected), topic
    assert outcome.reports == len(outcome.results) > 100
    assert len(outcome.alerts) > 3


@pytest.mark.parametrize("seed", range(4))
def test_the_live_rules_on_the_live_reports_give_exactly_the_live_alerts(seed: int) -> None:
    """Of all ages and segments, with what later reports restate and take back; evidence and all, whatever the order of the lines."""
    outcome = replayed(draw(random.Random(seed)))
    lines, live = [value for _, value in outcome.results], [msgspec.json.decode(value, type=Alert) for _, value in outcome.alerts]
    assert any(alert.data.supersedes for alert in live) or seed
    for order in (lines, lines[::-1], [*lines, b"", *lines]):
        found = backtest_reports(read_reports(order), Policies(RULES), lambda _: NEEDED)
        assert sorted(found.alerts, key=lambda alert: alert.id) == sorted(live, key=lambda alert: alert.id)
        assert (found.changed, found.unmeasured) == (0, set())


def test_of_a_compacted_topic_the_last_reports_are_judged_under_their_own_numbers() -> None:
    outcome = replayed(draw(random.Random(0)))
    newest = dict(outcome.results)
    found = backtest_reports(read_reports(newest.values()), Policies(RULES), lambda _: NEEDED)
    live = {alert.id for alert in (msgspec.json.decode(value, type=Alert) for _, value in outcome.alerts)}
    assert {alert.id for alert in found.alerts} & live


def test_other_rules_on_the_live_reports_give_what_they_would_have_given_live(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = draw(random.Random(2))
    lines = [value for _, value in replayed(logs).results]
    other = RuleSet({"performance.accuracy": Rule(below=0.7), "performance.auc": Rule(below=0.9, segments=("tags.t=*",))})
    monkeypatch.setattr("tests.unit.test_labels_end_to_end.RULES", other)
    live = [msgspec.json.decode(value, type=Alert) for _, value in replayed(logs).alerts]
    found = backtest_reports(read_reports(lines), Policies(other), lambda _: NEEDED)
    assert sorted(found.alerts, key=lambda alert: alert.id) == sorted(live, key=lambda alert: alert.id)
    assert {alert.data.check for alert in live} == set(other.rules)
    assert found.changed == len(read_reports(lines)) > 0


def test_a_line_that_is_no_report_is_told() -> None:
    with pytest.raises(InputError, match="line 2 is no report of performance"):
        read_reports([b"", b'{"type": "performance", "model": 1}'])


def test_the_order_in_which_a_file_has_its_rows_matters_as_little_as_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = draw(random.Random(3))
    expected = replayed(logs)
    for rows in (1, 7):
        monkeypatch.setattr("monitor.replay.BATCH_ROWS", rows)
        found = replayed(logs)
        assert (found.results, Counter(found.joined)) == (expected.results, Counter(expected.joined))
    other = {place: logs[place] for place in sorted(logs, reverse=True)}
    assert set(replayed(other).results) == set(expected.results)


def test_a_replay_of_labels_can_be_read_only_from_what_can_be_read_twice() -> None:
    labels = Labels(iter([(0, StoredRecord(0, 0, b""))]), NativeLabelFormat(), performance)
    engine = Replay(reporting(), "p", wire=NativeFormat(), judge=judge, labels=labels)
    with pytest.raises(TypeError, match="can be read only once"):
        engine.run([])
