"""Looks into open windows in simulated runs: told once, as the oracle says, and known to the close, whoever dies or wakes up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from monitor.stages.merge import early_looks, final_windows, sending
from monitor.stages.rows import row_key
from tests.simulation.__main__ import anomalies_of_chunk
from tests.simulation.world import simulate

SEEDS, CHUNKS = 120, 4


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_looks_tell_what_they_must_whoever_dies_or_wakes_up(chunk: int) -> None:
    """A failing seed is told; `python -m tests.simulation --early --seed N` runs it again."""
    n = SEEDS // CHUNKS
    assert anomalies_of_chunk(chunk * n, n, is_looked=True) == []


def test_the_runs_have_looks_that_tell_live_and_by_event_time() -> None:
    told: Counter[bool] = Counter()
    for seed in range(20):
        world = simulate(seed, is_looked=True)
        told[world.scenario.is_live] += len({key for key, _ in world.published["alerts"] if b"|early|" in key})
    assert min(told[True], told[False]) >= 10


def _one_key(model: str, window: Any, upto_ms: int) -> bytes:
    return row_key("early", model, *window, 0)


def _forgotten(*_: object) -> bytes:
    return b""


def test_the_harness_finds_a_look_that_is_lost_with_meta_behind_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_looks, "early_key", _one_key)
    assert "EARLY_MISSING" in _words()


def test_the_harness_finds_a_close_that_does_not_know_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_windows, "told_of", _forgotten)
    assert "EARLY_FORGOTTEN" in _words()


def test_the_harness_finds_a_look_that_is_published_only_where_it_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(model: Any) -> Iterator[Any]:
        return (look for look in early_looks.unsent_looks(model) if look[1].value.alerts)

    monkeypatch.setattr(sending, "unsent_looks", told)
    assert "LOOK_MISSING" in _words()


def _words() -> set[str]:
    return {anomaly.split()[0] for _, found in anomalies_of_chunk(0, 20, is_looked=True) for anomaly in found}
