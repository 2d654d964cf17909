"""One key for a reference and for the windows that are compared with it; another one is an error, and is told where."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from monitor.bootstrap import build_hash_key, build_pipeline
from monitor.columns import ColumnBatch
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.errors import ConfigError, StateMismatch
from monitor.features import CategoryFeature
from monitor.hash_key import NO_KEY, HashKey
from monitor.layout import layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.runtime.owners import Owners
from monitor.runtime.references import take_reference
from monitor.runtime.worker import Worker
from monitor.sketches.bounded import key_hash
from tests.unit.cli.test_commands import run

KEY, OTHER_KEY = HashKey("0123456789abcdef"), HashKey("fedcba9876543210")
START_MS = 1_735_689_600_000


def reference(key: HashKey) -> Reference:
    """Of 'a', and of 'b' beyond the dictionary."""
    other = tuple(key.hashes(["b"]).tolist())
    profile = Profile(layout_of([CategoryFeature(name="c", values=("a",), other=other, hash_key=key.id)], key))
    profile.update(ColumnBatch(3, np.empty((0, 3)), None, [["a", "a", "b"]]))
    return Reference.build("m", "1", profile)


def config(**privacy: object) -> Config:
    return Config.model_validate({"models": {"m": {"windows": [{"size": "1h"}]}}, "privacy": privacy})


def test_without_a_key_hashes_are_plain() -> None:
    texts = ["", "é", "\ud800", "x" * 500]
    assert NO_KEY.hashes(texts).tolist() == list(map(key_hash, texts))
    assert NO_KEY.id == ""


def test_a_keys_name_and_text_do_not_tell_it() -> None:
    assert KEY.id not in ("", OTHER_KEY.id)
    assert len(KEY.id) == 8
    assert KEY.secret not in repr(KEY)
    assert KEY.hashes(["x"]).tolist() != [int.from_bytes(blake2b(b"x", digest_size=8, key=KEY.secret.encode()).digest(), "big")]
    assert len({int(key.hashes(["x"])[0]) for key in (KEY, OTHER_KEY, NO_KEY)}) == 3


def test_the_key_is_read_from_the_configuration_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY.secret}\n")
    (tmp_path / "monitor.yaml").write_text("app: m\n")
    over = load_config(tmp_path / "monitor.yaml", {"MONITOR_PRIVACY__HASH_KEY": f"'{KEY.secret}'"})
    found = [config(hash_key=KEY.secret), config(hash_key_file=tmp_path / "key"), over]
    assert [build_hash_key(one) for one in found] == [KEY] * 3
    assert build_hash_key(config()) == NO_KEY
    assert KEY.secret not in str(over) + over.model_dump_json()


def test_a_key_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(ConfigError, match=r"privacy.hash_key: the key has 15 characters; at least 16"):
        build_hash_key(config(hash_key="x" * 15))
    with pytest.raises(ConfigError, match=r"short: the key has 5 characters"):
        build_hash_key(config(hash_key_file=tmp_path / "short"))
    with pytest.raises(ConfigError, match=r"none: cannot be read"):
        build_hash_key(config(hash_key_file=tmp_path / "none"))
    with pytest.raises(ValueError, match="not both"):
        config(hash_key=KEY.secret, hash_key_file=tmp_path / "short")


@pytest.mark.parametrize(("built", "used"), [(KEY, NO_KEY), (NO_KEY, KEY), (KEY, OTHER_KEY)])
def test_a_reference_of_another_key_is_refused_by_name(built: HashKey, used: HashKey) -> None:
    with pytest.raises(ConfigError) as refused:
        References(used).add(reference(built))
    message = str(refused.value)
    assert "of m 1 was built with" in message
    assert all((f"hash key {key.id}" if key.id else "no hash key") in message for key in (built, used))
    assert KEY.secret not in message


def test_a_reference_without_categories_has_no_key() -> None:
    made = Reference.build("m", "1", Profile(layout_of([])))
    References(KEY).add(made)
    References(NO_KEY).add(made)


def test_windows_are_hashed_with_the_references_key() -> None:
    known = References(KEY)
    known.add(Reference.from_bytes(reference(KEY).to_bytes()))
    found = known.at("m", "1", 0)
    assert found is not None
    profile = Profile(found.layout)
    profile.update(ColumnBatch(3, np.empty((0, 3)), None, [["a", "b", "new"]]))
    assert profile.summary("c").values.tolist() == [1, 1]
    assert profile.outside[0].kept == {int(KEY.hashes(["new"])[0]): 1}


def test_unkeyed_layouts_are_what_they_were_before_there_were_keys() -> None:
    document = json.loads(reference(NO_KEY).to_bytes())
    assert set(document["features"][0]) == {"kind", "name", "values", "value_type", "other"}
    assert json.loads(reference(KEY).to_bytes())["features"][0]["hash_key"] == KEY.id


def event(offset: int, value: str) -> StoredRecord:
    body = {"model": "m", "version": "1", "time": START_MS + offset, "features": {"c": value}}
    return StoredRecord(offset, START_MS, json.dumps(body).encode())


def test_state_of_another_key_can_be_read_but_an_open_window_cannot_go_on() -> None:
    mine = config(hash_key=KEY.secret)
    before = build_pipeline(mine, [reference(KEY)]).ingest("predictions", 0, partitions=1)
    before.skip_to(0)
    before.feed([event(0, "new")], START_MS)
    checkpoint = before.checkpoint()
    assert checkpoint is not None
    rows = [(key, value) for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None]
    build_pipeline(mine).ingest("predictions", 0, partitions=1, epoch=2, rows=rows)  # the same key: it goes on
    closed = [(key, value) for key, value in rows if not key.startswith(b"pane")]
    for others in (config(), config(hash_key=OTHER_KEY.secret)):
        pipeline = build_pipeline(others)
        with pytest.raises(StateMismatch, match=r"a window of m 1 is open .* restore privacy.hash_key"):
            pipeline.ingest("predictions", 0, partitions=1, epoch=2, rows=rows)
        pipeline.ingest("predictions", 0, partitions=1, epoch=2, rows=closed)
        kept = pipeline.references.by_sha256(reference(KEY).sha256)
        assert kept is not None
        assert kept.profile.n == 3


def test_open_windows_from_before_there_was_a_key_close_without_one() -> None:
    known = References(KEY)
    known.keep(reference(NO_KEY))
    kept = known.by_sha256(reference(NO_KEY).sha256)
    assert kept is not None
    assert kept.layout.can_count
    assert kept.layout.hash_key == NO_KEY


def test_a_worker_ends_when_a_reference_of_another_key_is_on_the_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        take_reference(reference(OTHER_KEY).to_bytes(), References(KEY), config())
    worker = Worker.__new__(Worker)
    worker.config = config(hash_key=KEY.secret)
    worker.pipeline = build_pipeline(config(hash_key=KEY.secret))
    ended: list[BaseException] = []
    monkeypatch.setattr(Owners, "fatal", lambda _, error: ended.append(error))
    worker._add_reference(b"", reference(KEY).to_bytes())
    assert ended == []
    worker._add_reference(b"", reference(OTHER_KEY).to_bytes())
    assert [type(error) for error in ended] == [ConfigError]


def test_commands_refuse_a_reference_of_another_key_with_exit_code_78(tmp_path: Path) -> None:
    rows = [{"model": "m", "time": START_MS + i * 60_000, "features": {"c": "a" if i % 3 else "b"}} for i in range(300)]
    (tmp_path / "train.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = "models: {m: {features: {c: {keep_values: true, max_categories: 2}}}}\n"
    (tmp_path / "monitor.yaml").write_text(f"{features}privacy: {{hash_key: '{KEY.secret}'}}\n")
    (tmp_path / "other.yaml").write_text(f"{features}privacy: {{hash_key: '{OTHER_KEY.secret}'}}\n")
    words = ["reference", "build", "train.ndjson", "--model", "m", "--model-version", "1", "--time-column", "time"]
    assert run(*words, cwd=tmp_path).returncode == 0
    feature = json.loads((tmp_path / "reference.json").read_text())["features"][0]
    assert (feature["hash_key"], feature["keep_values"]) == (KEY.id, True)
    replay = ["replay", "--reference", "reference.json", "--events", "train.ndjson", "--time-column", "time"]
    assert run(*replay, cwd=tmp_path).returncode == 0
    for command in (replay, ["reference", "publish", "reference.json"]):
        done = run(*command, "--config", "other.yaml", cwd=tmp_path)
        assert done.returncode == 78
        assert f"built with hash key {KEY.id}, but privacy.hash_key is hash key {OTHER_KEY.id}" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert run("reference", "show", "reference.json", cwd=tmp_path).returncode == 0
    assert KEY.secret not in run("config", "show", cwd=tmp_path).stdout
