"""What Alertmanager is sent: the state of every incident, again and again while it fires, and for a while after it is resolved.

Alertmanager forgets what is not sent again, so the state matters more than the records; but each incident is posted as firing before it
is posted as resolved, however short it was. The wait is without end: a state does not grow old in a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from monitor.notify.breaker import Breaker
from monitor.notify.notice import Bury, Mutes, Notice, Posted, Send, Step, Verdict
from monitor.notify.progress import Partitions

MAX_POST = 256
"""Alerts per request."""
MAX_UNPOSTED = 10_000
RESEND_RESOLVED_MS = 5 * 60_000
OUTLASTS = 4
"""What fires ends itself after so many intervals, should it not be sent again."""


@dataclass(slots=True)
class _Incident:
    """firing, resolved: its alerts, as far as they were read. is_posted: as firing. over_ms: when it was first posted as resolved.

    labels: of its first alert, whatever the rules say by the time it is resolved, or restated.
    """

    labels: dict[str, str]
    firing: Notice | None = None
    resolved: Notice | None = None
    is_posted: bool = False
    over_ms: int | None = None
    due_ms: int = 0
    waiting: list[Notice] = field(default_factory=list)
    """Alerts that hold the position back until what they say, or what replaced it, is posted."""

    @property
    def notice(self) -> Notice:
        """Whose numbers are posted."""
        found = self.firing or self.resolved
        assert found is not None
        return found


class WhatFires(Partitions):
    """One route's incidents. resend_ms: how often they are sent again. is_wanted: whether an alert is for this route."""

    def __init__(self, resend_ms: int, mutes: Mutes, breaker: Breaker, is_wanted: Callable[[Notice], bool]) -> None:
        self._resend_ms = resend_ms
        self._mutes = mutes
        self._is_wanted = is_wanted
        self.breaker = breaker
        super().__init__()
        self._incidents: dict[str, _Incident] = {}
        self._unposted: dict[tuple[int, int], Notice] = {}
        self._refused: dict[tuple[int, int], Notice] = {}

    # --- the topic

    def revoked(self, partition: int) -> None:
        """A partition is somebody else's."""
        super().revoked(partition)
        self._incidents = {i: one for i, one in self._incidents.items() if one.notice.partition != partition}
        self._unposted = {place: notice for place, notice in self._unposted.items() if place[0] != partition}
        self._refused = {place: notice for place, notice in self._refused.items() if place[0] != partition}

    def take(self, notice: Notice) -> None:
        """Take the next record of a partition in."""
        reached = self._reach(notice)
        if reached is None:
            return
        progress, is_known = reached
        if not (self._is_wanted(notice) or notice.incident_id in self._incidents):
            return
        incident = self._incidents.setdefault(notice.incident_id, _Incident(notice.labels))
        incident.due_ms = 0
        if notice.is_firing:
            incident.firing, incident.resolved, incident.over_ms = notice, None, None
            incident.is_posted = is_known
        else:
            incident.resolved = notice
            incident.over_ms = notice.timestamp_ms if is_known else None
        if not is_known:
            progress.take(notice.offset)
            self._unposted[notice.partition, notice.offset] = notice
            incident.waiting.append(notice)

    # --- Alertmanager

    def next(self, now_ms: int) -> Step | None:
        """Return what to post now; `done` must follow before the next question."""
        for notice in self._refused.values():
            return Bury(notice, "refused")
        if now_ms < self.breaker.due_ms or not self.is_loaded:
            return None
        self._forget(now_ms)
        posted = tuple(self._due(now_ms))
        return Send(tuple(p.notice for p in posted), posted) if posted else None

    def _forget(self, now_ms: int) -> None:
        """Leave out what has been over for long enough, or whose labels belong to an incident that fires: that one speaks for both."""
        firing = {_identity(one) for one in self._incidents.values() if one.resolved is None}
        for incident_id, one in list(self._incidents.items()):
            if one.resolved is None or not (one.is_posted or one.firing is None):
                continue
            if one.over_ms is not None and now_ms - one.over_ms >= RESEND_RESOLVED_MS:
                del self._incidents[incident_id]
            elif _identity(one) in firing:
                self._settle(one, one.resolved.offset)
                del self._incidents[incident_id]

    def _due(self, now_ms: int) -> Iterator[Posted]:
        identities: set[frozenset[tuple[str, str]]] = set()
        for incident_id, one in self._incidents.items():
            identity = _identity(one)
            if one.due_ms > now_ms or identity in identities:
                continue
            identities.add(identity)
            is_firing = one.resolved is None or (one.firing is not None and not one.is_posted)
            over_ms = one.resolved.alert.data.window.end_ms if one.resolved else 0
            ends_ms = now_ms + OUTLASTS * self._resend_ms if is_firing else min(over_ms, now_ms)
            yield Posted(one.notice, one.labels, is_firing, ends_ms, self._mutes.ack(incident_id))
            if len(identities) == MAX_POST:
                return

    def done(self, step: Step, verdict: Verdict, now_ms: int) -> None:
        """Take in what became of a step."""
        if verdict.outcome == "failed":
            self.counts["failed"] += 1
            self.breaker.failed(now_ms)
            return
        if isinstance(step, Bury):
            self.counts[step.reason] += 1
            self._refused.pop((step.notice.partition, step.notice.offset), None)
            self._finish(step.notice)
            return
        self.breaker.succeeded()
        for i, posted in enumerate(step.posted):
            one = self._incidents.get(posted.notice.incident_id)
            if one is not None:
                is_refused = verdict.outcome == "refused" or i in verdict.refused
                self._posted(one, posted, now_ms, is_refused=is_refused)

    def _posted(self, one: _Incident, posted: Posted, now_ms: int, *, is_refused: bool) -> None:
        told = one.firing if posted.is_firing else one.resolved
        assert told is not None
        one.due_ms = now_ms + self._resend_ms
        if posted.is_firing:
            one.is_posted = True
            one.due_ms = 0 if one.resolved else one.due_ms
        elif one.over_ms is None:
            one.over_ms = now_ms
        place = told.partition, told.offset
        if place not in self._unposted:
            self.counts["failed" if is_refused else "reminded"] += 1
        elif is_refused:
            self._refused[place] = told
            one.waiting.remove(told)
        else:
            self.counts["delivered"] += 1
        self._settle(one, told.offset)

    def _settle(self, one: _Incident, offset: int) -> None:
        """What an incident's alerts said up to this one is posted, or does not hold any more."""
        for notice in [notice for notice in one.waiting if notice.offset <= offset]:
            if notice.offset < offset:
                self.counts["restated"] += 1
            self._finish(notice)
            one.waiting.remove(notice)

    def _finish(self, notice: Notice) -> None:
        self._unposted.pop((notice.partition, notice.offset), None)
        if notice.partition in self._partitions:
            self._partitions[notice.partition].finish(notice.offset)

    # --- what is known of it

    @property
    def is_full(self) -> bool:
        """Whether no more should be read."""
        return self.is_loaded and len(self._unposted) >= MAX_UNPOSTED

    def gauges(self) -> dict[str, float]:
        """Return the number of alerts not posted yet, the time of the oldest (epoch ms, 0 without one), and incidents by state."""
        firing = [i for i, one in self._incidents.items() if one.resolved is None]
        return {
            "queue": len(self._unposted),
            "oldest_ms": min((notice.timestamp_ms for notice in self._unposted.values()), default=0),
            "firing": len(firing),
            "silenced": 0,
            "acknowledged": sum(self._mutes.ack(incident_id) is not None for incident_id in firing),
        }


def _identity(incident: _Incident) -> frozenset[tuple[str, str]]:
    return frozenset(incident.labels.items())
