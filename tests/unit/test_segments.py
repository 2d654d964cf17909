"""How rows are split: keys as they are written, names of segments, and which row of a profile an event falls into."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.columns import ColumnBatch, Special
from monitor.errors import InputError
from monitor.features import CategoryFeature
from monitor.layout import BLOCK_BYTES, Layout, layout_of
from monitor.segments import Key, Segmentation, parse_key
from tests.shapes import number_feature_of

COUNTRY = Key(name="country")
OLD = Key(name="age", op=">=", operand=60.0)
REGION = Key(name="tags.region")
LAYOUT = layout_of(
    [number_feature_of("age", np.arange(18.0, 90.0)), CategoryFeature(name="country", values=("DE", "FR"), other=())],
    segmentations=[
        Segmentation((COUNTRY,), (("DE",), ("FR",))),
        Segmentation((OLD,), (("true",), ("false",))),
        Segmentation((COUNTRY, OLD), (("DE", "true"),)),
        Segmentation((REGION,), (("eu",),)),
    ],
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("country", COUNTRY),
        ("age >= 60", OLD),
        ("age>=60", OLD),
        ("tags.region", REGION),
        ("a<=-1e3", Key(name="a", op="<=", operand=-1000.0)),
        ("a b != 0", Key(name="a b", op="!=", operand=0.0)),
    ],
)
def test_a_key_is_a_name_a_tag_or_a_comparison(text: str, key: Key) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "tags.", "age >= old", "age >= nan", "tags.x > 1"])
def test_what_can_split_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_key(text)


def test_the_segments_of_a_layout_have_names_all_first_and_other_last() -> None:
    assert LAYOUT.segments == (
        "all",
        "country=DE",
        "country=FR",
        "country=(other)",
        "age >= 60",
        "not age >= 60",
        "age >= 60=(other)",
        "country=DE, age >= 60",
        "country=(other), age >= 60=(other)",
        "tags.region=eu",
        "tags.region=(other)",
    )
    assert LAYOUT.tags == ("region",)


def test_every_row_falls_into_one_segment_of_each_segmentation() -> None:
    ages = np.array([[70.0, 59.9, 60.0, 0.0, 80.0]])
    specials = np.array([[0, 0, 0, Special.MISSING, 0]], np.uint8)
    countries = ["DE", "DE", "ES", "FR", None]
    batch = ColumnBatch(5, ages, specials, [countries], tags=[["eu", "us", None, "eu", "(other)"]])
    names = np.array(LAYOUT.segments)[LAYOUT.segment_rows(batch, LAYOUT.category_cells(batch))].tolist()
    other = "country=(other), age >= 60=(other)"
    assert names == [
        ["country=DE", "country=DE", "country=(other)", "country=FR", "country=(other)"],
        ["age >= 60", "not age >= 60", "age >= 60", "age >= 60=(other)", "age >= 60"],
        ["country=DE, age >= 60", other, other, other, other],
        ["tags.region=eu", "tags.region=(other)", "tags.region=(other)", "tags.region=eu", "tags.region=(other)"],
    ]


def test_a_layout_without_segments_has_the_identity_that_it_always_had() -> None:
    assert Layout(LAYOUT.features).sha256 != LAYOUT.sha256
    assert Layout(LAYOUT.features, ()).sha256 == Layout(LAYOUT.features).sha256


def test_blocks_cover_all_segments_once_and_stay_below_their_limit() -> None:
    features = [number_feature_of(f"x{i}", np.random.default_rng(i).normal(size=2_000)) for i in range(100)]
    regions = Segmentation((REGION,), tuple((f"r{i}",) for i in range(48)))
    layout = layout_of(features, segmentations=[regions])
    assert len(layout.segments) == 50
    assert [s for block in layout.blocks for s in range(50)[block]] == list(range(50))
    largest = max(block.stop - block.start for block in layout.blocks)
    assert 1 < largest * layout.n_cells * 5 < BLOCK_BYTES
    assert layout.blocks_of(np.array([0, 49])) == {0, len(layout.blocks) - 1}
