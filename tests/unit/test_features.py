"""Edges of numbers: a tuple of floats, in a quarter of the memory."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from monitor.features import Edges, Feature, NumberFeature, builtin, encode_json

NUMBERS = (-1e308, -0.5, 0.1, 2.0, 1e300)


def test_edges_are_as_the_tuple_that_they_were_made_of() -> None:
    edges = Edges(NUMBERS)
    assert edges == NUMBERS
    assert edges != NUMBERS[1:]
    assert edges == Edges(list(NUMBERS))
    assert hash(edges) == hash(NUMBERS)
    assert (len(edges), edges[1], edges[1:3], list(edges), edges.index(2.0)) == (5, -0.5, (-0.5, 0.1), list(NUMBERS), 3)
    assert all(type(edge) is float for edge in edges)
    assert repr(edges) == repr(NUMBERS)


def test_they_are_an_array_that_is_not_copied_and_not_changed() -> None:
    edges = Edges(NUMBERS)
    assert np.asarray(edges, np.float64) is edges.array
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(edges, np.float64)[0] = 1.0
    copied = np.array(edges)
    copied[0] = 1.0
    assert edges == NUMBERS


def test_a_number_has_them_however_it_was_made_and_is_written_as_before() -> None:
    made = NumberFeature(name="x", edges=(0.5, 1.5), reported=(0.5,), minimum=0.0, maximum=2.0, centre=0.0, exponent=-30)
    data = encode_json(made)
    assert b'"edges":[0.5,1.5]' in data
    read = msgspec.json.decode(data, type=Feature)  # type: ignore[arg-type]
    moved = msgspec.structs.replace(made, edges=(1.0, math.pi))
    assert all(isinstance(one.edges, Edges) for one in (made, read, moved))
    assert (read, moved.edges) == (made, (1.0, math.pi))
    assert msgspec.structs.replace(moved, name="y").edges is moved.edges


def test_nothing_else_is_encoded_by_the_way() -> None:
    with pytest.raises(NotImplementedError, match="of type object"):
        builtin(object())
