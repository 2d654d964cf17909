"""What events say of themselves beside model, time and features: ids, who sent them under which schema, their status and sample rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Final

import msgspec
import numpy as np

from monitor.columns import Bool, Envelope, Float, HashedIds, More, Names, Said, names_of

MIN_SAMPLE_RATE = 1e-6
"""A smaller rate is taken for a mistake: one logged event in a million."""

MORE = ("schema", "producer", "status", "sample_rate")
"""Fields of the envelope beside the id, in the order of `More`."""
NO_MORE = (msgspec.UNSET,) * len(MORE)
"""`More` of an event that has none of it."""

_SCALAR = str | int | float | bool
FIELD_TYPES: Final[Mapping[str, Any]] = (
    {"prediction": _SCALAR, "score": float, "latency_ms": float}
    | dict.fromkeys(("id", *MORE), _SCALAR)
    | {"tags": dict[str, Any]}
)
"""What an optional field of an event is read as: one that says where it is from as any scalar, so that a number for a text costs nothing."""

_NO_RATES = np.zeros(0, np.float64)
_NO_VALUES = (type(None), msgspec.UnsetType)


def envelope_of(events: Sequence[Any]) -> Envelope:
    """Return what events say of themselves."""
    said = said_by(events)
    if said.has_ids:
        return envelope(said.ids, 0, said.more)
    is_id, is_wrong = ids_among(said.ids)
    return envelope(list(compress(said.ids, is_id)), int(is_wrong.sum()), said.more)


def said_by(events: Sequence[Any]) -> Said:
    """Return what events say of themselves, by event. Written out, because every event passes here: one pass where an id is all they say."""
    if events and not _says_more(events[0]):
        try:
            ids: list[Any] = [
                e.id.encode() for e in events if e.schema is e.producer is e.status is e.sample_rate is msgspec.UNSET
            ]
            if len(ids) == len(events):
                return Said(ids, has_ids=True)
        except AttributeError:  # an id left out, or no text
            pass
    try:
        ids, has_ids = [event.id.encode() for event in events], True
    except AttributeError:
        ids, has_ids = [event.id.encode() if type(event.id) is str else event.id for event in events], False
    if not any(map(_says_more, events)):
        return Said(ids, has_ids)
    return Said(ids, has_ids, tuple([getattr(event, field) for event in events] for field in MORE))


def ids_among(ids: Sequence[Any]) -> tuple[Bool, Bool]:
    """Return which of `Said.ids` are ids, and which are something else but neither absent nor null; shape (n,) each."""
    is_id = np.fromiter((type(one) is bytes for one in ids), bool, len(ids))
    is_there = np.fromiter((type(one) not in _NO_VALUES for one in ids), bool, len(ids))
    return is_id, is_there & ~is_id


def envelope(ids: Sequence[bytes] | HashedIds, n_wrong: int, more: More | None) -> Envelope:
    """Return what events say of themselves. n_wrong: those with an id that is no text. more: of each event."""
    wrong: dict[str, int] = {}
    _count(wrong, "id", n_wrong)
    if more is None:
        return Envelope(ids, _NO_RATES, wrong)
    *texts, rates = more
    schemas, producers, statuses = (_names(field, values, wrong) for field, values in zip(MORE, texts, strict=False))
    return Envelope(ids, _rates(rates, wrong), wrong, schemas, producers, statuses)


def _says_more(event: Any) -> bool:
    """Whether an event has a field of the envelope beside its id."""
    return not (event.schema is event.producer is event.status is event.sample_rate is msgspec.UNSET)


def _names(field: str, values: Sequence[Any], wrong: dict[str, int]) -> Names | None:
    """Return the texts among the values; count in `wrong` what is neither text nor absent nor null."""
    names = names_of(values)
    if all(type(name) is str for name in names.distinct):
        return names
    odd = [type(name) is not str and type(name) not in _NO_VALUES for name in names.distinct]
    if any(odd):
        _count(wrong, field, len(values) if names.codes is None else int(np.array(odd)[names.codes].sum()))
    distinct = [name if type(name) is str else None for name in names.distinct]
    return Names(distinct, names.codes) if any(name is not None for name in distinct) else None


def _rates(values: Sequence[Any], wrong: dict[str, int]) -> Float:
    """Return the sample rates that can be; count in `wrong` what is neither that nor absent nor null."""
    if len(set(values)) == 1 and type(values[0]) is float and MIN_SAMPLE_RATE <= values[0] < 1:  # 1 equals True
        return np.full(len(values), values[0])
    values = [float(value) if type(value) is int and value == 1 else value for value in values]
    rates = np.array([value for value in values if type(value) is float], np.float64)
    rates = rates[(rates >= MIN_SAMPLE_RATE) & (rates <= 1)]
    _count(wrong, "sample_rate", sum(type(value) not in _NO_VALUES for value in values) - len(rates))
    return rates


def _count(into: dict[str, int], name: str, n: int) -> None:
    if n:
        into[name] = into.get(name, 0) + n


def tag_of(tags: Any, name: str) -> str | None:
    """Return a tag of an event, given its field `tags`; None where there is none or it is no text."""
    found = tags.get(name) if type(tags) is dict else None
    return found if type(found) is str else None
