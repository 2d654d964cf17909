"""How a reader adapts to what producers send."""

from __future__ import annotations

import msgspec

from monitor.feature_reader import OFTEN, FeatureReader
from monitor.features import CategoryFeature, NumberFeature
from monitor.layout import Layout

LAYOUT = Layout(
    (
        NumberFeature(name="age", edges=(1.0,), reported=(1.0,), minimum=0.0, maximum=2.0, centre=0.0, exponent=-30),
        CategoryFeature(name="country", values=("DE",)),
        CategoryFeature(name='say "hi"', values=("1",)),
    )
)


def test_the_struct_follows_the_order_on_the_wire() -> None:
    assert FeatureReader(LAYOUT, ["new", "country", "country", "age"]).order == ["country", "age", 'say "hi"']


def test_a_feature_is_read_as_any_type_once_it_was_often_of_a_wrong_one() -> None:
    reader = FeatureReader(Layout(LAYOUT.features[:2]))
    for _ in range(OFTEN - 1):
        reader.read(msgspec.Raw(b'{"age": "41", "country": "DE"}'))
    assert reader.adapted() is reader
    reader.read(msgspec.Raw(b'{"age": "41", "country": "DE"}'))
    adapted = reader.adapted()
    assert (adapted.lenient, adapted.order) == ({"age"}, reader.order)
    assert adapted.adapted() is adapted
    assert adapted.read(msgspec.Raw(b'{"age": "41"}')).f0 == "41"


def test_a_name_that_json_escapes_is_read_by_value() -> None:
    assert not FeatureReader(LAYOUT).can_decode
    reader = FeatureReader(LAYOUT)
    row = reader.read(msgspec.Raw(b'{"say \\"hi\\"": "1", "age": 2}'))
    assert reader.columns([row], [None]).categories[1] == ["1"]
