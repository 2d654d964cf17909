from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monitor.config.settings import Config
from monitor.runtime import owners, topics, worker
from monitor.runtime.topics import expected_topics
from monitor.runtime.worker import Worker


def config(**rest: object) -> Config:
    return Config.model_validate({"app": "a", "sources": [{"topic": "p"}, {"topic": "l", "format": "native-label"}], **rest})


def test_every_topic_is_expected_with_its_partitions_and_cleanup() -> None:
    specs = {spec.name: spec for spec in expected_topics(config(partials_partitions=3))}
    assert {name: spec.settings.get("cleanup.policy") for name, spec in specs.items()} == {
        "p": None,
        "l": None,
        "a-p-ingest-changelog": "compact",
        "a-l-ingest-changelog": "compact",
        "a.partials": "delete",
        "a-merge-changelog": "compact",
        "a.results": "compact,delete",
        "a.alerts": "delete",
        "a.dead-letter": "delete",
        "a.acks": "compact",
        "a.outcomes": "delete",
        "a-join-changelog": "compact",
        "a.references": "compact",
        "a.policies": "compact",
    }
    assert specs["a-p-ingest-changelog"].like == "p"
    assert specs["a-merge-changelog"].like == "a.partials"
    assert specs["a.partials"].partitions == 3


def test_outcomes_are_kept_longer_than_labels_are_waited_for_and_only_where_there_are_labels() -> None:
    specs = {
        spec.name: spec for spec in expected_topics(config(models={"m": {"labels": {"retention": "90d"}}}, outcomes_partitions=5))
    }
    assert int(specs["a.outcomes"].settings["retention.ms"]) == 97 * 86_400_000
    assert (specs["a.outcomes"].partitions, specs["a-join-changelog"].like) == (5, "a.outcomes")
    without = Config.model_validate({"app": "a", "sources": [{"topic": "p"}]})
    assert not {spec.name for spec in expected_topics(without)} & {"a.outcomes", "a-join-changelog"}


def test_a_source_that_we_make_is_stamped_by_the_broker() -> None:
    assert expected_topics(config())[0].settings == {"message.timestamp.type": "LogAppendTime"}


def test_a_changelog_keeps_deletions_for_longer_than_a_local_store_may_be_away() -> None:
    from monitor.runtime.store import LONGEST_ABSENCE_S

    changelogs = [spec for spec in expected_topics(config()) if spec.name.endswith("-changelog")]
    assert changelogs
    for spec in changelogs:
        assert int(spec.settings["delete.retention.ms"]) >= 2_000 * LONGEST_ABSENCE_S


def test_topics_that_are_no_longer_what_they_were_are_told() -> None:
    counts, ids = {"s": 2, "m.partials": 4, "m.alerts": 4}, {"s": "a", "m.partials": "b", "m.alerts": "c"}
    assert topics.changes(counts, ids, counts, ids) == []
    assert topics.changes(counts, ids, counts, {}) == []  # a broker that does not tell ids
    found = topics.changes(counts, ids, {"s": 3, "m.partials": 4}, {"s": "a", "m.partials": "z"})
    assert [sentence.split(";")[0] for sentence in found] == [
        "topic s has 3 partitions, it had 2 when this worker started",
        "topic m.partials was deleted and created again while it was in use",
        "topic m.alerts was deleted while it was in use",
    ]


@pytest.mark.parametrize(("n", "code"), [(2, None), (3, 78)])
def test_a_worker_whose_topics_are_changed_ends_and_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, n: int, code: int | None
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(owners, "end_process", lambda reason, code=70, **_: ended.append(code))
    monkeypatch.setattr(worker, "partition_counts", lambda *_: {"p": n})
    found: Any = Worker.__new__(Worker)
    found.config, found.counts, found._topics, found._ids = config(), {"p": 2}, ["p"], {"p": None}
    asyncio.run(found._check_topics())
    assert ended[:1] == ([code] if code else [])


def test_a_broker_that_does_not_answer_is_no_changed_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> dict[str, int]:
        raise worker.BrokerUnreachable("no broker")

    monkeypatch.setattr(worker, "partition_counts", unreachable)
    found: Any = Worker.__new__(Worker)
    found.config, found.counts, found._topics, found._ids = config(), {"p": 2}, ["p"], {"p": None}
    asyncio.run(found._check_topics())
