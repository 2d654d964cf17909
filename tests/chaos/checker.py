"""Holds everything that was published, and the state that was left, against the oracle."""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec

from monitor.config.settings import Config
from monitor.runtime import topics
from monitor.runtime.broker import read_to_end
from monitor.stages.ingest.meta import COUNTED, LATE, IngestMeta
from monitor.stages.merge.meta import Meta
from monitor.stages.rows import META, Versions
from tests.chaos.ledger import Ledger
from tests.chaos.oracle import AlertKey, Expected, LogRecord, Rows, WindowKey, expect
from tests.chaos.plan import PARTITIONS, Plan
from tests.chaos.report import Report
from tests.chaos.workers import Scraper

ANY_EPOCH = (1 << 32) - 1
FOR_GOOD = 78
"""The exit code of a worker that the supervisor does not start again."""

Read = Callable[[str], Iterable[Any]]
"""Returns every record of a topic, as confluent-kafka's messages."""


@dataclass(frozen=True)
class Observed:
    """What a run leaves to be checked.

    was_killed: a worker was ended, so that its last counters were perhaps not seen. closing_ms: when control records ended the traffic,
    of live traffic. may_idle: partitions may fall silent, and a window be final before one of them speaks again: such rows are counted
    as late, and windows short of them are no anomaly as long as the numbers agree.
    """

    config: Config
    read: Read
    expected: Expected
    ledger: Ledger
    scraper: Scraper
    exits: list[tuple[int, int]]
    was_killed: bool
    closing_ms: int | None
    may_idle: bool


class Result(NamedTuple):
    """A result record, and when it was sent."""

    key: WindowKey
    revision: int
    value: bytes
    sent_ms: int


@dataclass
class Counts:
    """What the state says was read: by partition, and model."""

    counted: Counter[tuple[int, str]] = field(default_factory=Counter)
    late: Counter[tuple[int, str]] = field(default_factory=Counter)
    rejected: Counter[int] = field(default_factory=Counter)
    ticks: Counter[int] = field(default_factory=Counter)
    after_final: Counter[str] = field(default_factory=Counter)


def reading(config: Config) -> Read:
    """Return what reads the topics of an experiment."""
    return partial(read_to_end, config.kafka, partitions=PARTITIONS)


def expectation(read: Read, topic: str, plan: Plan) -> Expected:
    """Return what the oracle makes of the source topic."""
    return expect((LogRecord(m.partition(), m.offset(), m.timestamp()[1], m.value() or b"") for m in read(topic)), plan)


def results(read: Read, app: str) -> Iterator[Result]:
    """Yield the results of windows with rows, repeated ones too."""
    for message in read(f"{app}.results"):
        value = message.value() or b""
        record = json.loads(value)
        if record["n"] and "type" not in record:
            window = record["window"]
            key = WindowKey(record["model"], window["start_ms"], window["size_ms"], window["step_ms"])
            yield Result(key, record["revision"], value, message.timestamp()[1])


def published(read: Read, app: str) -> set[WindowKey]:
    """Return the windows that have a result."""
    return {result.key for result in results(read, app)}


def check(seen: Observed) -> Report:
    """Compare; figures are of what was published after all."""
    report = Report()
    expected = seen.expected
    if seen.ledger.given_up:
        report.add("UNACKNOWLEDGED", f"{seen.ledger.given_up} records")
    _check_log(report, seen)
    counts = _state_counts(seen)
    _check_results(report, seen, counts)
    _check_alerts(report, seen)
    _check_letters(report, seen)
    _check_counts(report, seen, counts)
    for index, code in seen.exits:
        if code == FOR_GOOD:
            report.add("ENDED", f"worker {index}")
    report.figures = {
        "events": sum(expected.records.values()) - sum(expected.ticks.values()),
        "late": sum(expected.late.values()),
        "rejected": sum(expected.rejected.values()),
        "windows": len(expected.windows),
    } | report.figures
    return report


def _check_log(report: Report, seen: Observed) -> None:
    """Every acknowledged record is on the log, once and unchanged: otherwise the broker has lost it."""
    missing = {partition: dict(offsets) for partition, offsets in seen.ledger.acknowledged.items()}
    for message in seen.read(seen.config.sources[0].topic):
        crc = missing.get(message.partition(), {}).pop(message.offset(), None)
        if crc is not None and crc != zlib.crc32(message.value() or b""):
            report.add("LOST", f"by the broker: {message.partition()}/{message.offset()} has another value")
    for partition, offsets in missing.items():
        if offsets:
            report.add("LOST", f"by the broker: {len(offsets)} acknowledged records of partition {partition}")


# --- results


