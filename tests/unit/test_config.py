"""Every mistake in a configuration file is told with its line, its path and what is allowed; all at once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from monitor.bootstrap import build_rules, build_settings
from monitor.cells import FeatureOptions
from monitor.config.file import load_config
from monitor.config.policy_file import read_policy
from monitor.config.policy_lint import configured_warnings, lint
from monitor.config.settings import Config
from monitor.config.values import duration_ms
from monitor.errors import ConfigError
from monitor.policy import DEFAULT_RULES, Rule
from monitor.stages.settings import Trail
from monitor.windows import WindowSpec

HOUR_MS = 3_600_000

BROKEN = [
    ("kafak: {}", "1: kafak: unknown key (did you mean kafka?)"),
    ("app: 'a b'", "1: app: "),
    ("app: [x]", "1: app: "),
    ("- 1", "a mapping is expected"),
    ("a: [", "not YAML"),
    ("kafka: {bootstrap_server: x}", "did you mean bootstrap_servers?"),
    ("kafka: {security.protocol: tls}", "'tls' is not known; allowed: plaintext, ssl"),
    ("kafka: {security.protocol: sasl_plaintext}", "sends the password unencrypted"),
    ("kafka: {sasl.mechanisms: PLAN}", "did you mean PLAIN?"),
    ("kafka: {session_timeout: 5s, heartbeat_interval: 3s}", "at least three times"),
    ("sources: []", "1: sources: "),
    ("sources: [{}]", "sources.0.topic: is required"),
    ("sources:\n  - topic: a\n    formt: native", "3: sources.0.formt: unknown key (did you mean format?)"),
    ("sources: [{topic: a, format: avro}]", "allowed: native, native-label"),
    ("sources: [{topic: a, clock: sun}]", "must be 'wall' or 'event'"),
    ("sources: [{topic: a, time: {unit: h}}]", "must be 's', 'ms', 'us', 'ns' or 'iso8601'"),
    ("sources: [{topic: a, max_future: 5}]", "'5' is not a duration"),
    ("sources: [{topic: a, max_event_bytes: 1MB}]", "'1MB' is not a size"),
    ("sources: [{topic: a}, {topic: a}]", "topic a stands twice"),
    ("models: {m: {windows: []}}", "1: models.m.windows: "),
    ("models: {m: {windows: [{size: 1h, step: 25m}]}}", "step must divide size"),
    ("models: {m: {windows: [{size: 0}]}}", "must be longer than 0"),
    ("models: {m: {windows: [{size: 1h}, {size: 1h}]}}", "two windows are the same"),
    ("models: {m: {windows: [{size: 7d}, {size: 7ms}]}}", "panes a window"),
    ("models: {m: {late: wait}}", "'wait' is not known; allowed: drop, revise"),
    (
        "models: {m: {windows: [{size: 1h}], late: revise, revise_every: 90m}}",
        "revise_every: it must be a multiple of the pane, 1h",
    ),
    ("models: {m: {windows: [{size: 1h}], late: revise, revise_for: 0}}", "revise_for: it must be longer than 0"),
    (
        "models: {m: {windows: [{size: 1s}], late: revise, revise_for: 1d}}",
        "revise_for: it must be longer than 0, and at most 10000 panes",
    ),
    ("models: {m: {segments: [country, [country]]}}", "two are by the same keys"),
    ("models: {m: {segments: [age >= sixty]}}", "compares with 'sixty', which is no number"),
    ("models: {m: {segments: [{by: [a, b], values: [x]}]}}", "['x'] has 1 values for 2 keys"),
    ("models: {m: {segments: [{by: age > 1, values: ['yes']}]}}", "'yes': age > 1 is true or false"),
    ("models: {m: {sources: [other]}}", "other is not one of the sources: predictions"),
    (
        "models: {m: {features: {a: {kind: txt}}}}",
        "must be 'integer', 'real', 'boolean', 'category', 'identifier', 'text', 'timestamp', 'list' or 'number'",
    ),
    ("models: {'a|b': {}}", "1: models.a|b"),
    ("rules: {drift.psy: {above: 1}}", "no such check (did you mean drift.psi?)"),
    ("rules: {drift.psi: {above: 1, below: 0}}", "give above or below, not both"),
    (
        "rules: {drift.hellinger: {windows: 2}}",
        "rules.drift.hellinger: no rule is in force for it by default; give above or below",
    ),
    ("rules: {drift.helinger: {above: 0.1}}", "no such check (did you mean drift.hellinger?)"),
    ("rules: {drift.w1: {above: 0.1}}", "no such check"),
    ("rules: {performance.acuracy: {below: 0.8}}", "no such check (did you mean performance.accuracy?)"),
    (
        "rules: {performance.accuracy: {windows: 2}}",
        "rules.performance.accuracy: no rule is in force for it by default; give above, below, drop or rise",
    ),
    ("rules: {performance.mae: {rise: 0.1, above: 3}}", "give one of above, rise"),
    ("rules: {performance.mae: {rise: 0.1, levels: {critical: 3}}}", "levels are of values above a threshold"),
    ("rules: {drift.psi: {drop: 0.1}}", "rules.drift.psi: only of performance a drop or rise against the reference is known"),
    ("rules: {performance.auc: {below: 0.7, features: [x]}}", "performance.auc is of the model as a whole; leave out features"),
    ("distances: {psi_eps: 0}", "1: distances.psi_eps: "),
    ("distances: {psi_epsilon: 1}", "did you mean psi_eps?"),
    ("false_alarms: three", "'three' is not a number of false alarms; write such as 1 per 30d"),
    ("false_alarms: 1 per fortnight", "is not a number of false alarms above 0 in a time"),
    ("false_alarms: 0 per 1d", "is not a number of false alarms above 0 in a time"),
    ("rules: {drift.psi: {severity: bad}}", "must be 'notice', 'warning' or 'critical'"),
    ("state: {memory: 512}", "512 is not a size"),
    ("http: {bind: localhost}", "1: http.bind: "),
    ("unknown_model: ignore", "must be 'observe', 'dlq' or 'drop'"),
    ("notify: {route: {}}", "notify.route: unknown key (did you mean routes?)"),
    ("notify: {routes: {a: {receiver: slack}}}", "must be 'alertmanager', 'webhook' or 'people'"),
    ("notify: {routes: {a: {receiver: alertmanager}}}", "routes.a: alertmanager.urls is required"),
    ("notify: {routes: {a: {receiver: webhook, secret_env: S}}}", "notify.routes.a: url is required"),
    (
        "notify: {routes: {a: {receiver: webhook, secret_env: S, url: 'http://x/'}}}",
        "https only; allow_http: true sends alerts unencrypted",
    ),
    (
        "notify: {routes: {a: {receiver: webhook, secret_env: S, url: 'https://x/'}}}",
        "routes.a.url: none of allowed_urls: (empty)",
    ),
    ("notify: {routes: {a: {receiver: webhook, url: 'https://x/'}}}", "give secret_env or secret_file"),
    ("notify: {routes: {a: {receiver: webhook, url: 'https://u:p@x/', secret_env: S}}}", "must not hold a user or password"),
    ("notify: {routes: {a: {receiver: webhook, url: x, secret_env: S}}}", "an address is expected, such as https://"),
    ("notify: {routes: {a: {receiver: people, urls_env: A, urls_file: b}}}", "give urls_env or urls_file, not both"),
    ("notify: {routes: {a: {receiver: people, urls_env: A, url: 'https://x/'}}}", "url is of receiver: webhook"),
    ("notify: {routes: {a: {receiver: people, urls_env: MONITOR_A}}}", "MONITOR_A: variables that begin with MONITOR_ are keys"),
    ("notify: {routes: {a: {receiver: people, urls_env: A, secret: x}}}", "unknown key (did you mean secret_env?)"),
    ("notify: {routes: {a: {receiver: people, urls_env: A, resend: 5s}}}", "resend must be 0 or at least 1m"),
    (
        "notify: {routes: {a: {receiver: people, urls_env: A, match: {severities: [bad]}}}}",
        "must be 'notice', 'warning' or 'critical'",
    ),
    (
        "notify: {owners: {risk: {}}, routes: {a: {receiver: people, urls_env: A, match: {owners: [risc]}}}}",
        "routes.a.match.owners: no such owner (did you mean risk?): risc",
    ),
    ("defaults: {windows: [{size: 1h}], pane: 7m}", "pane: 7m is no divisor of 1h, which all sizes and steps are made of"),
    ("defaults: {windows: [{size: 1h}], pane: 0}", "pane: 0s is no divisor of 1h"),
    ("notify: {alertmanager: {urls: []}}", "1: notify.alertmanager.urls: "),
    ("notify: {alertmanager: {urls: ['http://x'], resend: 0}}", "resend and silences must be from 1s to 1h"),
    ("notify: {link: 'https://x/{modle}'}", "link: an address is expected, with no other fields than model, version"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_file_is_told_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text("ap: x\nstate: {memory: 1}\nmodels: {m: {grace: 2}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert len(caught.value.problems) == 3


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`monitor init` writes one"):
        load_config(tmp_path / "none.yaml", {})


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text("app: a\nkafka: {bootstrap_servers: 'x:1'}\n")
    environment = {"MONITOR_KAFKA__BOOTSTRAP_SERVERS": "y:2", "MONITOR_STATE__CHECKPOINT": "5s", "OTHER": "1"}
    config = load_config(path, environment)
    assert (config.app, config.kafka.bootstrap_servers, config.state.checkpoint) == ("a", "y:2", 5_000)


def test_an_unknown_variable_is_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text("app: a\n")
    with pytest.raises(ConfigError, match="kafak"):
        load_config(path, {"MONITOR_KAFAK__X": "1"})


def test_secrets_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text("kafka: {sasl.password: swordfish, security.protocol: sasl_ssl}\n")
    config = load_config(path, {})
    assert "swordfish" not in repr(config)
    assert "swordfish" not in config.model_dump_json()


@pytest.mark.parametrize(("text", "ms"), [("250ms", 250), ("90s", 90_000), ("1h30m", 5_400_000), ("7d", 604_800_000), (0, 0)])
def test_durations(text: object, ms: int) -> None:
    assert duration_ms(text) == ms


def test_settings_of_the_stages() -> None:
    config = Config.model_validate(
        {"models": {"m": {"windows": [{"size": "24h", "step": "1h"}, {"size": "1h"}], "grace": "5m", "idle_after": "30s"}}}
    )
    settings = build_settings(config)
    model = settings.model("m")
    assert model.specs == (WindowSpec(3_600_000, 3_600_000), WindowSpec(86_400_000, 3_600_000))
    assert (model.pane_ms, model.grace_ms) == (3_600_000, 300_000)
    assert settings.sources["predictions"].idle_after_ms == 30_000
    assert settings.retire_after_ms >= 10 * config.kafka.session_timeout


def test_panes_are_as_long_as_is_asked_for() -> None:
    day = {"windows": [{"size": "24h"}]}
    asked = {"a": day | {"pane": "1h"}, "b": day | {"early": False, "pane": "30m"}, "c": day}
    models = build_settings(Config.model_validate({"models": asked})).models
    assert {name: model.pane_ms // 60_000 for name, model in models.items()} == {"a": 60, "b": 30, "c": 30}
    assert [len(model.early_specs) for model in models.values()] == [1, 0, 1]


def test_a_check_without_a_default_rule_gets_one_from_the_configuration() -> None:
    rules = build_rules(Config.model_validate({"rules": {"drift.hellinger": {"above": 0.15, "severity": "critical"}}}))
    assert rules.rules["drift.hellinger"] == Rule(above=0.15, severity="critical")
    assert set(rules.rules) - {"drift.hellinger"} == set(DEFAULT_RULES)


@pytest.mark.parametrize(
    ("configured", "short"),
    [
        ({"below": 0.8, "segments": ["*"]}, "{when: accuracy < 0.8, segment: '*'}"),
        ({"drop": 0.05, "windows": 2, "severity": "critical"}, "{when: accuracy drop > 5 %, open_after: 2, severity: critical}"),
        ({"rise": 0.1}, "accuracy rise > 10 %"),
    ],
)
def test_rules_about_performance_are_in_the_configuration_what_they_are_in_a_policy(
    configured: dict[str, object], short: str, tmp_path: Path
) -> None:
    rules = build_rules(Config.model_validate({"rules": {"performance.accuracy": configured}}))
    (tmp_path / "p.yaml").write_text(f"name: p\nrules: [{short}]\n")
    ((_, of_policy),) = read_policy(tmp_path / "p.yaml").policy.rules
    assert rules.rules["performance.accuracy"] == msgspec.structs.replace(of_policy, policy="")


def test_a_rule_of_the_configuration_that_calls_bad_what_is_good_is_told_as_in_a_policy() -> None:
    found = Config.model_validate({"rules": {"performance.accuracy": {"above": 0.9}, "performance.mae": {"above": 3}}})
    says = "rules.performance.accuracy: performance.accuracy is high when all is well: bad above 0.9 is what quiet windows are"
    assert configured_warnings(found, build_rules(found)) == [says]
    assert lint([], build_rules(found), found, [], None).warnings == [says]


def test_the_share_of_psi_eps_goes_with_the_rules() -> None:
    assert build_rules(Config()).psi_eps == 1e-4
    assert build_rules(Config.model_validate({"distances": {"psi_eps": 1e-6}})).psi_eps == 1e-6


def test_rules_go_over_the_defaults_field_by_field() -> None:
    rules = build_rules(
        Config.model_validate({"rules": {"drift.distribution": {"windows": 3}, "traffic.low": {"below": 100}}})
    ).rules
    drift = rules["drift.distribution"]
    assert (drift.above, drift.windows, drift.severity, drift.levels) == (0.0075, 3, "notice", {"warning": 0.1, "critical": 0.25})
    assert (rules["traffic.low"].below, rules["traffic.low"].above) == (100, None)


@pytest.mark.parametrize(
    ("text", "trail"),
    [("own", None), ("trailing(36h)", Trail(36 * HOUR_MS)), ("hour_of_week(2)", Trail(336 * HOUR_MS, 168 * HOUR_MS))],
)
def test_what_windows_are_compared_with(text: str, trail: Trail | None) -> None:
    assert build_settings(Config.model_validate({"models": {"m": {"reference": text}}})).model("m").trail == trail


@pytest.mark.parametrize("text", ["trailing", "trailing(7)", "hour_of_week(0)", "own(1d)", "trailing(20000h)"])
def test_an_unknown_or_endless_comparison_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: own|not a duration|longer than 10000 panes"):
        Config.model_validate({"models": {"m": {"reference": text}}})


def test_what_is_learnt_of_a_feature_follows_its_configuration() -> None:
    features = {"mail": {"pii": "drop"}, "zip": {"kind": "category", "max_categories": 9}}
    model = {"features": features, "learning": {"rows": 7, "windows": 2, "texts": False}}
    learning = build_settings(Config.model_validate({"models": {"m": model}})).model("m").learning
    assert learning is not None
    assert (learning.min_rows, learning.min_windows, learning.keep_texts) == (7, 2, False)
    assert learning.left_out == {"mail"}
    assert learning.options["zip"] == FeatureOptions("category", 9)
    off = build_settings(Config.model_validate({"models": {"m": {"learning": {"enabled": False}}}}))
    assert off.model("m").learning is None
