"""What stage 2 sends: what is durable of final windows, looks and reports, in the order in which it was decided; learnt references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monitor.ports import Message, Outbox
from monitor.stages.merge.early_looks import unsent_looks
from monitor.stages.merge.final_rows import Unsent
from monitor.stages.merge.performance_rows import Reported, UnsentReport
from monitor.stages.merge.rows import ModelRows
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED
from monitor.windows import FOREVER_MS, Window

PORTION = 4 << 20
"""Bytes that are unpacked at once to be sent; a result has some hundreds of KiB."""


def outbox_of(
    topic: Callable[[str], str], models: Mapping[str, ModelRows], reports: Iterable[tuple[UnsentReport, Row[Reported]]]
) -> Outbox:
    """Return the messages that wait, and as token their rows; looks into a window come before its end.

    topic: name of one of the application's topics. reports: durable ones that are not sent, in order.
    """
    decided, is_all = _portion(models)
    if is_all:
        decided += reports
    messages: list[Message] = []
    for unsent, _ in decided:
        messages += [Message(topic("results"), key, value) for key, value in unsent.results]
        messages += [Message(topic("alerts"), key, value) for key, value in unsent.alerts]
    learnt = []
    if is_all:
        learnt = [row for model in models.values() for row in model.learning.values() if row.value.record and row.is_durable]
        messages += [Message(topic("references"), *row.value.record) for row in learnt if row.value.record]
    return Outbox(tuple(messages), (), [*(row for _, row in decided), *learnt])


def _portion(models: Mapping[str, ModelRows]) -> tuple[list[tuple[Unsent | UnsentReport, Row[Any]]], bool]:
    """Return the first that waits of final windows and looks, at least `PORTION` where there is so much, and whether it is all.

    In order of the serial of models that revise, then window, model and time. Of a row all is sent, or nothing.
    """
    ready = sorted((each for name, model in models.items() for each in _ready(name, model)), key=lambda each: each[0])
    last = {id(row): i for i, (_, row) in enumerate(ready)}
    unpacked: dict[int, dict[int, Unsent]] = {}
    found: list[tuple[Unsent | UnsentReport, Row[Any]]] = []
    whole, n_bytes = 0, 0
    for i, ((serial, *_), row) in enumerate(ready):
        if id(row) not in unpacked:
            unpacked[id(row)] = {unsent.serial: unsent for unsent in row.value.to_send}
        if (unsent := unpacked[id(row)].get(serial)) is not None:
            found.append((unsent, row))
            n_bytes += unsent.n_bytes
        whole = max(whole, last[id(row)])
        if n_bytes >= PORTION and whole == i:
            return found, i + 1 == len(ready)
    return found, True


def _ready(name: str, model: ModelRows) -> Iterator[tuple[tuple[int, Window, str, int], Row[Any]]]:
    """Yield the place of everything that waits, without unpacking it; of a row there may be several."""
    for finals in model.final.values():
        for window, row in finals:
            if row.state == CLOSED and row.is_durable:
                for serial in row.shown.serials:
                    yield (serial, window, name, FOREVER_MS), row
    for window, look in unsent_looks(model):
        yield (look.value.serial, window, name, look.value.upto_ms), look
