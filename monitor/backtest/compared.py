"""What two policies tell differently, and what either tells of incidents that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from monitor.alerts import Alert
from monitor.backtest.judged import Backtest


class KnownIncident(NamedTuple):
    """Something that is known to have been wrong: of any version, and of any feature, where none is named."""

    model: str
    from_ms: int
    to_ms: int
    version: str | None = None
    feature: str | None = None
    name: str = ""

    def is_told_by(self, alert: Alert) -> bool:
        """Whether an alert's window has events of its time, and the alert is about it."""
        data = alert.data
        return (
            data.model == self.model
            and self.version in (None, data.version)
            and data.window.start_ms < self.to_ms
            and self.from_ms < data.window.end_ms
            and (self.feature is None or self.feature in {data.feature, *(member.feature for member in data.members)})
        )


class Difference(NamedTuple):
    """One alert, and which of two policies tells it. alert: as the new one tells it, if it does."""

    change: Literal["added", "removed", "changed", "kept"]
    alert: Alert


def differences(old: Backtest, new: Backtest) -> list[Difference]:
    """Return all alerts of both by window; `changed`: of the same id, with another severity or other members."""
    before, after = ({alert.id: alert for alert in each.alerts} for each in (old, new))
    found = [Difference("removed", alert) for id_, alert in before.items() if id_ not in after]
    for id_, alert in after.items():
        if id_ not in before:
            found.append(Difference("added", alert))
        else:
            found.append(Difference("kept" if _content(alert) == _content(before[id_]) else "changed", alert))
    return sorted(found, key=lambda one: (one.alert.data.window.end_ms, one.alert.data.model, one.alert.id))


def _content(alert: Alert) -> object:
    members = [(one.check, one.feature, one.segment, one.over, one.severity) for one in alert.data.members]
    return alert.data.severity, alert.data.check, alert.data.feature, alert.data.routes, sorted(members, key=str)


class Score(NamedTuple):
    """Alerts beside known incidents."""

    fired: int
    right: int
    """Fired alerts that a known incident explains."""
    known: int
    found: int
    """Known incidents that an alert tells of."""
    missed: list[KnownIncident]
    delays_ms: list[int]
    """Of the found ones: from their beginning to the end of the first window that told, or to the look into it."""

    @property
    def precision(self) -> float | None:
        """Share of the fired alerts that are right; None where none fired."""
        return self.right / self.fired if self.fired else None

    @property
    def recall(self) -> float | None:
        """Share of the known incidents that were found; None where none is known."""
        return self.found / self.known if self.known else None


def score(outcome: Backtest, known: Sequence[KnownIncident]) -> Score:
    """Compare what fired with what is known to have been wrong. An alert that only got worse is not counted again."""
    fired = outcome.fired
    telling = {i: [a for a in outcome.alerts if a.data.status == "firing" and one.is_told_by(a)] for i, one in enumerate(known)}
    return Score(
        fired=len(fired),
        right=sum(any(one.is_told_by(alert) for one in known) for alert in fired),
        known=len(known),
        found=sum(map(bool, telling.values())),
        missed=[one for i, one in enumerate(known) if not telling[i]],
        delays_ms=[min(map(_told_ms, told)) - known[i].from_ms for i, told in telling.items() if told],
    )


def _told_ms(alert: Alert) -> int:
    look = alert.data.look
    return alert.data.window.end_ms if look is msgspec.UNSET else look.upto_ms
