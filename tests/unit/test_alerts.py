"""The wire form of alerts."""

import hashlib
import json
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from monitor.alerts import Alert, iso
from monitor.cli.kafka import line
from monitor.features import CategoryFeature
from monitor.findings import Judgement
from monitor.layout import layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, Rule, RuleSet
from monitor.reference import Reference
from monitor.sketches.bounded import key_hash
from tests.closed_windows import HOUR_MS, closed, profile_of, reference_of

DICE = np.random.default_rng(6)
REFERENCE = reference_of({"age": DICE.normal(40, 10, 3000).tolist(), "country": ["DE"] * 2000 + ["FR"] * 700 + ["IT"] * 300})
QUIET = {"age": DICE.normal(40, 10, 500).tolist(), "country": (["DE"] * 20 + ["FR"] * 7 + ["IT"] * 3) * 16 + ["DE"] * 20}
SHIFTED = {**QUIET, "age": DICE.normal(60, 10, 500).tolist()}
NEW = {**QUIET, "country": ["DE"] * 250 + ["ES"] * 150 + ["PT"] * 100}


def judge(columns: Any, before: bytes = b"", at: int = 0, rules: RuleSet = DEFAULT_RULE_SET, **changes: Any) -> Judgement:
    return judge_window(closed(REFERENCE, columns, at, **changes), before, rules)


def alerts(judgement: Judgement) -> dict[tuple[str, str], dict[str, Any]]:
    events = [json.loads(value) for _, value in judgement.alerts]
    return {(event["data"]["status"], event["data"]["check"]): event for event in events}


FIRING = alerts(judge(SHIFTED))["firing", "drift.distribution"]


