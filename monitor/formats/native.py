"""The native JSON event (schemas/prediction.schema.json).

Events are read one by one, by a typed decode of the envelope, the features in the same pass where the batch before was of model versions
whose layouts are known and read alike; or, of such model versions, many at once and straight into columns (table_reader.py). Which it was
never shows in what is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from monitor.columns import (
    About,
    ColumnBatch,
    DecodedBatch,
    Indices,
    Int,
    Payloads,
    Places,
    Read,
    Said,
    Special,
    offsets_of,
    stamps_of,
)
from monitor.compiled import is_available
from monitor.event_envelope import envelope_of, said_by, tag_of
from monitor.event_reader import Event, EventReader, text_id
from monitor.event_time import INVALID_MS, TimeUnit, times_ms
from monitor.events import DEFAULT_VERSION, Rejection, RejectionReason, Tick, is_name
from monitor.feature_reader import FeatureReader
from monitor.json_objects import fields_of
from monitor.layout import Layout
from monitor.ports import Record
from monitor.table_reader import TableReader
from monitor.table_rows import EVENT_BYTES, TableRows, in_order, joined

INSPECT_EVERY = 64
"""A row whose offset is divisible by this has its names compared with the layout's: a share that the log decides."""

READ_FACTOR = 3
"""What features take that were read, in bytes of their JSON, of which each has some 15."""

MAX_NAME_CHARS = 128
"""Of an unexpected feature's name, that much is kept."""

_MAX_READERS = 1_024
_MAX_NAMES = 10_000

_Key = tuple[str, str | int | None]
_key_of, _time_of = attrgetter("model", "version"), attrgetter("time")
_value_of = attrgetter("value")


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """The reader of layouts of one shape, the decoder of events that reads its features in the same pass, and what does without events.

    Told apart by identity: each model of a batch is asked for its own, and to hash three fields for each of them takes longer than that.
    """

    reader: FeatureReader
    decode: Callable[[bytes], Event]
    table: TableReader | None


