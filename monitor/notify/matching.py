"""Which route, owner and silence an alert is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from monitor.alerts import AlertData
from monitor.config.notify import Match, Owner


def matches(match: Match, data: AlertData, owner: str | None) -> bool:
    """Whether an alert is one of those that a route is for."""
    return (
        _any(match.models, data.model)
        and _any(match.versions, data.version)
        and _any(match.segments, data.segment)
        and _any(match.checks, data.check)
        and _any(match.features, data.feature)
        and (not match.severities or data.severity in match.severities)
        and (not match.owners or owner in match.owners)
    )


def owner_of(owners: Mapping[str, Owner], data: AlertData) -> str | None:
    """Return the first owner whose alert it is."""
    for name, owner in owners.items():
        if (
            _any(owner.models, data.model)
            and _any(owner.segments, data.segment)
            and _any(owner.checks, data.check)
            and _any(owner.features, data.feature)
        ):
            return name
    return None


def _any(patterns: tuple[str, ...], name: str | None) -> bool:
    """Whether a name is one of the patterns; `amount[usd]` is a name too. Without patterns every name is, and no name."""
    return not patterns or (name is not None and (name in patterns or any(fnmatchcase(name, p) for p in patterns)))


class _Matcher(msgspec.Struct, rename="camel"):
    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True


class _Status(msgspec.Struct):
    state: str = "active"


class Silence(msgspec.Struct, rename="camel"):
    """A silence as `/api/v2/silences` has it. An alert is silenced when all matchers match."""

    id: str
    matchers: list[_Matcher]
    starts_at: datetime
    ends_at: datetime
    created_by: str = ""
    comment: str = ""
    status: _Status = msgspec.field(default_factory=_Status)


class ActiveSilence:
    """A silence that is, or can come, in force. Raises ValueError for one that cannot be understood."""

    def __init__(self, silence: Silence) -> None:
        self.silence = silence
        self.starts_ms = int(silence.starts_at.timestamp() * 1_000)
        self.ends_ms = int(silence.ends_at.timestamp() * 1_000)
        try:
            self._tests = [
                (m.name, re.compile(m.value if m.is_regex else re.escape(m.value)), m.is_equal) for m in silence.matchers
            ]
        except re.error as error:
            raise ValueError(f"silence {silence.id}: {error}") from error

    def silences(self, labels: Mapping[str, str], now_ms: int) -> bool:
        """Whether an alert with these labels is silenced now; a label that is not there is empty, as in Alertmanager."""
        return self.starts_ms <= now_ms < self.ends_ms and all(
            bool(pattern.fullmatch(labels.get(name, ""))) == is_equal for name, pattern, is_equal in self._tests
        )


def understood(silences: Iterable[Silence]) -> tuple[list[ActiveSilence], list[str]]:
    """Return the silences that are not expired, and a sentence for each that cannot be understood."""
    found, problems = [], []
    for silence in silences:
        if silence.status.state == "expired":
            continue
        try:
            found.append(ActiveSilence(silence))
        except ValueError as error:
            problems.append(str(error))
    return found, problems
