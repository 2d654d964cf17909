"""What a window means: numbers against scipy and numpy from raw rows, rules, incidents, and records that a repeat shares."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from monitor.chance.chi_square import critical, survival
from monitor.columns import ColumnBatch, NoValue, specials_of
from monitor.distances import DISTANCES
from monitor.features import CategoryFeature
from monitor.findings import ClosedWindow, gather
from monitor.incidents import FLAPPING_WINDOWS
from monitor.layout import layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, Rule, RuleSet
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.windows import Window
from tests.shapes import number_feature_of

DICE = np.random.default_rng(3)
X_REF = DICE.normal(size=8_000)
C_REF = DICE.choice(["a", "b", "c"], 8_000, p=[0.5, 0.3, 0.2]).tolist()
LAYOUT = layout_of([number_feature_of("x", X_REF), CategoryFeature(name="c", values=("a", "b", "c"))])
HOUR = 3_600_000


def profile(x: np.ndarray, c: list[object]) -> Profile:
    made = Profile(LAYOUT)
    if len(x):
        made.update(ColumnBatch(len(x), x[None, :], specials_of(x[None, :]), [c], inspected=len(x)))
    return made


REFERENCE = Reference.build("m", "1", profile(X_REF, C_REF))


def window(x: np.ndarray, c: list[object], i: int = 0, **changes: object) -> ClosedWindow:
    closed = ClosedWindow("m", "1", Window((i + 1) * HOUR, HOUR, HOUR), profile(x, c), REFERENCE, 0, 0, 0, {})
    return closed._replace(**changes)  # type: ignore[arg-type]


def quiet(i: int = 0, n: int = 1_000) -> ClosedWindow:
    pick = slice(i * n % 7_000, i * n % 7_000 + n)
    return window(X_REF[pick], C_REF[pick], i)


def alerts(closed: ClosedWindow, before: bytes = b"", rules: RuleSet = DEFAULT_RULE_SET) -> tuple[list[dict], bytes]:
    judgement = judge_window(closed, before, rules)
    return [json.loads(value)["data"] for _, value in judgement.alerts], judgement.after


def with_rule(check: str, **fields: object) -> RuleSet:
    return RuleSet(dict(DEFAULT_RULES) | {check: Rule(**fields)})  # type: ignore[arg-type]


class TestNumbers:
    def test_distances_equal_an_independent_computation_from_raw_rows(self) -> None:
        x, c = DICE.normal(0.3, 1.2, 900), DICE.choice(["a", "b", "c", "d", "e"], 900).tolist()
        found = gather(window(x, c)).distances
        edges = np.unique(np.quantile(X_REF, np.arange(1, 10) / 10, method="inverted_cdf"))
        counts = [np.bincount(np.searchsorted(edges, v, side="left"), minlength=10) for v in (X_REF, x)]
        self.agree(found["x"], *counts)
        values = ["a", "b", "c", "d", "e"]
        self.agree(found["c"], *(np.array([list(col).count(v) for v in values]) for col in (C_REF, c)))

    def agree(self, found: dict[str, float], reference: np.ndarray, current: np.ndarray) -> None:
        k, m, n = len(reference), reference.sum(), current.sum()
        p, q = (reference + 0.5) / (m + 0.5 * k), (current + 0.5) / (n + 0.5 * k)
        psi = np.sum((q - p) * np.log(q / p))
        assert found["psi"] == pytest.approx(psi, rel=1e-9)
        assert found["psi_corrected"] == pytest.approx(psi - (k - 1) * (1 / n + 1 / m), rel=1e-9)
        assert found["js"] == pytest.approx(jensenshannon(reference, current, base=2), rel=1e-9)

    @pytest.mark.parametrize("dof", [1, 2, 3, 9, 20, 57, 200])
    def test_chi_square_agrees_with_scipy(self, dof: int) -> None:
        assert critical(dof, 0.001) == pytest.approx(stats.chi2.isf(0.001, dof), rel=1e-9)
        for x in (0.1, 1.0, dof, 3.0 * dof):
            assert survival(x, dof) == pytest.approx(stats.chi2.sf(x, dof), rel=1e-9, abs=1e-15)

    def test_the_result_record_says_what_was_counted(self) -> None:
        x = np.array([0.0, 1.0, 99.0, -99.0, np.nan])
        _, value = judge_window(window(x, ["a", None, "zz", "a", NoValue.WRONG_TYPE]), b"", DEFAULT_RULE_SET).results[0]
        record = json.loads(value)
        assert record["n"] == 5
        assert record["window"] == {"start_ms": 0, "end_ms": HOUR, "size_ms": HOUR, "step_ms": HOUR}
        number, category = record["features"]["x"], record["features"]["c"]
        assert (number["n"], number["nan"], number["below_min"], number["above_max"]) == (4, 1, 1, 1)
        assert (number["min"], number["max"], number["mean"]) == (-99.0, 99.0, pytest.approx(0.25))
        assert category["cells"] == {"values": ["a", "b", "c"], "counts": [2, 0, 0], "other": 0, "never_seen": 1}
        assert (category["missing"], category["wrong_type"], category["never_seen"]) == (1, 1, 1)
        assert set(number["distances"]) == {d.name for d in DISTANCES}
        assert set(category["distances"]) == {d.name for d in DISTANCES if "category" in d.kinds}

    def test_without_a_reference_rows_are_counted_and_traffic_is_judged(self) -> None:
        from monitor.layout import Layout

        empty = window(np.zeros(0), [], profile=Profile(Layout()), reference=None)
        assert [a["check"] for a in alerts(empty)[0]] == ["traffic.low"]


class TestRules:
    def test_the_reference_itself_never_alarms(self) -> None:
        assert alerts(window(X_REF, C_REF))[0] == []

    def test_quiet_windows_are_quiet(self) -> None:
        state = b""
        for i in range(7):
            found, state = alerts(quiet(i), state)
            assert found == []

    @pytest.mark.parametrize(
        ("check", "feature", "x", "c"),
        [
            ("drift.distribution", "x", lambda x: x + 1, None),
            ("health.missing", "c", None, lambda c: [None] * 100 + c[100:]),
            ("health.never_seen", "c", None, lambda c: ["new"] * 30 + c[30:]),
            ("health.out_of_range", "x", lambda x: np.where(np.arange(1_000) < 20, 50.0, x), None),
            ("schema.wrong_type", "c", None, lambda c: [NoValue.WRONG_TYPE] * 5 + c[5:]),
            ("schema.missing_feature", "c", None, lambda c: [NoValue.ABSENT] * len(c)),
        ],
    )
    def test_each_check_fires_on_its_fault(self, check: str, feature: str, x, c) -> None:
        good_x, good_c = X_REF[:1_000], C_REF[:1_000]
        found, _ = alerts(window(x(good_x) if x else good_x, c(good_c) if c else good_c))
        members = {(member["check"], member["feature"]) for alert in found for member in alert["members"]}
        assert (check, feature) in members
        assert {of for _, of in members} == {feature}

    def test_an_unexpected_name_and_lost_offsets_are_told(self) -> None:
        closed = quiet()
        closed.profile.unexpected = {"surprise": 1_000}
        [found] = alerts(closed._replace(lost_offsets=7))[0]
        assert found["root"]["check"] == found["check"] == "telemetry.gap"
        assert {(a["check"], a["severity"]) for a in found["members"]} == {
            ("schema.unexpected_feature", "notice"),
            ("telemetry.gap", "critical"),
        }

    def test_a_small_window_says_not_enough_data_instead_of_ok_or_alarm(self) -> None:
        judgement = judge_window(window(X_REF[:20] + 5, C_REF[:20]), b"", DEFAULT_RULE_SET)
        assert judgement.alerts == ()
        assert "drift.distribution" in json.loads(judgement.results[0][1])["insufficient"]

    def test_chance_at_a_small_sample_is_no_breach(self) -> None:
        """With threshold 0 every window breaches, unless the critical value stands in the way."""
        rules = with_rule("drift.psi", above=0.0)
        found = [a for i in range(20) for a in alerts(quiet(i, 200), b"", rules)[0] if a["check"] == "drift.psi"]
        assert len(found) <= 1

    def test_rules_may_be_for_some_features_only_or_switched_off(self) -> None:
        moved = window(X_REF[:1_000] + 1, C_REF[:1_000])
        for rule in ({"features": ("c*",)}, {"enabled": False}, {"models": ("other",)}):
            checks = {a["check"] for a in alerts(moved, b"", with_rule("drift.psi", above=0.2, **rule))[0]}
            assert "drift.psi" not in checks


class TestIncidents:
    RULES = RuleSet({"drift.psi": Rule(above=0.2, windows=2)})

    def run(self, pattern: str) -> list[tuple[int, str]]:
        """b breach, q quiet, i too few rows."""
        state, found = b"", []
        for i, letter in enumerate(pattern):
            n = 20 if letter == "i" else 1_000
            closed = window(X_REF[:n] + (2 if letter == "b" else 0), C_REF[:n], i)
            said, state = alerts(closed, state, self.RULES)
            found += [(i, a["status"]) for a in said]
        return found

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("bq", []),
            ("bb", [(1, "firing")]),
            ("bbbb", [(1, "firing")]),
            ("bbqb", [(1, "firing")]),
            ("bbqq", [(1, "firing"), (3, "resolved")]),
            ("bqbb", [(3, "firing")]),
            ("bib", [(2, "firing")]),
            ("bbiiqq", [(1, "firing"), (5, "resolved")]),
            ("bbqqbb", [(1, "firing"), (3, "resolved"), (5, "firing")]),
        ],
    )
    def test_so_many_in_a_row_open_and_close_an_incident(self, pattern: str, expected: list[tuple[int, str]]) -> None:
        assert self.run(pattern) == expected

    def test_resolved_names_the_incident_that_fired(self) -> None:
        firing, state = alerts(window(X_REF[:1_000] + 2, C_REF[:1_000], 0))
        resolved, after = alerts(quiet(1), state)
        assert {a["incident_id"] for a in firing} == {a["incident_id"] for a in resolved}
        for i in range(2, 2 + FLAPPING_WINDOWS):
            _, after = alerts(quiet(i), after)
        assert after == b""

    def test_a_firing_alert_is_its_own_incident(self) -> None:
        judgement = judge_window(window(X_REF[:1_000] + 2, C_REF[:1_000]), b"", DEFAULT_RULE_SET)
        for _, value in judgement.alerts:
            event = json.loads(value)
            assert event["id"] == event["data"]["incident_id"]
            assert event["specversion"] == "1.0"
            assert event["time"] == "1970-01-01T01:00:00Z"

    def test_the_same_window_gives_the_same_bytes(self) -> None:
        closed = window(X_REF[:1_000] + 2, C_REF[:1_000])
        assert judge_window(closed, b"", DEFAULT_RULE_SET) == judge_window(closed, b"", DEFAULT_RULE_SET)
