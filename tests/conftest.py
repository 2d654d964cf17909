"""Fixtures: Apache Kafka once per session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka import KafkaCluster, why_not

# A loaded machine is slow to draw examples; that is no failure.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", settings.get_profile("steady"), max_examples=10_000)  # pytest --hypothesis-profile=full
settings.register_profile("mutation", settings.get_profile("steady"), max_examples=10, derandomize=True, database=None)
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