def _check_results(report: Report, seen: Observed, counts: Counts) -> None:
    expected = seen.expected
    found: dict[WindowKey, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    n_records = n_distinct = 0
    for result in results(seen.read, seen.config.app):
        n_records += 1
        found[result.key][result.revision].add(result.value)
        due_ms = result.key.end_ms + expected.plan.grace_of(result.key.model)
        if seen.closing_ms is not None and result.sent_ms < due_ms <= seen.closing_ms:
            report.add("EARLY_CLOSE", f"{result.key} {due_ms - result.sent_ms} ms before its end and grace")
    lacking: Counter[str] = Counter()
    for key, revisions in sorted(found.items()):
        for revision, values in revisions.items():
            n_distinct += 1
            if len(values) > 1:
                report.add("CHANGED", f"{key} revision {revision}: {len(values)} contents")
        record = json.loads(min(revisions[max(revisions)]))
        rows = expected.windows.get(key, Rows())
        if seen.may_idle and record["n"] < rows.n:
            lacking[key.model] += (rows.n - record["n"]) if key.size_ms == key.step_ms else 0
        else:
            _check_rows(report, key, record, rows)
    for key in sorted(set(expected.windows) - set(found)):
        report.add("NEVER_CLOSED", f"{key} {expected.windows[key].n} rows")
    for model in sorted(lacking | counts.after_final):
        if lacking[model] != counts.after_final[model]:
            report.add("LOST", f"{model}: {lacking[model]} rows are in no window, {counts.after_final[model]} were counted late")
    report.figures |= {
        "results": n_records,
        "repeated_results": n_records - n_distinct,
        "late_after_final": sum(counts.after_final.values()),
    }


def _check_rows(report: Report, key: WindowKey, record: dict[str, Any], rows: Rows) -> None:
    if record["n"] != rows.n:
        report.add("LOST" if record["n"] < rows.n else "OVERCOUNTED", f"{key} {record['n']} of {rows.n}")
        return
    x, colour = record["features"]["x"], record["features"]["colour"]["cells"]
    known = {value: n for value, n in zip(colour["values"], colour["counts"], strict=True) if n}
    wanted = {value: n for value, n in rows.colours.items() if value in colour["values"]}
    n_x = rows.n - rows.missing
    sum_x = (x["mean"] or 0.0) * n_x
    is_same = known == wanted and colour["never_seen"] == rows.n - sum(wanted.values()) and x["missing"] == rows.missing
    if not is_same or sum(x["cells"]["counts"]) != n_x or abs(sum_x - rows.sum_x) > 1e-6:
        report.add("WRONG_CELLS", f"{key} {known} {x['missing']} {sum_x}, not {dict(rows.colours)} {rows.missing} {rows.sum_x}")


# --- alerts


def _check_alerts(report: Report, seen: Observed) -> None:
    """Every alert that the rules demand is there, and no other; not where a window may lack late rows, on which a rule depends."""
    values: dict[str, set[bytes]] = defaultdict(set)
    ids: dict[AlertKey, set[str]] = defaultdict(set)
    n_records = 0
    for message in seen.read(f"{seen.config.app}.alerts"):
        n_records += 1
        record = json.loads(message.value() or b"")
        data = record["data"]
        window = data["window"]
        key = AlertKey(data["model"], data["check"], window["start_ms"], window["end_ms"], window["kind"], data["status"])
        values[record["id"]].add(message.value() or b"")
        ids[key].add(record["id"])
    for name, different in values.items():
        if len(different) > 1:
            report.add("ALERT_CHANGED", f"{name}: {len(different)} contents")
    for key, several in ids.items():
        if len(several) > 1:
            report.add("DUP_ALERT", f"{key}: {len(several)} ids")
    report.figures |= {"alerts": len(values), "repeated_alerts": n_records - len(values)}
    if not seen.may_idle:
        _compare_alerts(report, seen.expected, {key: json.loads(min(values[min(of)])) for key, of in ids.items()})


def _compare_alerts(report: Report, expected: Expected, records: dict[AlertKey, dict[str, Any]]) -> None:
    wanted = expected.alerts()
    last_end: dict[tuple[str, str], int] = {}
    for window in expected.windows:
        kind = (window.model, "tumbling" if window.size_ms == window.step_ms else "hopping")
        last_end[kind] = max(last_end.get(kind, window.end_ms), window.end_ms)
    for key in sorted(wanted.keys() - records.keys()):
        report.add("ALERT_MISSING", f"{key} {wanted[key]}")
    for key in sorted(records.keys() - wanted.keys()):
        if key.end_ms <= last_end.get((key.model, key.kind), key.end_ms):  # windows after the last event resolve what is open
            report.add("ALERT_UNEXPECTED", f"{key}")
    firing = {(k.model, k.check, k.kind, k.end_ms): record["id"] for k, record in records.items() if k.status == "firing"}
    for key in sorted(wanted.keys() & records.keys()):
        data, facts = records[key]["data"], wanted[key]
        told = (data["n"], data["windows"], data["opened_ms"])
        is_same = abs(data["value"] - facts.value) < 1e-9 and told == (facts.n, facts.windows, facts.opened_ms)
        if not is_same or data["incident_id"] != firing.get((key.model, key.check, key.kind, facts.opened_ms)):
            report.add("ALERT_CHANGED", f"{key} {data['value']} {told}, not {facts}")


# --- dead letters


def _check_letters(report: Report, seen: Observed) -> None:
    expected = seen.expected
    letters: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for message in seen.read(f"{seen.config.app}.dead-letter"):
        headers = dict(message.headers() or [])
        place = tuple(int(headers[f"__monitor.errors.{name}"]) for name in ("partition", "offset"))
        letters[place[0], place[1]].add(message.value() or b"")
    for place, value in sorted(expected.letters.items()):
        if letters.get(place) != {value}:
            report.add("DLQ_MISSING", f"{place} {value[:80]!r}: {letters.get(place)}")
    for place in sorted(letters.keys() - expected.letters.keys()):
        report.add("DLQ_UNEXPECTED", f"{place} {min(letters[place])[:80]!r}")


# --- counters


def _newest_metas(seen: Observed, table: str) -> dict[int, bytes]:
    """Return the meta payload by partition, of whichever epoch counts."""
    rows: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)
    for message in seen.read(topics.changelog(seen.config.app, table)):
        rows[message.partition()][message.key() or b""] = message.value()
    found = {}
    for partition, of_partition in rows.items():
        best = Versions([(k, v) for k, v in of_partition.items() if v is not None], ANY_EPOCH).best
        if META in best:
            found[partition] = best[META].payload
    return found