class NativeFormat:
    """Reads native events.

    time_field, time_unit: where an event's time is, and what it counts. max_event_bytes: longer records are rejected unparsed.
    in_tables: whether events of models that are known are read by the compiled part; what is read is the same.
    A payload is (Event, the record's bytes).
    """

    def __init__(
        self,
        time_field: str = "time",
        time_unit: TimeUnit = "ms",
        max_event_bytes: int = 1 << 20,
        *,
        in_tables: bool = is_available,
    ) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self.in_tables = in_tables and is_available
        self._events = EventReader(time_field, time_unit, max_event_bytes)
        self._known: dict[str, _Known] = {}
        self._ahead: dict[tuple[str, str], _Known] = {}
        self._read_at_once: set[tuple[str, str]] = set()
        self._last_names: list[tuple[str, str]] = []
        self._names: dict[_Key, tuple[str, str]] = {}

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, ticks and rejections; never raises."""
        reader = self._table_reader()
        batch = self._decode_each(records) if reader is None else self._decode_table(reader, records)
        self._last_names = batch.keys
        return batch

    def _decode_table(self, reader: TableReader, records: Sequence[Record]) -> DecodedBatch:
        """Read what can be read at once so, and the others one by one."""
        table, is_read = reader.read(list(map(_value_of, records)), self._max_event_bytes)
        keys, key_index = table.keys()
        names = self._names_of(keys)
        if None in names:  # the others are told why
            is_named = np.array([name is not None for name in names])
            mine = is_named[key_index]
            is_read[np.flatnonzero(is_read)[~mine]] = False
            table, key_index = table.take(np.flatnonzero(mine)), (np.cumsum(is_named) - 1)[key_index[mine]]
        rest = self._decode_each([records[i] for i in np.flatnonzero(~is_read).tolist()])
        if not len(table):
            return rest
        read = records if len(table) == len(records) else [records[i] for i in np.flatnonzero(is_read).tolist()]
        return joined(table, read, ([name for name in names if name is not None], key_index), rest, self._events.read)

    def _table_reader(self) -> TableReader | None:
        """Return what reads the next batch: where half of the model versions of the last one have one shape, and were read at once."""
        names = self._last_names
        known = self._expected()
        if known is None or not self._read_at_once.issuperset(names):
            found = Counter(self._ahead[name] for name in names if name in self._read_at_once)
            known, n = found.most_common(1)[0] if found else (None, 0)
            known = known if 2 * n >= len(names) else None
        return None if known is None or known.table is None or known.table.is_spared() else known.table

    def _decode_each(self, records: Sequence[Record]) -> DecodedBatch:
        """Read records one by one."""
        ahead = self._expected() if records else None
        accepted, events, values, others = self._events.read_all(records, ahead.decode if ahead else None)
        times = times_ms(list(map(_time_of, events)), self._time_unit)
        keys = Places()
        places = keys.codes(list(map(_key_of, events)))
        refused = self._refused(keys, places, times)
        if refused:
            others += [(accepted[i].offset, why) for i, why in refused.items()]
            left = [i for i in range(len(events)) if i not in refused]
            accepted, events = [accepted[i] for i in left], [events[i] for i in left]
            values, times, keys = [values[i] for i in left], times[left], Places()
            places = keys.codes(list(map(_key_of, events)))
        others.sort()
        names, key_index = in_order([self._names[key] for key in keys], places)
        return DecodedBatch(
            offsets=offsets_of(accepted),
            times_ms=times,
            record_ms=stamps_of(accepted),
            keys=names,
            key_index=key_index,
            payloads=Payloads(zip(events, values, strict=True)),
            ticks=[(offset, other.tick) for offset, other in others if isinstance(other, Tick)],
            labels=[],
            rejections=[(offset, other) for offset, other in others if isinstance(other, Rejection)],
            held_bytes=_held_bytes(events, values),
        )

    def _expected(self) -> _Known | None:
        """Return the reader of all model versions of the last batch; None where there is no such one."""
        known = set(map(self._ahead.get, self._last_names))
        return known.pop() if len(known) == 1 else None

    def _refused(self, keys: Places, places: Indices, times: Int) -> dict[int, Rejection]:
        """Return the events whose model or version is no name, or whose time is none; remember those that are names.

        places: among the different keys, of each event's.
        """
        no_time = Rejection(RejectionReason.INVALID_TIME, self._time_field)
        refused = dict.fromkeys(np.flatnonzero(times == INVALID_MS).tolist(), no_time)
        for place, (key, name) in enumerate(zip(keys, self._names_of(keys), strict=True)):
            if name is None:
                unnamed = np.flatnonzero(places == place).tolist()
                refused |= dict.fromkeys(unnamed, Rejection(RejectionReason.INVALID_NAME, _not_a_name(key)))
        return refused

    def _names_of(self, keys: Collection[_Key]) -> list[tuple[str, str] | None]:
        """Return models and versions as texts, None where one is no name; remember those that are names."""
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        found = list(map(self._names.get, keys))
        for i, key in enumerate(keys) if None in found else ():
            if found[i] is None and not _not_a_name(key):
                found[i] = self._names[key] = _texts(key)
        return found

    def columns(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> ColumnBatch:
        """Turn accepted events into columns of `layout`; never raises."""
        batch = self.values(layout, payloads)
        about = self.about(layout, payloads, offsets)
        batch.envelope, batch.inspected, batch.unexpected = about
        return batch

    def values(self, layout: Layout, payloads: Sequence[Any]) -> ColumnBatch:
        """Turn the values of accepted events, of any models, into columns of `layout`; never raises."""
        known = self._known_shape(layout, payloads)
        reader = known.reader
        events = [event for event, _ in payloads]
        rows = [event.features for event in events]
        if not set(map(type, rows)) <= {reader.struct}:
            rows = [
                row if type(row) is reader.struct else reader.read(self._events.features(payload))
                for row, payload in zip(rows, payloads, strict=True)
            ]
        batch = reader.columns(
            rows,
            events,
            times_ms=lambda: times_ms([event.time for event in events], self._time_unit),
            records=lambda: [value for _, value in payloads],
        )
        batch.tags = [[tag_of(event.tags, name) for event in events] for name in layout.tags]
        if batch.specials is not None:
            self._mark_not_finite(batch, layout, payloads)
        adapted = reader.adapted()
        if adapted is not reader:
            self._remember(layout, adapted, known.table)
        return batch

    def about(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> About:
        """Return what accepted events of one model version say beside their values; never raises."""
        known = self._known_shape(layout, payloads)
        events = [event for event, _ in payloads]
        if events and known.reader.can_decode:
            key = _texts(_key_of(events[-1]))
            self._ahead[key] = known
            self._read_at_once.discard(key)  # made for nothing, where rows are turned into columns one model at a time
        inspected = np.flatnonzero(offsets % INSPECT_EVERY == 0).tolist()
        unexpected = Counter(name for i in inspected for name in self._unexpected(payloads[i], known.reader.names))
        return About(envelope_of(events), len(inspected), unexpected)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[Any], offsets: Int) -> Read:
        """Turn accepted events of these model versions, whose layouts have one shape, into columns; never raises."""
        known = self._known_shape(layout, payloads)
        if known.reader.can_decode:
            self._ahead.update(dict.fromkeys(keys, known))
            self._read_at_once.update(keys)
        inspected = offsets % INSPECT_EVERY == 0
        to_inspect = inspected
        if isinstance(payloads, TableRows) and payloads.table.reader is known.table:
            columns, said = self._read_table(layout, payloads)
            to_inspect = inspected & payloads.may_have_more()
        else:
            columns, said = self.values(layout, payloads), said_by([event for event, _ in payloads])
        found = {i: self._unexpected(payloads[i], known.reader.names) for i in np.flatnonzero(to_inspect).tolist()}
        return Read(columns, said, inspected, {i: names for i, names in found.items() if names})

    def _read_table(self, layout: Layout, payloads: TableRows) -> tuple[ColumnBatch, Said]:
        """Return the columns of rows of a table, and what they say; those that are in none are read one by one."""
        table, alone = payloads.table_rows()
        columns, said = table.columns(), table.said()
        if len(alone):
            rest = [payloads[i] for i in alone.tolist()]
            columns = columns.with_rows(alone, self.values(layout, rest))
            said = said.with_rows(alone, said_by([event for event, _ in rest]))
        return columns, said

    def ids(self, payloads: Sequence[Any]) -> list[str | None]:
        """Return the id of each event; None where it has none, or none that is a text."""
        if isinstance(payloads, TableRows):
            return payloads.ids()
        return [text_id(event) for event, _ in payloads]

    def rows(self, payloads: Sequence[Any]) -> list[dict[str, object]]:
        """Return events' features and outputs by name as JSON has them; `NoValue.WRONG_TYPE` where a value cannot be read."""
        return list(map(self._events.row, payloads))

    def _known_shape(self, layout: Layout, payloads: Sequence[Any]) -> _Known:
        """Return the reader of layouts of one shape; the first event that needs it shows the order of names."""
        known = self._known.get(layout.shape)
        if known is None:
            if len(self._known) >= _MAX_READERS:
                self._known.clear()
                self._ahead.clear()
                self._read_at_once.clear()
            fields, order = self._events.names(payloads[0]) if payloads else ((), ())
            reader = FeatureReader(layout, order)
            has_table = self.in_tables and reader.can_decode
            table = TableReader(reader, fields, self._time_field, self._time_unit) if has_table else None
            known = self._remember(layout, reader, table)
        return known

    def _remember(self, layout: Layout, reader: FeatureReader, table: TableReader | None) -> _Known:
        known = self._known[layout.shape] = _Known(reader, self._events.decoder(reader.struct), table)
        return known

    def _mark_not_finite(self, batch: ColumnBatch, layout: Layout, payloads: Sequence[Any]) -> None:
        """Tell numbers that are not finite from texts: JSON has none, producers write them in quotes."""
        assert batch.specials is not None
        wrong = batch.specials == Special.WRONG_TYPE
        rows = np.flatnonzero(wrong.any(axis=0)).tolist()
        for at in [at for at in rows if b'NaN"' in payloads[at][1] or b'Infinity"' in payloads[at][1]]:
            found = np.flatnonzero(wrong[:, at])
            batch.specials[found, at] = self._events.not_finite(
                payloads[at], [layout.numbers[row][1].name for row in found.tolist()]
            )

    def _unexpected(self, payload: tuple[Event, bytes], expected: frozenset[str]) -> set[str]:
        """Return the names of an event's features that are not expected."""
        return {name[:MAX_NAME_CHARS] for name in fields_of(self._events.features(payload)).keys() - expected}


def _held_bytes(events: Sequence[Event], values: Sequence[bytes]) -> int:
    """Return about what events and their records take; whether features were read is the same for most of a batch."""
    is_read = bool(events) and not isinstance(events[0].features, msgspec.Raw)
    return len(events) * EVENT_BYTES + sum(map(len, values)) * (READ_FACTOR if is_read else 1)


def _texts(key: _Key) -> tuple[str, str]:
    """Return a key's model and version; a version may be an integer, or left out."""
    model, version = key
    return model, DEFAULT_VERSION if version is None else str(version)


def _not_a_name(key: _Key) -> str:
    """Return the first field of a key that is no name, "" where both are."""
    return next((field for field, text in zip(("model", "version"), _texts(key), strict=True) if not is_name(text)), "")
