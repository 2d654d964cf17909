"""`monitor state verify --changelog`: stores that a worker left, held against the topics that they are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rocksdict
from faust.stores.rocksdb import Store

from monitor.config.file import load_config
from monitor.runtime import topics
from monitor.runtime.store import IDENTITY, WRITTEN, _sealed, unsealed
from tests.integration.test_runtime_lives import EVENTS, live_once
from tests.integration.test_state import delete, stores
from tests.integration.workers import write_config
from tests.kafka import KafkaCluster
from tests.unit.cli.test_commands import run

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

Change = Callable[[rocksdict.Rdict, bytes, bytes], None]


def verify(path: Path) -> tuple[int, dict[str, list[str]]]:
    """Return the exit code, and the problems by store."""
    done = run("state", "verify", "--config", str(path), "--changelog", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {Path(each["path"]).name: each["problems"] for each in found}


def other(database: rocksdict.Rdict, key: bytes, value: bytes) -> None:
    """Put another value that fits its checksum."""
    database.put(key, _sealed(key, value + b"\0"))


def without(database: rocksdict.Rdict, key: bytes, value: bytes) -> None:
    """Delete the row."""
    database.delete(key)


def change(store: Path, how: Change) -> bytes:
    """Change one row of a pane, and return its key."""
    database = rocksdict.Rdict(str(store), options=rocksdict.Options(raw_mode=True))
    own = (IDENTITY, WRITTEN, Store.offset_key)
    key = next(key for key in database.keys() if key not in own and key.startswith(b"pane|"))  # noqa: SIM118  (not a dict)
    how(database, key, unsealed(key, database[key]))
    database.close()
    return key


def test_what_a_worker_leaves_agrees_with_its_changelogs_and_what_is_done_to_it_is_told(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    live_once(path, 400)
    code, problems = verify(path)
    assert (code, len(problems) > 4, [found for of_store in problems.values() for found in of_store]) == (0, True, [])
    changelog = topics.changelog(app, topics.ingest_table(f"{app}-events"))
    ingest = [store for store in stores(tmp_path) if "ingest" in store.name]
    keys = [change(store, how) for store, how in zip(ingest, (other, without), strict=False)]
    code, problems = verify(path)
    assert code == 1
    (altered,), (missing,) = (
        [problem for problem in problems[store.name] if changelog in problem] for store in ingest[: len(keys)]
    )
    assert altered.startswith(f"row {keys[0]!r} is not as {changelog}/")
    assert missing.startswith(f"row {keys[1]!r} is missing; {changelog}/")
    assert {name for name, found in problems.items() if found} == {store.name for store in ingest[:2]}


def test_a_changelog_that_is_gone_and_one_that_was_made_anew_are_told(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    live_once(path, 400)
    changelog = topics.changelog(app, topics.ingest_table(f"{app}-events"))
    delete(kafka, changelog)
    code, problems = verify(path)
    assert code == 1
    assert {problem for found in problems.values() for problem in found} == {f"topic {changelog} is missing"}
    topics.create_topics(load_config(path))
    code, problems = verify(path)
    assert code == 1
    told = [problem for found in problems.values() for problem in found]
    assert len(told) == 4
    assert all(f"of {changelog}, whose last record is at -1" in problem for problem in told)