def _state_counts(seen: Observed) -> Counts:
    """Return what the changelogs say was read."""
    counts = Counts()
    for partition, payload in _newest_metas(seen, topics.ingest_table(seen.config.sources[0].topic)).items():
        meta = msgspec.msgpack.decode(payload, type=IngestMeta)
        for model, versions in meta.models.items():
            counts.counted[partition, model] = sum(rows[COUNTED] for rows in versions.values())
            counts.late[partition, model] = sum(rows[LATE] for rows in versions.values())
        counts.rejected[partition] = sum(meta.rejected.values())
        counts.ticks[partition] = meta.ticks
    for payload in _newest_metas(seen, topics.MERGE_TABLE).values():
        counts.after_final += Counter(msgspec.msgpack.decode(payload, type=Meta).late)
    return counts


def _check_counts(report: Report, seen: Observed, counts: Counts) -> None:
    """The state's counts are the oracle's, by partition and model; what the workers told never fell, and was never more."""
    expected = seen.expected
    for key in sorted(expected.counted.keys() | expected.late.keys() | counts.counted.keys()):
        told, due = (counts.counted[key], counts.late[key]), (expected.counted[key], expected.late[key])
        if told[1] > due[1] and not seen.may_idle:
            report.add("EARLY_CLOSE", f"partition {key[0]}, {key[1]}: {told[1] - due[1]} events called late that were not")
        if told != due and (sum(told) != sum(due) or not seen.may_idle):
            report.add("COUNTERS", f"partition {key[0]}, {key[1]}: (counted, late) {told}, not {due}")
    for name, of_state, due in (("rejected", counts.rejected, expected.rejected), ("ticks", counts.ticks, expected.ticks)):
        if +of_state != +due:
            report.add("COUNTERS", f"{name} by partition {dict(of_state)}, not {dict(due)}")
    for text in seen.scraper.fallen:
        report.add("COUNTER_FELL", text)
    _check_told(report, seen)


def _check_told(report: Report, seen: Observed) -> None:
    """Compare the sums over all processes; exact where each was seen to its end."""
    expected, total = seen.expected, seen.scraper.total
    pairs: Iterable[tuple[str, int, int]] = (
        ("counted", total("monitor_events_total", outcome="counted"), sum(expected.counted.values())),
        ("late", total("monitor_events_total", outcome="late"), sum(expected.late.values())),
        ("rejected", total("monitor_rejections_total"), sum(expected.rejected.values())),
    )
    for name, told, due in () if seen.may_idle else pairs:
        if told > due or (told < due and not seen.was_killed and not seen.exits):
            report.add("COUNTERS", f"{name}: the workers told {told:,}, {due:,} are due")
