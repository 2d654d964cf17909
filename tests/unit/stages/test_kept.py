"""References in state: every one that rows name is written once, and packed with little effort."""

from __future__ import annotations

import numpy as np

from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import STATE_LEVEL, Reference, References
from monitor.stages.kept import KeptReferences
from tests.shapes import number_feature_of


def reference() -> Reference:
    layout = layout_of([number_feature_of(f"x{i}", np.random.default_rng(i).normal(size=2_000)) for i in range(5)])
    return Reference.build("credit", "7", Profile(layout))


def test_what_is_written_is_the_reference_once() -> None:
    kept, one = KeptReferences(References(), {}), reference()
    kept.use(one)
    kept.use(one)
    ((_, _, _, payload),) = kept.new_rows()
    assert Reference.from_bytes(payload).sha256 == one.sha256
    assert kept.new_rows() == []


def test_thousands_of_models_do_not_hold_the_event_loop_up_by_packing_for_the_topic() -> None:
    kept, one = KeptReferences(References(), {}), reference()
    kept.use(one)
    ((_, _, _, payload),) = kept.new_rows()
    assert payload == one.to_packed(STATE_LEVEL)
    assert payload != one.to_packed()
    assert len(payload) < 1.5 * len(one.to_packed())


def test_one_that_was_read_is_kept_as_it_was_read() -> None:
    kept, packed = KeptReferences(References(), {}), reference().to_packed()
    known = References()
    known.add(Reference.from_bytes(packed))
    one = known.at("credit", "7", 0)
    assert one is not None
    kept.use(one)
    ((_, _, _, payload),) = kept.new_rows()
    assert payload == packed
    assert known.held_bytes > len(packed)
