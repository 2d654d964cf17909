"""A rule: from which value on a measurement is bad, how bad, for how long before anybody is told, whom, and when nobody is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from monitor.features import without_view
from monitor.segments import ALL
from monitor.windows import WindowSpec, duration_text

Severity = Literal["notice", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")

DAY_MINUTES = 1_440
MONTH_MS = 30 * 86_400_000

Specificity = tuple[int, ...]


class FalseAlarms(msgspec.Struct, frozen=True):
    """How many alarms in a span of quiet event time are still acceptable."""

    n: float
    per_ms: int

    @property
    def per_month(self) -> float:
        """In 30 days.

        >>> FalseAlarms(1, 7 * 86_400_000).per_month > 4
        True
        """
        return self.of(MONTH_MS)

    def of(self, time_ms: int) -> float:
        """Return the share of it that belongs to a time.

        >>> round(DEFAULT_FALSE_ALARMS.of(86_400_000), 6)
        0.01
        """
        return self.n * time_ms / self.per_ms

    def __str__(self) -> str:
        return f"{self.n:g} per {duration_text(self.per_ms)}"


DEFAULT_FALSE_ALARMS = FalseAlarms(1.0, 100 * 86_400_000)


class Mute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When nothing opens an incident: a span of event time, or hours that come again.

    from_ms, to_ms: of a span, half-open. days: of the week, 0 is Monday; dates: of the year, (month, day); empty means every day.
    start, end: minutes of the day, half-open; an end at or before the start is of the next day. zone: IANA name.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    days: tuple[int, ...] = ()
    dates: tuple[tuple[int, int], ...] = ()
    start: int = 0
    end: int = DAY_MINUTES
    zone: str = "UTC"
    reason: str = ""

    def covers(self, end_ms: int) -> bool:
        """Whether a window that ends then is muted: its last moment lies in the mute.

        >>> night = Mute(start=22 * 60, end=6 * 60)
        >>> [night.covers(hour * 3_600_000) for hour in (6, 7, 22, 23, 24)]
        [True, False, False, True, True]
        """
        last_ms = end_ms - 1
        if self.from_ms is not None and self.to_ms is not None:
            return self.from_ms <= last_ms < self.to_ms
        try:
            local = datetime.fromtimestamp(last_ms // 1_000, UTC).astimezone(_zone(self.zone))
        except (ValueError, OverflowError, OSError):  # beyond the years 1 to 9999 there is no calendar
            return False
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return self.start <= minute < self.end and self._has_day(local)
        if minute >= self.start:
            return self._has_day(local)
        return minute < self.end and self._has_day(local - timedelta(days=1))

    def _has_day(self, day: datetime) -> bool:
        return (not self.days or day.weekday() in self.days) and (not self.dates or (day.month, day.day) in self.dates)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a check's value is bad, and what follows.

    above, below: the threshold; one of them. drop, rise: or a change relative to the reference's value, 0.05 is 5 % (performance).
    over: the value is the mean of so many windows. floor: an effect that is smaller is never bad, whatever chance says.
    windows: so many breaches in a row open an incident; `of`: so many among the last `of` windows (0: in a row).
    close_after: so many quiet windows in a row close it (0: as many as `windows`). cooldown_ms: it does not open again so soon after.
    features, models: names or wildcards that it is for; empty means all. A feature's name is for all its views.
    segments: likewise; empty means all rows only. specs: (size, step) of windows, step 0 for any; empty means all.
    false_alarms: what the user accepts of calibrated checks; None is the budget of the configuration. policy: the one that it stands in.
    levels: severity → value above which it is that severe; below all of them it is `severity`.
    weighting: what each window of a mean counts: its rows, or 1; "" is rows for performance and 1 for all else.
    """

    above: float | None = None
    below: float | None = None
    severity: Severity = "warning"
    windows: int = 1
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    enabled: bool = True
    drop: float | None = None
    rise: float | None = None
    over: int = 1
    floor: float | None = None
    of: int = 0
    close_after: int = 0
    cooldown_ms: int = 0
    specs: tuple[tuple[int, int], ...] = ()
    false_alarms: FalseAlarms | None = None
    mutes: tuple[Mute, ...] = ()
    owner: str = ""
    routes: tuple[str, ...] = ()
    policy: str = ""
    levels: dict[Severity, float] = {}
    weighting: Literal["", "rows", "windows"] = ""

    @property
    def threshold(self) -> float:
        """Whichever is set."""
        if self.above is not None:
            return float(self.above)
        given = (self.below, self.drop, self.rise)
        return float(next((limit for limit in given if limit is not None), 0.0))

    @property
    def quiet(self) -> int:
        """So many quiet windows in a row close an incident."""
        return self.close_after or self.windows

    def severity_of(self, value: float) -> Severity:
        """Return how bad a value beyond the threshold is."""
        if self.below is not None:
            return self.severity
        reached = [severity for severity, above in self.levels.items() if value > above]
        if not reached:
            return self.severity
        return max((self.severity, *reached), key=SEVERITIES.index)

    def is_muted(self, end_ms: int) -> bool:
        """Whether a window that ends then opens nothing."""
        return any(mute.covers(end_ms) for mute in self.mutes)

    def applies(self, model: str, segment: str, feature: str) -> bool:
        """Whether the rule is for this model, segment and feature."""
        return self.enabled and self.specificity(model, segment, feature) is not None

    def is_for(self, spec: WindowSpec) -> bool:
        """Whether the rule is for windows of that kind."""
        return not self.specs or any(size == spec.size_ms and step in (0, spec.step_ms) for size, step in self.specs)

    def specificity(self, model: str, segment: str, feature: str) -> Specificity | None:
        """Return how closely the rule fits, larger for the more specific one; None where it is not for them, switched on or off.

        By model, then feature, then segment, then windows. Of each: an exact name is over a wildcard, a wildcard with more other
        characters over one with fewer, both over none; a view's own name is over its feature's.
        """
        of_model = fit(model, self.models)
        of_segment = fit(segment, self.segments) if self.segments else ((0, 0) if segment == ALL else None)
        of_feature = fit(feature, self.features)
        if of_feature is None or of_feature[0] < 3:
            of_source = fit(without_view(feature), self.features)
            of_feature = max(
                filter(None, (of_feature, (min(of_source[0], 2), of_source[1]) if of_source else None)), default=None
            )
        if of_model is None or of_feature is None or of_segment is None:
            return None
        return (*of_model, *of_feature, *of_segment, 1 if self.specs else 0)


def fit(name: str, patterns: Iterable[str]) -> tuple[int, int] | None:
    """Return (3, 0) where a pattern is the name, (1, its literal characters) where one matches, (0, 0) without patterns, else None.

    >>> fit("loan_amount", ["*_amount"]), fit("age", ["age", "*"]), fit("age", []), fit("age", ["wage"])
    ((1, 7), (3, 0), (0, 0), None)
    """
    found: tuple[int, int] | None = None
    is_empty = True
    for pattern in patterns:
        is_empty = False
        if pattern == name:  # `amount[usd]` is a name too
            return 3, 0
        if fnmatchcase(name, pattern):
            found = max(found or (1, 0), (1, sum(character not in "*?" for character in pattern)))
    return (0, 0) if is_empty else found
