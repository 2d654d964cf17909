"""Whether a worker is ready, as a list of named reasons why not; `/readyz` says them, and a gauge has one series for each.

A condition is *asked* for at each probe, so that an answer is never older than the probe, or *held* by code that has no state to ask.
Some conditions are waited for on purpose: then standing still is meant, and the watchdog leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

CONDITIONS: Mapping[str, str] = {
    "stopping": "a signal has ended this worker's life: it checkpoints and leaves",
    "loop": "the event loop does not turn",
    "broker": "no broker answers",
    "topics": "a topic is missing, or was made anew",
    "assignment": "the group has not given this worker its partitions yet",
    "recovery": "state is being recovered from the changelog",
    "references": "it is not known whether there are newer references: no new pane is opened",
    "disk": "the disk of the state is full: nothing is read until there is room",
    "outputs": "a topic refuses what is published: it is kept and tried again",
}
"""Every condition and what it means, the first ones first; labels of the gauge and the documentation come from here."""

ON_PURPOSE = ("stopping", "disk", "outputs")
"""Conditions in which a worker stands still on purpose: starting it again would help nobody."""

Question = Callable[[], str | None]
"""Returns why the condition holds now, None where it does not. Called from the probes' threads."""


class Readiness:
    """The conditions of one worker. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._questions: dict[str, Question] = {}
        self._held: dict[tuple[str, str], str] = {}

    def ask(self, condition: str, question: Question) -> None:
        """Ask `question` at every probe. Raises KeyError for a condition that is not in `CONDITIONS`."""
        CONDITIONS[condition]
        self._questions[condition] = question

    def hold(self, condition: str, reason: str, who: str = "") -> None:
        """Be not ready until `release` is called as often as there are different `who`, such as the partitions that wait.

        Raises KeyError for a condition that is not in `CONDITIONS`.
        """
        CONDITIONS[condition]
        self._held[condition, who] = reason

    def release(self, condition: str, who: str = "") -> None:
        """End what `hold` began; doing it again changes nothing."""
        self._held.pop((condition, who), None)

    def release_all(self, who: str) -> None:
        """End everything that `who` holds: a partition that is given away waits for nothing more."""
        for condition, holder in list(self._held):
            if holder == who:
                self.release(condition, who)

    @property
    def is_waiting(self) -> bool:
        """Whether something stands still on purpose."""
        return any(self.reason(condition) is not None for condition in ON_PURPOSE)

    def reason(self, condition: str) -> str | None:
        """Return why a condition holds now, None where it does not."""
        for (name, _), text in list(self._held.items()):
            if name == condition:
                return text
        question = self._questions.get(condition)
        return question() if question is not None else None

    def reasons(self) -> dict[str, str]:
        """Return why this worker is not ready, by condition; empty when it is."""
        found = ((condition, self.reason(condition)) for condition in CONDITIONS)
        return {condition: reason for condition, reason in found if reason is not None}
