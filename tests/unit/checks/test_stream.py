"""What is measured of the stream, and what chance explains of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from monitor.checks.stream import stream
from monitor.checks.traffic import traffic
from monitor.columns import Envelope, names_of
from monitor.findings import ClosedWindow, Measurement, gather
from monitor.reference import Reference
from tests.closed_windows import HOUR_MS, closed, reference_of

DICE = np.random.default_rng(11)


def window(
    times: Any, delays: Any = 50, partition_rows: Mapping[str, Mapping[str, int]] | None = None, **said: Any
) -> ClosedWindow:
    made = closed(None, {}, partition_rows=partition_rows or {})
    times = np.asarray(times, np.int64)
    ids, rates, wrong_type = said.pop("ids", []), np.array(said.pop("rates", []), np.float64), said.pop("wrong_type", {})
    envelope = Envelope(ids, rates, wrong_type, **{kind: names_of(column) for kind, column in said.items()})
    made.profile.stream.add_rows(envelope, times, times + delays, np.maximum.accumulate(times))
    return made


def measured(made: ClosedWindow) -> dict[str, Measurement]:
    return {m.check: m for m in stream(gather(made))}


def test_an_empty_window_says_nothing() -> None:
    assert measured(closed(None, {})) == {}


def test_optional_fields_that_no_event_has_are_not_measured() -> None:
    assert set(measured(window([1, 2]))) == {"stream.late", "stream.future", "stream.out_of_order", "schema.envelope"}


def test_late_and_future_rows_are_shares_of_all_that_came() -> None:
    made = window(range(90))
    made.profile.stream.add_late([5] * 8 + [70, 6])
    made.profile.stream.add_future([900])
    found = measured(made)
    assert (found["stream.late"].value, found["stream.late"].n) == (0.1, 100)
    assert found["stream.late"].evidence == {"rows": 10, "furthest_ms": 70}
    assert (found["stream.future"].value, found["stream.future"].evidence["furthest_ms"]) == (1 / 91, 900)


def test_a_window_of_late_rows_only_is_late() -> None:
    made = closed(None, {})
    made.profile.stream.add_late([5] * 40)
    assert measured(made)["stream.late"].value == 1.0


def test_duplicates_must_exceed_what_the_sample_alone_would_show() -> None:
    few = measured(window(range(100), ids=[b"%d" % (i // 2) for i in range(100)]))["stream.duplicate_id"]
    assert (few.value, few.critical_value, few.n) == (0.5, 0.0, 100)
    many = measured(window(range(3_000), ids=[b"%d" % i for i in range(3_000)]))["stream.duplicate_id"]
    assert many.value == 0.0
    assert many.critical_value is not None
    assert 0 < many.critical_value == pytest.approx(stats.norm.isf(0.001) * many.evidence["standard_error"])


def test_the_schemas_of_a_window_are_named_with_their_times() -> None:
    found = measured(window(range(100), schemas=["s-1"] * 80 + ["s-2"] * 20))["schema.id_changed"]
    assert found.value == 0.2
    assert found.evidence["schemas"] == {
        "s-1": {"rows": 80, "first_ms": 0, "last_ms": 79},
        "s-2": {"rows": 20, "first_ms": 80, "last_ms": 99},
    }


def test_the_worst_field_of_the_envelope_counts() -> None:
    found = measured(window(range(100), wrong_type={"id": 3, "status": 10}))["schema.envelope"]
    assert (found.value, found.evidence["rows"]) == (0.1, {"id": 3, "status": 10})


def test_a_sample_rate_that_falls_to_a_fifth_is_five() -> None:
    assert measured(window(range(4), rates=[0.5, 0.5, 0.1]))["stream.sample_rate"].value == pytest.approx(5)
    assert measured(window(range(4), rates=[0.5, 0.5]))["stream.sample_rate"].value == 1.0


def test_clocks_differ_by_the_least_delays_of_producers_with_enough_rows() -> None:
    producers = ["a", "b", "c"] * 40 + ["d"] * 3
    delays = np.array([{"a": 20, "b": -70, "c": 500, "d": 90_000}[p] for p in producers]) + DICE.integers(0, 5_000, 123)
    made = window(range(123), delays, producers=producers)
    least = {p: int(delays[[i for i, q in enumerate(producers) if q == p]].min()) for p in "abc"}
    found = measured(made)["stream.clock_skew"]
    assert found.value == max(least.values()) - min(least.values())
    assert found.evidence["ahead"] == {min(least, key=lambda p: least[p]): min(least.values())}


def test_one_producer_has_no_skew_and_records_without_timestamps_have_no_clock() -> None:
    assert "stream.clock_skew" not in measured(window(range(100), producers=["a"] * 100))
    assert "stream.clock_skew" not in measured(window(range(100), 1 << 61, producers=["a", "b"] * 50))


def test_a_producer_that_stops_has_the_chance_of_its_silence() -> None:
    times = sorted(DICE.integers(0, HOUR_MS, 200).tolist())
    producers = ["a" if t < HOUR_MS // 2 and i % 2 else "b" for i, t in enumerate(times)]
    found = measured(window(times, producers=producers))["stream.producer_gone"]
    last_of_a = max(t for t, p in zip(times, producers, strict=True) if p == "a")
    silence = (times[-1] - last_of_a) / (times[-1] - times[0])
    assert (found.value, found.evidence["producer"]) == (pytest.approx(silence), "a")
    assert found.p_value == pytest.approx(2 * (1 - silence) ** producers.count("a"))
    assert found.critical_value == pytest.approx(1 - (0.001 / 2) ** (1 / producers.count("a")))


def test_producers_of_steady_traffic_are_rarely_gone() -> None:
    gone = 0
    for _ in range(300):
        made = window(sorted(DICE.integers(0, HOUR_MS, 300).tolist()), producers=DICE.choice(["a", "b", "c"], 300).tolist())
        found = measured(made)["stream.producer_gone"]
        gone += found.critical_value is not None and found.value > found.critical_value
    assert gone <= 3


def test_the_fullest_partition_is_compared_with_the_mean() -> None:
    found = measured(window([1], partition_rows={"even": {"0": 50, "1": 50}, "odd": {"0": 10, "1": 20, "2": 270}}))[
        "stream.key_skew"
    ]
    assert (found.value, found.n) == (2.7, 300)
    assert found.evidence == {"source": "odd", "partition": "2", "rows": 270, "partitions": 3}
    assert "stream.key_skew" not in measured(window([1], partition_rows={"one": {"0": 500}}))


def test_rows_spread_at_random_rarely_skew() -> None:
    skewed = 0
    for _ in range(400):
        counts = dict(zip("0123", DICE.multinomial(400, [0.25] * 4).tolist(), strict=True))
        found = measured(window([1], partition_rows={"p": counts}))["stream.key_skew"]
        skewed += found.critical_value is not None and found.value > found.critical_value
    assert skewed <= 3


def test_a_status_that_is_not_ok_is_an_error() -> None:
    found = measured(window(range(100), statuses=["ok"] * 70 + ["timeout"] * 10 + [None] * 20))["stream.error_status"]
    assert (found.value, found.n) == (0.125, 80)
    assert found.evidence["statuses"] == {"ok": 70, "timeout": 10}


# --- traffic


def traffic_of(made: ClosedWindow) -> dict[str, Measurement]:
    return {m.check: m for m in traffic(gather(made))}


def test_silence_at_the_end_has_its_chance() -> None:
    found = traffic_of(window(range(0, HOUR_MS // 2, 30_000)))["traffic.stop"]
    assert found.value == pytest.approx(0.5 + 30_000 / HOUR_MS)
    assert found.critical_value == pytest.approx(1 - 0.001 ** (1 / 60))
    assert found.p_value == pytest.approx((1 - found.value) ** 60)


def ten_hours(n: int) -> Reference:
    reference = reference_of({"x": [float(i % 7) for i in range(n)]})
    return Reference.build("credit", "7", reference.profile, time_range_ms=(0, 10 * HOUR_MS))


@pytest.mark.parametrize("n", [40, 100, 180])
def test_rows_are_compared_with_the_rate_of_the_reference(n: int) -> None:
    found = traffic_of(closed(ten_hours(1_000), {"x": [1.0] * n}))
    high, low = found["traffic.rate_high"], found["traffic.rate_low"]
    assert high.value == low.value == n / 100
    exact = stats.binom(n + 1_000, 1 / 11)  # given how many there are: an hour of eleven
    assert high.p_value == pytest.approx(exact.sf(n - 1), abs=0.05)
    assert low.p_value == pytest.approx(exact.cdf(n), abs=0.05)
    assert high.critical_value == pytest.approx(exact.isf(0.001) / 100, rel=0.15)


def test_a_reference_without_times_has_no_rate() -> None:
    assert "traffic.rate_low" not in traffic_of(closed(reference_of({"x": [1.0, 2.0]}), {"x": [1.0]}))
