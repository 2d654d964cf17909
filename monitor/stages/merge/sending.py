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


def outbox_of(
    topic: Callable[[str], str], models: Mapping[str, ModelRows], reports: Iterable[tuple[UnsentReport, Row[Reported]]]
) -> Outbox:
    """Return the messages that wait, and as token their rows; looks into a window come before its end.

    topic: name of one of the application's topics. reports: durable ones that are not sent, in order.
    """
    decided: list[tuple[Unsent | UnsentReport, Row[Any]]] = _by_end(models)
    decided += reports
    messages: list[Message] = []
    for unsent, _ in decided:
        messages += [Message(topic("results"), key, value) for key, value in unsent.results]
        messages += [Message(topic("alerts"), key, value) for key, value in unsent.alerts]
    learnt = [row for model in models.values() for row in model.learning.values() if row.value.record and row.is_durable]
    messages += [Message(topic("references"), *row.value.record) for row in learnt if row.value.record]
    return Outbox(tuple(messages), (), [*(row for _, row in decided), *learnt])


def _by_end(models: Mapping[str, ModelRows]) -> list[tuple[Unsent | UnsentReport, Row[Any]]]:
    """Return what waits of final windows and looks, by the serial of models that revise, then window, model and time."""
    ready = [each for name, model in models.items() for each in _ready(name, model)]
    return [(unsent, row) for _, unsent, row in sorted(ready, key=lambda each: each[0])]


def _ready(name: str, model: ModelRows) -> Iterator[tuple[tuple[int, Window, str, int], Unsent, Row[Any]]]:
    for finals in model.final.values():
        for window, row in finals:
            if row.state == CLOSED and row.is_durable:
                for unsent in row.value.to_send:
                    yield (unsent.serial, window, name, FOREVER_MS), unsent, row
    for window, look in unsent_looks(model):
        yield (look.value.serial, window, name, look.value.upto_ms), Unsent(look.value.serial, [], look.value.alerts), look
