"""Published records as a backtest judges them: closed windows, looks into open ones, reports of performance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from monitor.alerts import WindowFacts
from monitor.decision.distributions import MEASURED_FOR_RULES
from monitor.errors import InputError
from monitor.findings import Measurement
from monitor.results.looks import LookResult, Seen, seen_of
from monitor.results.measured import measurements_of
from monitor.results.performance import PerformanceResult
from monitor.results.windows import Result
from monitor.segments import ALL
from monitor.told_early import told_of_results
from monitor.windows import Window

T = TypeVar("T")


class JudgedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one model version, from the results of its segments."""

    facts: WindowFacts
    measurements: list[Measurement]
    unmeasured: tuple[tuple[str, str], ...]
    """(check, segment) that no live rule was for, so that they were not measured: they cannot be judged. Check "": all of them."""
    policy: str
    """sha256 of the rules that were in force."""
    early: bytes = b""
    """What was told of it while it was open."""


class JudgedLook(NamedTuple):
    """What a look into an open window saw, and the sha256 of the rules that were in force."""

    seen: Seen
    policy: str


class Report(NamedTuple):
    """What was known of a model version's performance in a window at some time: the records of its segments, all rows first."""

    records: list[PerformanceResult]

    @property
    def whole(self) -> PerformanceResult:
        """The record of all rows."""
        return self.records[0]

    @property
    def window(self) -> Window:
        """Its window."""
        return self.whole.window.window


def read_reports(lines: Iterable[bytes]) -> list[Report]:
    """Return the reports of performance among result records, as they were made: by age, then by window. Raises InputError.

    What was published again of the same labels, because windows before it were restated, is no report: to judge finds it again.
    """
    found: dict[tuple[int, Window, str, str], dict[str, PerformanceResult]] = {}
    for record in _of_kind(lines, "performance", _decode_performance, "report of performance"):
        key = (record.as_of_ms, record.window.window, record.model, record.version)
        of_report = found.setdefault(key, {})
        known = of_report.get(record.segment)
        if known is None or record.revision < known.revision:
            of_report[record.segment] = record
    whole = [(key, by_segment) for key, by_segment in sorted(found.items(), key=lambda item: item[0]) if ALL in by_segment]
    return [Report([by_segment.pop(ALL), *by_segment.values()]) for _, by_segment in whole]


def read_results(lines: Iterable[bytes]) -> list[JudgedWindow]:
    """Return the windows of result records, in the order in which they were judged; the newest revision of each. Raises InputError.

    Looks into open windows and reports of performance are left out: `read_looks` and `read_reports` return them.
    """
    by_window: dict[tuple[str, str, Window], dict[str, Result]] = {}
    for result in _of_kind(lines, "", _decode, "result record"):
        of_window = by_window.setdefault((result.model, result.version, result.window.window), {})
        known = of_window.get(result.segment)
        if known is None or result.revision >= known.revision:
            of_window[result.segment] = result
    found = [_window(key, of_window) for key, of_window in by_window.items() if ALL in of_window]
    return sorted(found, key=lambda w: (w.facts.window, w.facts.model, w.facts.version))


def read_looks(lines: Iterable[bytes]) -> list[JudgedLook]:
    """Return the looks into open windows among result records, by window, then by time. Raises InputError."""
    looks = _of_kind(lines, "look", _decode_look, "record of a look")
    found = {record.id: JudgedLook(seen_of(record), record.policy) for record in looks}
    return sorted(found.values(), key=lambda one: (one.seen.window, one.seen.model, one.seen.upto_ms, one.seen.version))


class _Kind(msgspec.Struct):
    type: str = ""


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode = msgspec.json.Decoder(Result).decode
_decode_look = msgspec.json.Decoder(LookResult).decode
_decode_performance = msgspec.json.Decoder(PerformanceResult).decode


def _of_kind(lines: Iterable[bytes], kind: str, decode: Callable[[bytes], T], what: str) -> Iterator[T]:
    """Yield the records whose `type` is `kind`, "" of those that have none. what: they are, in words. Raises InputError."""
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            has_type = b'"performance"' in line or b'"look"' in line
            if (_decode_kind(line).type if has_type else "") != kind:
                continue
            record = decode(line)
        except msgspec.DecodeError as error:
            raise InputError(f"line {i + 1} is no {what} of this version: {error}") from error
        yield record


def _window(key: tuple[str, str, Window], of_window: dict[str, Result]) -> JudgedWindow:
    model, version, window = key
    whole = of_window[ALL]
    known = whole.n + whole.rows_other_layout + whole.lost_offsets
    facts = WindowFacts(
        model,
        version,
        window,
        whole.revision,
        completeness=whole.n / known if known else 1.0,
        late_dropped=whole.stream.late if whole.stream is not None else 0,
        reference_sha256=whole.reference,
        source_offsets=whole.source_offsets,
        views={name: (feature.feature, feature.view) for name, feature in whole.features.items()},
        is_complete=whole.reference is not None and whole.n > 0,
        design_effects=whole.design_effects,
    )
    return JudgedWindow(
        facts=facts,
        measurements=[one for name, result in of_window.items() for one in measurements_of(result.measurements, name)],
        unmeasured=tuple(at for name, result in of_window.items() for at in _unmeasured(name, result)),
        policy=whole.policy,
        early=told_of_results(whole.early) if whole.early is not msgspec.UNSET else b"",
    )


def _unmeasured(segment: str, result: Result) -> Iterator[tuple[str, str]]:
    if not result.measurements:
        yield "", segment
    elif result.reference is not None:
        yield from ((check, segment) for check in MEASURED_FOR_RULES if check not in result.measurements)
