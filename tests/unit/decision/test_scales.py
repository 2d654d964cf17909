"""What is kept of windows: integers that add up, as long as the reference is the same."""

import numpy as np
import pytest

from monitor.chance.calibration import quantised_scores
from monitor.decision import scales
from monitor.errors import UnknownCodec
from monitor.profiles import Profile
from monitor.reference import Reference
from tests.unit.decision.observed import batch, closed, reference, rows

DICE = np.random.default_rng(8)
REFERENCE = reference()
PLAN = scales.plan_of(REFERENCE.ranked)


def tally(of: tuple[object, list[str]]) -> scales.Tallies:
    return PLAN.tally(closed(REFERENCE, of).profile.counts[0])  # type: ignore[arg-type]


def test_tallies_of_windows_add_up_to_those_of_all_their_rows() -> None:
    parts = [rows(DICE, 150) for _ in range(3)]
    together = tally((np.concatenate([x for x, _ in parts]), [c for _, colours in parts for c in colours]))
    each = [tally(part) for part in parts]
    assert np.array_equal(sum(one.cells for one in each), together.cells)
    assert np.array_equal(sum(one.scores for one in each), together.scores)
    found = scales.merged(each[0], each[1:], PLAN)
    assert found.scales == (1, 3)
    assert np.array_equal(found.cells, [each[0].cells, together.cells])
    assert np.array_equal(found.scores, [each[0].scores, together.scores])
    assert found.rows.tolist() == [[150, 150], [450, 450]]
    assert found.windows.tolist() == [[1, 1], [3, 3]]


def test_scores_are_those_of_the_calibration() -> None:
    x, colours = rows(DICE, 150)
    window = closed(REFERENCE, (x, colours)).profile.summary("x").values
    expected = [int(window @ score) for score in quantised_scores(REFERENCE.profile.summary("x").values)]
    assert tally((x, colours)).scores.tolist() == [expected]


def test_never_seen_values_and_missing_ones_are_not_tallied() -> None:
    x, colours = rows(DICE, 100)
    found = tally((x, ["violet"] * 40 + colours[40:]))
    assert PLAN.rows(found.cells).tolist() == [60, 100]


def test_what_is_written_is_read_back() -> None:
    tallies = [tally(rows(DICE, n)) for n in (100, 200)]
    large = scales.Tallies(tallies[0].cells + (1 << 40), tallies[0].scores << 20)
    history = [scales.to_bytes(REFERENCE, {"all": one, "region=north": tallies[1]}) for one in (tallies[1], large, tallies[0])]
    found = scales.earlier_of(history, "all", REFERENCE, PLAN)
    for one, expected in zip(found, (tallies[1], large, tallies[0]), strict=True):
        assert np.array_equal(one.cells, expected.cells)
        assert np.array_equal(one.scores, expected.scores)
    assert len(scales.earlier_of(history, "region=north", REFERENCE, PLAN)) == 3


def test_history_ends_where_the_segment_was_not_tallied_or_the_reference_was_another() -> None:
    one, other = tally(rows(DICE, 100)), reference(n=400)
    mine, theirs = scales.to_bytes(REFERENCE, {"all": one}), scales.to_bytes(other, {"all": one})
    assert len(scales.earlier_of([mine, b"", mine, theirs, mine], "all", REFERENCE, PLAN)) == 2
    assert scales.earlier_of([mine], "region=north", REFERENCE, PLAN) == []
    assert len(scales.earlier_of([mine] * 40, "all", REFERENCE, PLAN)) == scales.MAX_EARLIER


def test_a_later_version_is_refused() -> None:
    data = bytearray(scales.to_bytes(REFERENCE, {}))
    data[1] = 9
    with pytest.raises(UnknownCodec):
        scales.earlier_of([bytes(data)], "all", REFERENCE, PLAN)


def test_what_spoke_for_itself_is_left_out() -> None:
    one = tally(rows(DICE, 100))
    rest = one.without(np.array([name == "x" for name in ("colour", "x")]), PLAN)
    assert PLAN.rows(rest.cells).tolist() == [100, 0]
    assert rest.scores.tolist() == [[0, 0]]
    assert np.array_equal(one.without(np.array([False, False]), PLAN).cells, one.cells)


def test_earlier_traffic_is_scored_by_the_ranks_of_the_reference_itself() -> None:
    trailing = Profile(REFERENCE.layout)
    trailing.update(batch(rows(DICE, 2_000, 0.5)))
    counted: Reference = REFERENCE.counted(trailing, 3)
    assert counted.ranked is REFERENCE.profile
    assert scales.plan_of(counted.ranked) is PLAN
    moments = scales.sampled(PLAN, trailing.counts[0])
    location = quantised_scores(REFERENCE.profile.summary("x").values)[0]
    values = np.repeat(location, trailing.summary("x").values)
    assert moments.mean[0, 0] == pytest.approx(values.mean())
    assert moments.deviation[0, 0] == pytest.approx(values.std())
