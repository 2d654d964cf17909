"""What an experiment found: anomalies by word, and figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Word = Literal[
    "LOST",  # an event that is not in its window
    "OVERCOUNTED",  # one that is in its window more than once
    "WRONG_CELLS",  # as many rows, and other values
    "CHANGED",  # two records of one result with different bytes
    "EARLY_CLOSE",  # a window that was closed before its time, or an event called late that was not
    "NEVER_CLOSED",  # a window without a result
    "DUP_ALERT",  # two ids for one alert
    "ALERT_MISSING",
    "ALERT_CHANGED",  # one id with different bytes, or other contents than the rule demands
    "ALERT_UNEXPECTED",
    "DLQ_MISSING",
    "DLQ_UNEXPECTED",
    "STUCK",  # no progress in time
    "COUNTERS",  # counted + late + rejected ≠ produced
    "COUNTER_FELL",  # within a process
    "ENDED",  # a worker that the supervisor does not start again
    "UNACKNOWLEDGED",  # the producer gave up: the experiment says nothing
]
WORDS: tuple[str, ...] = get_args(Word)
SHOWN = 12


@dataclass
class Report:
    """`anomalies` is empty when all is well; figures: what was counted, ready for JSON."""

    figures: dict[str, Any] = field(default_factory=dict)
    anomalies: list[str] = field(default_factory=list)

    def add(self, word: Word, text: str) -> None:
        """Note an anomaly."""
        self.anomalies.append(f"{word} {text}")

    @property
    def words(self) -> Counter[str]:
        """Anomalies by word."""
        return Counter(anomaly.partition(" ")[0] for anomaly in self.anomalies)

    def __str__(self) -> str:
        figures = ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in self.figures.items())
        shown: list[str] = []
        for word in WORDS:
            mine = [anomaly for anomaly in self.anomalies if anomaly.startswith(f"{word} ")]
            shown += mine[:SHOWN] + ([f"{word} … {len(mine) - SHOWN} more"] if len(mine) > SHOWN else [])
        return "\n".join([figures, *shown, f"{len(self.anomalies)} anomalies"])


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " + ".join(f"{n:,} {name}" for name, n in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
