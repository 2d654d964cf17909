"""The untouched year of flights raises the alarms that docs/decisions.md explains, and no other above notice."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import flights
from monitor.demo import flights as data

COMMITTED = json.loads((Path(__file__).parents[2] / "docs" / "flights.json").read_text())


def test_a_year_of_flights_raises_the_alarms_that_are_explained() -> None:
    found = flights.measure({}, data.download(Path(".cache") / "demo"))
    for part in ("reference", "year", "psi_of_dep_delay", "bad_weather_days", "alarms", "notices"):
        assert found[part] == COMMITTED[part]
    assert found["rules"] == {rule: COMMITTED["rules"][rule] for rule in found["rules"]}
    assert len(found["rules"]) == 2
