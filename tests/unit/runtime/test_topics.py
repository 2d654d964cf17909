from __future__ import annotations

from monitor.config import Config
from monitor.runtime.topics import expected_topics


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
        "a.references": "compact",
    }
    assert specs["a-p-ingest-changelog"].like == "p"
    assert specs["a-merge-changelog"].like == "a.partials"
    assert specs["a.partials"].partitions == 3


def test_a_source_that_we_make_is_stamped_by_the_broker() -> None:
    assert expected_topics(config())[0].settings == {"message.timestamp.type": "LogAppendTime"}


def test_a_changelog_keeps_deletions_for_longer_than_a_local_store_may_be_away() -> None:
    from monitor.runtime.extensions import LONGEST_ABSENCE_S

    changelogs = [spec for spec in expected_topics(config()) if spec.name.endswith("-changelog")]
    assert changelogs
    for spec in changelogs:
        assert int(spec.settings["delete.retention.ms"]) >= 2_000 * LONGEST_ABSENCE_S
