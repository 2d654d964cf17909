"""Commands as a user types them: help, exit codes, what goes where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    [], ["init"], ["config"], ["config", "check"], ["config", "show"], ["reference"], ["reference", "infer"], ["reference", "build"], ["reference", "publish"],
    ["reference", "show"], ["reference", "diff"], ["replay"], ["policy"], ["policy", "check"], ["policy", "publish"], ["policy", "remove"], ["policy", "show"],
    ["backtest"], ["topics"], ["topics", "create"], ["topics", "check"], ["tail"], ["traffic"], ["run"], ["demo"],
    ["notify"], ["notify", "status"], ["ack"],
    ["state"], ["state", "info"], ["state", "verify"],
]  # fmt: skip


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    done = run(*words, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_command_starts_without_a_broker_client() -> None:
    code = "import sys, monitor.cli; print(*[m for m in ('faust', 'confluent_kafka', 'pyarrow.csv') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "faust" not in done.stdout
    assert "confluent_kafka" not in done.stdout


def test_init_writes_a_file_that_is_valid_and_never_overwrites(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    assert run("config", "check", cwd=tmp_path).returncode == 0
    shown = run("config", "show", cwd=tmp_path)
    assert "drift.distribution:" in shown.stdout
    again = run("init", cwd=tmp_path)
    assert (again.returncode, "exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["config", "check"], 78, "no such file; `monitor init` writes one"),
        (["run"], 78, "no such file"),
        (["notify"], 78, "no such file"),
        (["ack", "0123456789"], 78, "no such file"),
        (["notify", "status", "--config", "a.yaml"], 78, "a.yaml: no such file"),
        (["notify", "--config", "b.yaml", "status"], 78, "b.yaml: no such file"),
        (["state", "info", "--dir", "none"], 78, "state.dir: none: no such directory"),
        (["state", "verify", "--nonsense"], 2, "No such option"),
        (["reference", "build", "none.csv", "--model", "m", "--model-version", "1"], 2, "none.csv: no such file"),
        (["reference", "show", "none.json"], 2, "none.json: no such file"),
        (["reference", "diff", "none.json", "none.json"], 2, "none.json: no such file"),
        (["reference", "diff", "a", "b", "--fail-on", "pis>1"], 2, "'pis' is no distance; it is one of psi,"),
        (["reference", "diff", "a", "b", "--fail-on", "psi"], 2, "a distance, > and a number are expected, such as psi>0.2"),
        (["reference", "build"], 2, "Missing"),
        (["policy", "check", "none.yaml"], 78, "none.yaml: no such file or folder"),
        (["policy", "check"], 2, "Missing"),
        (["backtest", "none.ndjson"], 2, "Missing"),
        (["backtest", "none.ndjson", "--policy", "none.yaml"], 78, "none.yaml: no such file or folder"),
        (["reference", "infer", "none.csv"], 2, "none.csv: no such file"),
        (["reference", "infer", "none.csv", "--class-score", "p_yes"], 2, "write class=column, such as --class-score yes=p_yes"),
    ],
)
def test_a_mistake_is_a_sentence_and_an_exit_code(tmp_path: Path, words: list[str], code: int, message: str) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_to_tell_and_an_id_that_is_too_short_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "monitor.yaml").write_text("app: a\n")
    done = run("notify", cwd=tmp_path)
    assert (done.returncode, "notify.routes: nobody is to be told; docs/notify.md" in done.stderr) == (78, True)
    done = run("ack", "0123", cwd=tmp_path)
    assert (done.returncode, "at least the first 8 characters of an alert's id" in done.stderr) == (2, True)


def test_replay_says_what_became_of_every_record(tmp_path: Path) -> None:
    rows = [{"model": "m", "time": 1_735_689_600_000 + i * 60_000, "features": {"x": float(i % 50)}} for i in range(600)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "train.ndjson").write_text("\n".join(lines) + "\n")
    lines[7] = "{broken"
    (tmp_path / "events.ndjson").write_text("\n".join(lines) + "\n")
    assert run("init", "--model", "m", cwd=tmp_path).returncode == 0
    built = run(
        "reference", "build", "train.ndjson", "--model", "m", "--model-version", "1", "--time-column", "time", cwd=tmp_path
    )
    assert built.returncode == 0, built.stderr
    assert len(built.stdout.strip()) == 64
    done = run("replay", "--reference", "reference.json", "--events", "events.ndjson", "--fail-on", "critical", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "600 records: 599 counted, 0 late, 1 rejected, 1 malformed_json" in done.stderr
    assert "still open" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "results.ndjson").read_text().count("\n") > 5


def test_what_is_inferred_can_be_edited_and_pasted_and_is_obeyed(tmp_path: Path) -> None:
    rows = [
        {
            "time": 1_735_689_600_000 + i,
            "age": i % 60,
            "mail": f"a{i % 7}@x.org",
            "tags": ["a"] * (i % 3),
            "p": i / 600,
            "q": 1 - i / 600,
        }
        for i in range(600)
    ]
    (tmp_path / "train.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--time-column", "time", "--class-score", "yes=p", "--class-score", "no=q"]
    done = run("reference", "infer", "train.ndjson", *columns, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "wrote features.yaml: 6 features; paste it under models.<model>.features of monitor.yaml" in done.stderr
    text = (tmp_path / "features.yaml").read_text()
    assert "age: {kind: integer, max_missing_ratio: 0.015667, minimum: 0, maximum: 59}" in text
    assert text.startswith("# train.ndjson: 600 rows.")
    edited = text.replace("mail: {", "mail: {pii: hash, ").replace("kind: list", "kind: list, pii: drop")
    indented = "".join(f"      {line}\n" for line in edited.splitlines())
    (tmp_path / "monitor.yaml").write_text(f"models:\n  m:\n    features:\n{indented}")
    assert run("config", "check", cwd=tmp_path).returncode == 0
    built = run("reference", "build", "train.ndjson", "--model", "m", "--model-version", "1", *columns, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    made = json.loads((tmp_path / "reference.json").read_text())
    features = {feature["name"]: feature for feature in made["features"]}
    assert sorted(features) == ["@confidence", "@score[no]", "@score[yes]", "age", "mail"]
    assert features["age"]["is_integral"]
    assert "x.org" not in json.dumps(made)
    replayed = run(
        "replay", "--reference", "reference.json", "--events", "train.ndjson", *columns, "--end-of-input", cwd=tmp_path
    )
    assert replayed.returncode == 0, replayed.stderr
    result = json.loads((tmp_path / "results.ndjson").read_text())
    assert result["features"]["@confidence"]["n"] == 600


def test_build_show_and_diff_say_what_a_reference_holds(tmp_path: Path) -> None:
    for name, shift in (("old", 0.0), ("new", 3.0)):
        lines = [
            f"{1_735_689_600_000 + i * 18_000},{i % 50 + shift},{'ab'[i % 2]},{'ab'[i % 3 % 2]},{i % 2 * 0.5 + 0.25}"
            for i in range(6_000)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["time,x,label,prediction,score", *lines]) + "\n")
        built = run(
            "reference", "build", f"{name}.csv", "--model", "m", "--model-version", name, "-o", f"{name}.json", "--time-column", "time",
            "--label-column", "label", "--prediction-column", "prediction", "--score-column", "score", "--window", "30m",
            "--positive-class", "b", cwd=tmp_path,
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
    shown = run("reference", "show", "old.json", cwd=tmp_path)
    assert len(shown.stdout.strip()) == 64
    assert "φ: how far its 60 windows of 30m scatter" in shown.stderr
    assert "performance (binary of b, 6,000 rows): accuracy 0.5" in shown.stderr
    assert "labels: a 3,000, b 3,000" in shown.stderr
    quiet = run("reference", "diff", "old.json", "old.json", "--fail-on", "psi>0.2", cwd=tmp_path)
    assert (quiet.returncode, json.loads(quiet.stdout)["features"]["x"]["distances"]["psi"]) == (0, 0)
    moved = run("reference", "diff", "old.json", "new.json", "--fail-on", "js>0.9", "--fail-on", "psi>0.02", cwd=tmp_path)
    found = json.loads(moved.stdout)
    assert moved.returncode == 1
    assert found["features"]["x"]["mean"] == [24.5, 27.5]
    assert "x: psi 0." in moved.stderr
    assert "js 0.9" not in moved.stderr
    assert "A: m old" in moved.stderr


@pytest.mark.parametrize(("window", "message"), [("soon", "'soon' is not a duration"), ("0h", "must be longer than 0")])
def test_a_window_that_is_none_is_told(tmp_path: Path, window: str, message: str) -> None:
    (tmp_path / "t.csv").write_text("x\n1\n")
    done = run("reference", "build", "t.csv", "--model", "m", "--model-version", "1", "--window", window, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True)


def test_without_a_word_the_models_shortest_tumbling_window_is_taken(tmp_path: Path) -> None:
    (tmp_path / "monitor.yaml").write_text("models: {m: {windows: [{size: 6h}, {size: 2h}, {size: 1h, step: 30m}]}}\n")
    (tmp_path / "t.csv").write_text("time,x\n" + "".join(f"{1_735_689_600_000 + i * 18_000},{i % 50}\n" for i in range(6_000)))
    for model, hours in (("m", 2), ("n", 1)):
        run("reference", "build", "t.csv", "--model", model, "--model-version", "1", "--time-column", "time", cwd=tmp_path)
        assert json.loads((tmp_path / "reference.json").read_text())["calibration"]["size_ms"] == hours * 3_600_000


def test_policies_are_checked_replayed_and_tried_on_results(tmp_path: Path) -> None:
    """A rule for 5 rows an hour; the last four of ten hours have 3."""
    start = 1_735_689_600_000
    times = [start + hour * 3_600_000 + i * 60_000 for hour in range(10) for i in range(10 if hour < 6 else 3)]
    (tmp_path / "events.ndjson").write_text("".join(json.dumps({"model": "m", "time": t, "features": {}}) + "\n" for t in times))
    (tmp_path / "monitor.yaml").write_text("models: {m: {windows: [{size: 1h}], grace: 0s}}\npolicies: policies\n")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "few.yaml").write_text(
        "owner: ops\nroutes: [pager]\nrules:\n  - {when: traffic.low < 5, open_after: 2}\n"
    )
    (tmp_path / "new.yaml").write_text("name: few\nrules: [{when: traffic.low < 2}]\n")
    (tmp_path / "known.yaml").write_text(
        "incidents: [{model: m, from: 2025-01-01T06:00:00Z, to: 2025-01-01T10:00:00Z, name: half}]\n"
    )
    assert run("config", "check", cwd=tmp_path).returncode == 0
    checked = run("policy", "check", "policies", cwd=tmp_path)
    assert (checked.returncode, checked.stdout.split("\t")[0]) == (0, "few")
    shown = json.loads(run("policy", "show", cwd=tmp_path).stdout)
    assert (shown["name"], shown["sha256"]) == ("few", checked.stdout.split()[2])
    done = run("replay", "--events", "events.ndjson", "--end-of-input", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [alert] = [json.loads(line)["data"] for line in (tmp_path / "alerts.ndjson").read_text().splitlines()]
    assert (alert["policy_name"], alert["policies"]["few"], alert["owner"], alert["routes"]) == (
        "few",
        shown["sha256"],
        "ops",
        ["pager"],
    )
    tried = run("backtest", "--policy", "new.yaml", "--incidents", "known.yaml", "results.ndjson", cwd=tmp_path)
    assert tried.returncode == 0, tried.stderr
    assert [(one["change"], one["alert"]["data"]["check"]) for one in map(json.loads, tried.stdout.splitlines())] == [
        ("removed", "traffic.low")
    ]
    assert "before: precision 100% of 1 incidents, recall 100% of 1 known ones" in tried.stderr
    assert "after: precision - of 0 incidents, recall 0% of 1 known ones; missed: half" in tried.stderr
    other = run("replay", "--events", "events.ndjson", "--policy", "new.yaml", "--end-of-input", cwd=tmp_path)
    assert (other.returncode, (tmp_path / "alerts.ndjson").read_text()) == (0, "")
    (tmp_path / "policies" / "few.yaml").write_text("rules: [psy > 1]\n")
    for words in (["config", "check"], ["policy", "check", "policies"], ["replay", "--events", "events.ndjson"], ["run"]):
        wrong = run(*words, cwd=tmp_path)
        assert (wrong.returncode, "few.yaml:1: rules.0" in wrong.stderr, "Traceback" in wrong.stderr) == (78, True, False)
    (tmp_path / "policies" / "few.yaml").write_text("rules: [psi > 1]\n")
    (tmp_path / "known.yaml").write_text(
        "incidents:\n  - {model: m, from: 2025-01-02, to: 2025-01-01}\n  - {mdel: m, from: 2025-01-02, to: later}\n"
    )
    wrong = run("backtest", "--policy", "new.yaml", "--incidents", "known.yaml", "results.ndjson", cwd=tmp_path)
    assert wrong.returncode == 78
    assert "known.yaml:2: incidents.0: to 2025-01-01 is not after from 2025-01-02" in wrong.stderr
    assert "known.yaml:3: incidents.1.mdel: unknown key (did you mean model?)" in wrong.stderr
