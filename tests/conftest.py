"""Fixtures: Apache Kafka once per session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka import KafkaCluster, why_not

# A loaded machine is slow to draw examples; that is no failure. The same tree draws the same examples: what is found new
# is found by whoever looks (pytest --hypothesis-profile=full), never by a change that has nothing to do with it.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=10_000)
settings.register_profile("steady", settings.get_profile("full"), max_examples=100, derandomize=True, database=None)
settings.register_profile("mutation", settings.get_profile("steady"), max_examples=10)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One real broker. Without Java or Maven the test is skipped, unless MONITOR_REQUIRE_BROKER=1: then it fails."""
    missing = why_not()
    if missing is not None:
        if os.environ.get("MONITOR_REQUIRE_BROKER") == "1":
            pytest.fail(f"MONITOR_REQUIRE_BROKER=1, but {missing}")
        pytest.skip(f"no Apache Kafka: {missing}")
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def app() -> str:
    """A name that no other test has."""
    return f"t{uuid.uuid4().hex[:8]}"
