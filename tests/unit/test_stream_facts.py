"""What a window knows of its stream, against plain loops over the rows."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from monitor.columns import Envelope, names_of
from monitor.sketches.bounded import key_hash
from monitor.stream_facts import DELAY_CELLS, MAX_NAME_CHARS, MAX_NAMES, StreamFacts, delay_cells

DICE = np.random.default_rng(7)
T0 = 1_735_689_600_000
NO_RATES = np.zeros(0)


def facts_of(times: list[int], stamps: list[int], clock: list[int] | None = None, **envelope: object) -> StreamFacts:
    facts = StreamFacts()
    running = np.maximum.accumulate(times) if clock is None else np.array(clock)
    for kind in ("schemas", "producers", "statuses"):
        envelope |= {kind: names_of(envelope[kind])} if kind in envelope else {}  # type: ignore[arg-type]
    said = Envelope(envelope.pop("ids", []), envelope.pop("sample_rates", NO_RATES), envelope.pop("wrong_type", {}), **envelope)  # type: ignore[arg-type]
    facts.add_rows(said, np.array(times), np.array(stamps), running)
    return facts


def test_a_cell_holds_the_delays_of_a_quarter_of_a_doubling() -> None:
    delays = np.unique(np.concatenate((np.arange(5_000), 2 ** np.arange(48), DICE.integers(0, 2**47, 5_000))))
    cells = delay_cells(delays)
    assert (np.diff(cells) >= 0).all()
    for cell in np.unique(cells[1:]).tolist():
        inside = delays[cells == cell]
        assert inside.max() < 1.25 * inside.min() or cell < 12  # below 8 ms a cell is one delay
    assert np.unique(cells).max() < DELAY_CELLS
    assert (delay_cells(-delays) == -cells).all()


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("shift", [0, -3_000])
def test_quantiles_of_delay_are_at_most_a_quarter_too_large(share: float, shift: int) -> None:
    delays = (DICE.lognormal(6, 1, 3_000).astype(np.int64) + shift).tolist()
    facts = facts_of([T0] * 3_000, [T0 + d for d in delays])
    exact = sorted(delays)[math.ceil(share * 3_000) - 1]
    found = facts.delay_ms(share)
    assert found is not None
    assert exact <= found <= exact + abs(exact) * 0.25
    assert (facts.least("delay"), facts.most("delay")) == (min(delays), max(delays))


def test_records_without_a_timestamp_have_no_delay() -> None:
    facts = facts_of([T0] * 3, [-1, 1 << 61, T0 + 5])
    assert (facts.least("delay"), facts.most("delay"), facts.delay_ms(0.5)) == (5, 5, 5)
    nothing = facts_of([T0], [1 << 61], producers=["a"])
    assert nothing.delay_ms(0.5) is None
    assert not nothing.named("producer")["a"].has_delay


def test_rows_out_of_order_are_those_before_the_clock() -> None:
    facts = facts_of([5, 3, 9, 8, 9], [9] * 5, clock=[5, 5, 9, 9, 9])
    assert (facts.count("out_of_order"), facts.most("disorder")) == (2, 2)
    assert facts_of([1, 2, 2], [9] * 3).most("disorder") is None


def test_late_and_future_rows_are_counted_with_the_furthest() -> None:
    facts = StreamFacts()
    facts.add_late([10, 30, 20])
    facts.add_future([])
    facts.add_future([7])
    assert (facts.count("late"), facts.most("lateness"), facts.count("future"), facts.most("ahead")) == (3, 30, 1, 7)
    assert facts.count("rows") == 0


def test_names_have_their_rows_times_and_delays() -> None:
    times = (T0 + DICE.integers(0, 1_000, 300)).tolist()
    delays = DICE.integers(-50, 500, 300).tolist()
    names = DICE.choice(["a", "b", "c", None], 300).tolist()
    facts = facts_of(times, [t + d for t, d in zip(times, delays, strict=True)], producers=names)
    rows = list(zip(names, times, delays, strict=True))
    for name in "abc":
        mine = [(t, d) for who, t, d in rows if who == name]
        assert facts.named("producer")[name] == (
            len(mine), min(t for t, _ in mine), max(t for t, _ in mine), min(d for _, d in mine), max(d for _, d in mine)
        )  # fmt: skip
    assert (facts.count("with_producer"), facts.unnamed("producer")) == (300 - names.count(None), 0)
    order = [name for name, _ in Counter(name for name in names if name).most_common()]
    assert [facts.named("producer")[name].rows for name in order] == sorted(s.rows for s in facts.named("producer").values())[
        ::-1
    ]


def test_of_many_names_those_with_the_smallest_hashes_are_kept_and_the_rest_is_counted() -> None:
    names = [f"host-{i % 100}" for i in range(1_000)]
    facts = StreamFacts()
    for start in range(0, 1_000, 70):
        facts.merge(
            facts_of(
                [T0] * len(names[start : start + 70]), [T0] * len(names[start : start + 70]), producers=names[start : start + 70]
            )
        )
    kept = sorted(set(names), key=key_hash)[:MAX_NAMES]
    assert {name: sent.rows for name, sent in facts.named("producer").items()} == dict.fromkeys(kept, 10)
    assert facts.unnamed("producer") == 1_000 - 10 * MAX_NAMES


def test_long_names_are_cut() -> None:
    facts = facts_of([T0] * 2, [T0] * 2, schemas=["s" * 500 + "1", "s" * 500 + "2"])
    assert {name: sent.rows for name, sent in facts.named("schema").items()} == {"s" * MAX_NAME_CHARS: 2}


def test_statuses_are_ok_or_not() -> None:
    facts = facts_of([T0] * 4, [T0] * 4, statuses=["ok", "timeout", "ok", None])
    assert (facts.count("ok"), facts.count("with_status")) == (2, 3)
    assert {name: sent.rows for name, sent in facts.named("status").items()} == {"ok": 2, "timeout": 1}


def test_the_traffic_before_sampling_is_estimated_exactly_on_its_grid() -> None:
    rates = DICE.uniform(1e-6, 1, 500)
    rates[:3] = 1e-6, 1.0, 0.1
    facts = StreamFacts()
    for part in np.array_split(rates, 7):
        facts.merge(facts_of([T0] * (len(part) + 1), [T0] * (len(part) + 1), sample_rates=part))
    exact = 7 + sum(1 / Fraction(rate) for rate in rates.tolist())
    assert abs(Fraction(facts.estimated_rows) - exact) <= exact * Fraction(1, 2**52) + Fraction(500, 2**21)
    assert facts.rates == (rates.min(), 1.0)


def test_repeated_ids_are_found() -> None:
    ids = [f"r-{i // 2}".encode() for i in range(100)]
    assert facts_of([T0] * 100, [T0] * 100, ids=ids).ids.duplicates() == (0.5, 0.0)


def test_nothing_is_no_bytes() -> None:
    assert StreamFacts().to_wire() == b""
    assert StreamFacts.from_wire(b"").to_wire() == b""
