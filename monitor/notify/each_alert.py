"""What a webhook, or people, are sent: each alert once, in the order of its incident, and a reminder while it fires if that is asked for.

A receiver that fails is tried again by the breaker's clock, and the alerts wait. One that uses up its tries lets the others go first;
if one of them gets through and it still does not, it is a dead letter, and so is one that waited for longer than `max_age`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monitor.config.notify import RouteConfig
from monitor.notify.breaker import Breaker
from monitor.notify.notice import Bury, Mutes, Notice, Send, Step, Verdict
from monitor.notify.progress import Partitions, Progress

MAX_QUEUE = 1_000
TRIES = 6
"""One, and five more."""


@dataclass(slots=True)
class _Entry:
    """An alert that waits.

    since_ms: its age counts from here. is_reminder: its incident was told before. successes_before: of the route, when it had used up
    its tries. bury: why it is a dead letter.
    """

    notice: Notice
    since_ms: int
    is_reminder: bool = False
    tries: int = 0
    successes_before: int = 0
    bury: str = ""


@dataclass(slots=True)
class _Firing:
    """An incident that fires. is_told: the receiver, or whoever looks after it, knows. is_withheld: until a silence ends.

    remind_ms: when to tell it again; None while that is not known.
    """

    notice: Notice
    is_told: bool = False
    is_withheld: bool = False
    remind_ms: int | None = None


class EachAlert(Partitions):
    """One route's queue. is_wanted: whether an alert is for this route.

    People are spared what a webhook gets: restated numbers of an incident that they know of,
    and incidents that somebody looks after.
    """

    def __init__(self, route: RouteConfig, mutes: Mutes, breaker: Breaker, is_wanted: Callable[[Notice], bool]) -> None:
        self._max_age_ms = route.max_age
        self._resend_ms = route.resend
        self._is_for_people = route.receiver == "people"
        self._mutes = mutes
        self._is_wanted = is_wanted
        self.breaker = breaker
        super().__init__()
        self._queue: dict[tuple[int, int], _Entry] = {}
        self._firing: dict[str, _Firing] = {}
        self._successes = 0

    # --- the topic

    def revoked(self, partition: int) -> None:
        """A partition is somebody else's."""
        super().revoked(partition)
        self._queue = {place: entry for place, entry in self._queue.items() if place[0] != partition}
        self._firing = {i: firing for i, firing in self._firing.items() if firing.notice.partition != partition}

    def take(self, notice: Notice) -> None:
        """Take the next record of a partition in."""
        reached = self._reach(notice)
        if reached is None:
            return
        progress, is_known = reached
        if not (self._is_wanted(notice) or notice.incident_id in self._firing):
            return
        if notice.is_firing:
            self._take_firing(notice, progress, is_known=is_known)
        elif is_known:
            self._forget(notice)
        else:
            self._take_resolved(notice, progress)

    def _take_firing(self, notice: Notice, progress: Progress, *, is_known: bool) -> None:
        before = self._firing.get(notice.incident_id)
        firing = self._firing[notice.incident_id] = _Firing(notice, is_told=before is not None and before.is_told)
        if before is not None:  # the same incident with restated numbers, or again after an end that was taken back
            self._drop_reminder(before)
            progress.release(before.notice.offset, by=notice.offset)
        if is_known:
            firing.is_withheld = notice.offset in progress.withheld
            firing.is_told = not firing.is_withheld
        else:
            self._enqueue(_Entry(notice, notice.timestamp_ms), progress)

    def _take_resolved(self, notice: Notice, progress: Progress) -> None:
        firing = self._firing.get(notice.incident_id)
        if firing is not None:
            self._drop_reminder(firing)
            if not firing.is_told and not any(e.notice.incident_id == notice.incident_id for e in self._queue.values()):
                self.counts["silenced" if firing.is_withheld else "untold"] += 1
                self._forget(notice)
                return
        self._enqueue(_Entry(notice, notice.timestamp_ms), progress)

    def _enqueue(self, entry: _Entry, progress: Progress) -> None:
        progress.take(entry.notice.offset)
        self._queue[_place(entry.notice)] = entry

    def _drop_reminder(self, firing: _Firing) -> None:
        entry = self._queue.get(_place(firing.notice))
        if entry is not None and entry.is_reminder:
            self._leave(entry)

    def _forget(self, resolved: Notice) -> None:
        """An incident has ended; unless it fires again by now."""
        firing = self._firing.get(resolved.incident_id)
        if firing is None:
            return
        if firing.notice.offset > resolved.offset:
            firing.is_told = False
            return
        del self._firing[resolved.incident_id]
        self._partitions[resolved.partition].release(firing.notice.offset, by=resolved.offset)

    # --- the receiver

    def next(self, now_ms: int) -> Step | None:
        """Return what to do now; `done` must follow before the next question."""
        self._requeue(now_ms)
        for entry in list(self._queue.values()):
            if now_ms - entry.since_ms > self._max_age_ms:
                entry.bury = entry.bury or "expired"
            if entry.bury and entry.is_reminder:
                self._leave(entry)  # its incident was told before: nothing is lost
            elif entry.bury:
                return Bury(entry.notice, entry.bury)
        if now_ms < self.breaker.due_ms:
            return None
        while (chosen := self._choose()) is not None:
            if not self._is_muted(chosen, now_ms):
                return Send((chosen.notice,))
        return None

    def done(self, step: Step, verdict: Verdict, now_ms: int) -> None:
        """Take in what became of a step."""
        notice = step.notice if isinstance(step, Bury) else step.notices[0]
        entry = self._queue.get(_place(notice))
        if entry is None:  # its partition is somebody else's now, who sends it again
            return
        if verdict.outcome == "failed":
            self.counts["failed"] += 1
            self.breaker.failed(now_ms)
            if isinstance(step, Send):
                self._failed(entry)
        elif isinstance(step, Bury):
            self.counts[step.reason] += 1
            self._settle(entry, is_told=False, now_ms=now_ms)
        else:
            self.breaker.succeeded()
            if verdict.outcome == "refused":
                entry.bury = "refused"
                return
            self._successes += 1
            self.counts["reminded" if entry.is_reminder else "delivered"] += 1
            self._settle(entry, is_told=True, now_ms=now_ms)

    def _failed(self, entry: _Entry) -> None:
        entry.tries += 1
        if entry.tries == TRIES:
            entry.successes_before = self._successes
        elif entry.tries > TRIES and self._successes > entry.successes_before:
            entry.bury = "undeliverable"

    def _settle(self, entry: _Entry, *, is_told: bool, now_ms: int) -> None:
        notice = entry.notice
        self._leave(entry)
        if not notice.is_firing:
            self._forget(notice)
        elif (firing := self._firing.get(notice.incident_id)) is not None and not entry.is_reminder:
            firing.is_told = is_told
            firing.is_withheld = False
            firing.remind_ms = now_ms + self._resend_ms
            self._partitions[notice.partition].release(notice.offset)

    def _leave(self, entry: _Entry) -> None:
        self._queue.pop(_place(entry.notice), None)
        self._partitions[entry.notice.partition].finish(entry.notice.offset)

    def _choose(self) -> _Entry | None:
        """Return the oldest, those that used up their tries last; never one before an earlier alert of its incident."""
        best: _Entry | None = None
        incidents: set[str] = set()
        for entry in self._queue.values():
            if entry.notice.incident_id not in incidents and (best is None or _rank(entry) < _rank(best)):
                best = entry
            incidents.add(entry.notice.incident_id)
        return best

    def _is_muted(self, entry: _Entry, now_ms: int) -> bool:
        """Whether it is not to be sent now after all; it has then left the queue."""
        notice = entry.notice
        firing = self._firing.get(notice.incident_id)
        if not notice.is_firing:
            return self._is_muted_end(entry, firing, now_ms)
        assert firing is not None
        if self._is_for_people and firing.is_told and not entry.is_reminder:
            self.counts["restated"] += 1
            self._leave(entry)
            return True
        is_acknowledged = self._is_for_people and self._mutes.ack(notice.incident_id) is not None
        if not is_acknowledged and not self._mutes.is_silenced(notice, now_ms):
            return False
        if entry.is_reminder:
            self._leave(entry)
        elif is_acknowledged:
            self.counts["acknowledged"] += 1
            self._settle(entry, is_told=True, now_ms=now_ms)
        else:
            self._silence(entry, firing, now_ms)
        return True

    def _is_muted_end(self, entry: _Entry, firing: _Firing | None, now_ms: int) -> bool:
        if firing is None:  # told before, and forgotten; people need not read restated numbers of an end
            outcome = "restated" if self._is_for_people and entry.notice.alert.data.supersedes else ""
        else:
            outcome = "" if firing.is_told else "silenced" if firing.is_withheld else "untold"
        if not outcome:
            return False
        self.counts[outcome] += 1
        self._settle(entry, is_told=True, now_ms=now_ms)
        return True

    def _silence(self, entry: _Entry, firing: _Firing, now_ms: int) -> None:
        """Take an alert out of the queue; if its receiver knows nothing of the incident yet, until the silence ends."""
        notice = entry.notice
        self._leave(entry)
        self.counts["silenced"] += not firing.is_withheld
        if firing.is_told or firing.notice is not notice:
            return
        firing.is_withheld = True
        self._partitions[notice.partition].withhold(notice.offset)
        for end in [e for e in self._queue.values() if e.notice.incident_id == notice.incident_id]:
            self._is_muted(end, now_ms)  # it was over before the silence was

    def _requeue(self, now_ms: int) -> None:
        """Queue what a silence held back until now, and reminders that are due; they hold no commit back."""
        for firing in self._firing.values():
            notice = firing.notice
            if _place(notice) in self._queue or not self._partitions[notice.partition].is_loaded:
                continue
            if firing.is_withheld:
                if not self._mutes.is_silenced(notice, now_ms):
                    self._queue[_place(notice)] = _Entry(notice, now_ms)
            elif firing.is_told and self._resend_ms:
                if firing.remind_ms is None:  # told in an earlier life, at about the time of its record
                    age = max(0, now_ms - notice.timestamp_ms)
                    firing.remind_ms = notice.timestamp_ms + (age // self._resend_ms + 1) * self._resend_ms
                if now_ms >= firing.remind_ms:
                    firing.remind_ms = now_ms + self._resend_ms
                    self._queue[_place(notice)] = _Entry(notice, now_ms, is_reminder=True)

    # --- what is known of it

    @property
    def is_full(self) -> bool:
        """Whether no more should be read."""
        return len(self._queue) >= MAX_QUEUE

    def gauges(self) -> dict[str, float]:
        """Return the length of the queue, the time of its oldest record (epoch ms, 0 without one), and incidents by state."""
        waiting = [entry.since_ms for entry in self._queue.values()]
        firing = self._firing.values()
        return {
            "queue": len(waiting),
            "oldest_ms": min(waiting, default=0),
            "firing": len(firing),
            "silenced": sum(one.is_withheld for one in firing),
            "acknowledged": sum(self._mutes.ack(incident_id) is not None for incident_id in self._firing),
        }


def _place(notice: Notice) -> tuple[int, int]:
    return notice.partition, notice.offset


def _rank(entry: _Entry) -> int:
    return entry.tries if entry.tries >= TRIES else 0