def test_it_is_a_cloud_event_about_the_feature_at_the_windows_end() -> None:
    assert {k: FIRING[k] for k in ("specversion", "type", "source", "subject", "time", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "ml.monitor.alert.firing.v1",
        "source": "/monitor/credit/7",
        "subject": "feature/age",
        "time": "1970-01-01T01:00:00Z",
        "datacontenttype": "application/json",
    }


def test_it_holds_every_field_of_the_contract() -> None:
    assert set(FIRING["data"]) == {
        "status", "severity", "model", "version", "segment", "check", "feature", "view", "value", "threshold", "critical_value", "p_value",
        "n", "n_ref", "window", "reference", "why", "evidence", "decision", "incident_id", "opened_ms", "windows", "supersedes", "over",
        "root", "members", "n_members", "n_features", "escalations", "is_flapping", "owner", "routes", "policy", "policy_name", "policies",
        "diagnosis", "source_offsets",
    }  # fmt: skip
    assert FIRING["data"]["window"] == {
        "start": "1970-01-01T00:00:00Z", "end": "1970-01-01T01:00:00Z", "start_ms": 0, "end_ms": HOUR_MS, "kind": "tumbling",
        "revision": 0, "completeness": 1.0, "late_dropped": 0,
    }  # fmt: skip
    assert FIRING["data"]["reference"] == {"id": "credit-7", "sha256": REFERENCE.sha256}
    assert FIRING["data"]["policy"] == DEFAULT_RULE_SET.sha256
    assert (FIRING["data"]["policy_name"], FIRING["data"]["policies"]) == ("default", {})


def test_it_decodes_as_its_type_with_nothing_unknown() -> None:
    for _, value in judge(SHIFTED).alerts:
        event = msgspec.json.decode(value, type=Alert)
        assert orjson.dumps(msgspec.to_builtins(event), option=orjson.OPT_SORT_KEYS) == value


def test_no_clock_is_read() -> None:
    assert "closed_at" not in FIRING["data"]["window"]
    assert "watermark_lag_s" not in FIRING["data"]["window"]


def test_the_id_is_the_hash_of_what_it_is_about() -> None:
    about = ["credit", "7", "all", 0, HOUR_MS, HOUR_MS, "drift.distribution", "age", 0, "firing"]
    assert FIRING["id"] == hashlib.sha256(orjson.dumps(about)).hexdigest()
    assert FIRING["data"]["incident_id"] == FIRING["id"]


@pytest.mark.parametrize("change", [{"version": "8"}, {"revision": 1}, {"model": "fraud"}])
def test_whatever_it_is_about_changes_the_id(change: dict[str, Any]) -> None:
    other = alerts(judge(SHIFTED, **change))["firing", "drift.distribution"]
    assert other["id"] != FIRING["id"]


def test_ids_of_different_alerts_differ() -> None:
    fired = [judge(SHIFTED), judge(SHIFTED, at=1), judge(NEW), judge({})]
    fired += [judge(QUIET, one.after, at=1) for one in fired]
    ids = [event["id"] for one in fired for event in alerts(one).values()]
    assert len(set(ids)) == len(ids) == 8


def test_resolved_names_the_incident_of_its_firing() -> None:
    fired = judge(SHIFTED)
    resolved = alerts(judge(QUIET, fired.after, at=1))["resolved", "drift.distribution"]
    assert resolved["type"] == "ml.monitor.alert.resolved.v1"
    assert resolved["data"]["incident_id"] == FIRING["id"] != resolved["id"]
    assert resolved["data"]["opened_ms"] == HOUR_MS


def test_firing_and_resolved_share_a_key() -> None:
    fired = judge(SHIFTED)
    keys = {key for key, _ in fired.alerts}
    assert b"credit|7|all|drift.distribution|age" in keys
    assert keys == {key for key, _ in judge(QUIET, fired.after, at=1).alerts}


def test_only_severities_of_firing_alerts_are_told() -> None:
    fired = judge(SHIFTED)
    assert fired.alert_severities == tuple(json.loads(value)["data"]["severity"] for _, value in fired.alerts)
    assert judge(QUIET, fired.after, at=1).alert_severities == ()


def test_why_names_the_cells_that_contribute_most() -> None:
    why = FIRING["data"]["why"]
    contributions = [reason["contribution"] for reason in why]
    assert contributions == sorted(contributions, reverse=True)
    assert len(why) == 5
    edges = REFERENCE.layout.features[0].reported  # type: ignore[union-attr]
    assert why[0]["bin"] == f"({edges[-1]:.12g}, inf)"
    assert why[0]["cur"] == pytest.approx(np.mean(np.array(SHIFTED["age"]) > edges[-1]))
    assert why[0]["ref"] == pytest.approx(0.1)


def test_values_that_the_reference_does_not_have_are_one_reason() -> None:
    why = alerts(judge(NEW, rules=RuleSet({"drift.psi": Rule(above=0.2)})))["firing", "drift.psi"]["data"]["why"]
    assert why[0]["bin"] == "(never seen)"
    assert (why[0]["ref"], why[0]["cur"]) == (0.0, 0.5)
    assert {reason["bin"] for reason in why} <= {"(never seen)", "FR", "IT", "DE"}


@pytest.mark.parametrize(
    "check", ["drift.psi", "drift.psi_eps", "drift.kl", "drift.js", "drift.hellinger", "drift.tv", "drift.chi2"]
)
def test_the_contributions_of_few_cells_add_up_to_the_distance(check: str) -> None:
    window = closed(REFERENCE, {**QUIET, "country": ["DE"] * 100 + ["IT"] * 400})
    data = alerts(judge_window(window, b"", RuleSet({check: Rule(above=0.1)}, psi_eps=0.01)))["firing", check]["data"]
    total = sum(reason["contribution"] for reason in data["why"])
    assert total == pytest.approx(data["value"] ** (2 if check in {"drift.js", "drift.hellinger"} else 1), rel=1e-9)


def test_of_the_largest_difference_the_reason_is_its_cell() -> None:
    window = closed(REFERENCE, {**QUIET, "country": ["DE"] * 100 + ["IT"] * 400})
    data = alerts(judge_window(window, b"", RuleSet({"drift.linf": Rule(above=0.1)})))["firing", "drift.linf"]["data"]
    assert [(reason["bin"], reason["contribution"]) for reason in data["why"]] == [("IT", pytest.approx(0.7))]
    assert data["value"] == pytest.approx(0.7)


def test_a_distance_of_fine_cells_names_no_reason() -> None:
    fired = alerts(judge_window(closed(REFERENCE, SHIFTED), b"", RuleSet({"drift.ks": Rule(above=0.1)})))
    assert fired["firing", "drift.ks"]["data"]["why"] == []


def test_a_finding_about_the_model_has_no_feature() -> None:
    event = alerts(judge({}))["firing", "traffic.low"]
    assert (event["subject"], event["data"]["feature"], event["data"]["why"]) == ("model", None, [])


def test_rows_that_were_not_judged_lower_the_completeness() -> None:
    data = alerts(judge(SHIFTED, rows_other_layout=300, lost_offsets=200))["firing", "telemetry.gap"]["data"]
    assert data["window"]["completeness"] == 0.5


def test_without_a_reference_the_alert_says_so() -> None:
    [(_, value)] = judge_window(closed(None, {}), b"", DEFAULT_RULE_SET).alerts
    assert json.loads(value)["data"]["reference"] == {"id": None, "sha256": None}


def test_a_hopping_window_is_named_so() -> None:
    window = closed(REFERENCE, SHIFTED).window._replace(size_ms=24 * HOUR_MS)
    assert alerts(judge(SHIFTED, window=window))["firing", "drift.distribution"]["data"]["window"]["kind"] == "hopping"


def test_two_breaches_in_a_row_are_counted() -> None:
    rules = RuleSet({"drift.psi": Rule(above=0.2, windows=2)})
    first = judge(SHIFTED, rules=rules)
    second = judge(SHIFTED, first.after, 1, rules)
    assert first.alerts == ()
    assert alerts(second)["firing", "drift.psi"]["data"]["windows"] == 2


@pytest.mark.parametrize("time_ms", [0, 1, -1, 1_735_689_600_123, -62_135_596_800_000, 253_402_300_799_999])
def test_times_are_rfc_3339_to_the_millisecond(time_ms: int) -> None:
    moment = datetime.fromisoformat(iso(time_ms))
    assert (moment - datetime.fromisoformat("1970-01-01T00:00:00Z")).total_seconds() * 1000 == pytest.approx(time_ms, abs=0.1)


def test_an_end_beyond_the_calendar_is_its_last_moment() -> None:
    assert iso(1 << 60) == "9999-12-31T23:59:59.999Z"
    assert iso(-(1 << 60)) == "0001-01-01T00:00:00Z"


def test_never_seen_values_are_the_reasons_of_their_alert_by_hash() -> None:
    alert = alerts(judge(NEW))["firing", "health.never_seen"]
    assert alert["data"]["why"] == [
        {"bin": f"#{key_hash(name):016x}", "ref": 0.0, "cur": share, "contribution": share}
        for name, share in (("ES", 0.3), ("PT", 0.2))
    ]


def test_never_seen_values_are_named_where_the_feature_may() -> None:
    feature = CategoryFeature(name="country", values=("DE",), keep_values=True)
    reference = Reference.build("credit", "7", profile_of(layout_of([feature]), {"country": ["DE"] * 1000}))
    window = closed(reference, {"country": ["DE"] * 90 + [f"new {i}" for i in range(7) for _ in range(i + 1)]})
    alert = alerts(judge_window(window, b"", DEFAULT_RULE_SET))["firing", "health.never_seen"]
    assert [reason["bin"] for reason in alert["data"]["why"]] == ["new 6", "new 5", "new 4", "new 3", "new 2"]
    assert alert["data"]["why"][0]["cur"] == 7 / 118


def test_its_line_for_people_counts_the_other_findings() -> None:
    text = line("alerts", FIRING)
    assert text.startswith("1970-01-01T01:00:00Z firing   critical credit 7 drift.distribution age: ")
    assert text.endswith(f"n=500, {FIRING['data']['n_members'] - 1} more findings)")
    assert FIRING["data"]["n_members"] > 1
    assert "more findings" not in line("alerts", alerts(judge({}))["firing", "traffic.low"])
