"""What the demo's workers gave back, as it comes and as it is summed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import orjson
from prometheus_client.samples import Sample
from rich.console import Console
from rich.table import Table

from monitor.demo.flights import DAY_MS, FAULTS, Fault
from monitor.performance.intervals import wilson
from monitor.segments import ALL
from monitor.windows import duration_text

Said = dict[str, Any]
LAST_AGE_MS = DAY_MS
"""When a day is reported for the last time."""
COLOURS = {"notice": "cyan", "warning": "yellow", "critical": "red"}


@dataclass
class Returned:
    """Records by what they are of. results: of all rows, by key. reports: of performance of all rows, the newest by end of window."""

    results: dict[bytes, Said] = field(default_factory=dict)
    reports: dict[int, Said] = field(default_factory=dict)
    alerts: dict[str, Said] = field(default_factory=dict)
    rejected: set[tuple[bytes, bytes]] = field(default_factory=set)
    n_records: int = 0
    _told: set[tuple[str, str, int]] = field(default_factory=set)
    _months_told: int = 0

    def result(self, key: bytes, value: bytes) -> None:
        """Take in a result, or a report of performance; what looks into open windows saw is not told."""
        self.n_records += 1
        result = orjson.loads(value)
        if result.get("type") == "look" or result["segment"] != ALL:
            return
        if result.get("type") != "performance":
            self.results[key] = result
            return
        known = self.reports.get(result["window"]["end_ms"])
        if known is None or known["revision"] < result["revision"]:
            self.reports[result["window"]["end_ms"]] = result

    def alert(self, value: bytes) -> Said | None:
        """Take in an alert; return it where it says more than a number that labels have changed since."""
        self.n_records += 1
        alert = orjson.loads(value)
        data: Said = alert["data"]
        self.alerts[alert["id"]] = data
        what = (data["incident_id"], data["status"], data["escalations"])
        if what in self._told:
            return None
        self._told.add(what)
        return data

    def reject(self, partition: bytes, offset: bytes) -> None:
        """Take in a dead letter."""
        self.n_records += 1
        self.rejected.add((partition, offset))

    def months_over(self, at_end: bool) -> Iterator[tuple[str, Said]]:
        """Yield months that are over and were not yielded, with their performance: each report is the final one, or no more come."""
        found = list(self._by_month().items())
        for month, reports in found[self._months_told : len(found) if at_end else -1]:
            if not at_end and not all(report["is_final"] for report in reports):
                return
            yield month, _of_month(reports)
            self._months_told += 1

    def performance(self) -> dict[str, Said]:
        """Return by month how good the model was on labelled flights, and what was expected of it on the days that this was shown."""
        return {month: _of_month(reports) for month, reports in self._by_month().items()}

    def _by_month(self) -> dict[str, list[Said]]:
        months: dict[str, list[Said]] = {}
        for end_ms in sorted(self.reports):
            months.setdefault(_day(end_ms - DAY_MS)[:7], []).append(self.reports[end_ms])
        return months

    def fired(self) -> list[Said]:
        """Return the alerts that fired, as labels have left them."""
        replaced = {alert["supersedes"] for alert in self.alerts.values()}
        return sorted(
            (a for key, a in self.alerts.items() if a["status"] == "firing" and key not in replaced),
            key=lambda a: (a["window"]["end_ms"], a["check"], a["feature"] or "", a["segment"]),
        )


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _of_month(reports: list[Said]) -> Said:
    """Return the accuracy of days together: confusions add up, estimates are means by flights."""
    hits = sum(row[i] for report in reports for i, row in enumerate(report["confusion"]["counts"]) if i < len(row) - 1)
    labelled = sum(report["labelled"] for report in reports)
    shown = [
        (report["estimated"]["values"]["accuracy"]["value"], report["n"]) for report in reports if report["estimated"]["values"]
    ]
    share = wilson(hits, labelled) if labelled else None
    return {
        "accuracy": share.value if share else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
        "estimated": sum(value * n for value, n in shown) / sum(n for _, n in shown) if shown else None,
        "estimated_days": len(shown),
        "days": len(reports),
        "labelled": labelled,
        "n": sum(report["n"] for report in reports),
    }


def _found_after(fault: Fault, fired: list[Said]) -> int | None:
    """Return after how many windows a fault was told above notice; None where it was not."""
    ends = [
        a["window"]["end_ms"]
        for a in fired
        if fault.from_ms < a["window"]["end_ms"] <= fault.to_ms + DAY_MS
        and any(
            m["feature"] == fault.feature and m["segment"] == fault.segment and m["is_open"] and m["severity"] != "notice"
            for m in a["members"]
        )
    ]
    return -(-(min(ends) - fault.from_ms) // DAY_MS) if ends else None


def summary(returned: Returned, produced: int, n_labels: int, samples: Iterable[Sample], seconds: float) -> Said:
    """Return what `--json` prints. n_labels: how many were sent. samples: of the workers' metrics."""
    samples, fired = list(samples), returned.fired()
    outcomes = ("joined", "orphan_labels", "duplicate_labels", "conflicting_labels", "expired_labels")
    return {
        "produced": produced,
        "counted": sum(result["n"] for result in returned.results.values()),
        "late": sum(_count(samples, "monitor_events_total", outcome) for outcome in ("late", "late_after_final")),
        "rejected": len(returned.rejected),
        "windows": len(returned.results),
        "labels": {"sent": n_labels}
        | {outcome.removesuffix("_labels"): _count(samples, "monitor_outcomes_total", outcome) for outcome in outcomes},
        "performance": returned.performance(),
        "last_report": _last_report(returned),
        "metrics": _last_in_metrics(samples),
        "alerts": [
            {
                "feature": a["feature"],
                "check": a["check"],
                "severity": a["severity"],
                "window_end_ms": a["window"]["end_ms"],
                "segment": a["segment"],
            }
            for a in fired
        ],
        "faults": [
            {
                "feature": fault.feature,
                "segment": fault.segment,
                "from_ms": fault.from_ms,
                "found_after_windows": _found_after(fault, fired),
                "what": fault.name,
            }
            for fault in FAULTS
        ],
        "seconds": round(seconds, 1),
    }


def _count(samples: Iterable[Sample], name: str, outcome: str) -> int:
    return int(sum(sample.value for sample in samples if sample.name == name and sample.labels.get("outcome") == outcome))


def _last_report(returned: Returned) -> Said:
    """Return the last final report of all rows."""
    end_ms, report = max(((end, report) for end, report in returned.reports.items() if report["is_final"]), key=itemgetter(0))
    accuracies = {"accuracy": report["values"].get("accuracy"), "estimated": report["estimated"]["values"].get("accuracy")}
    return {"window_end_ms": end_ms} | {name: one["value"] if one else None for name, one in accuracies.items()}


def _last_in_metrics(samples: Iterable[Sample]) -> Said:
    """Return the same as Prometheus is told it."""
    found: Said = {"window_end_ms": None, "accuracy": None, "estimated": None}
    for sample in samples:
        if sample.labels.get("segment") != ALL or sample.labels.get("age") != duration_text(LAST_AGE_MS):
            continue
        if sample.name == "monitor_performance_end_timestamp_seconds":
            found["window_end_ms"] = round(sample.value * 1000)
        elif sample.name == "monitor_performance" and sample.labels["metric"] == "accuracy":
            name = {"realised": "accuracy", "estimated": "estimated"}.get(sample.labels["kind"])
            found |= {name: sample.value} if name else {}
    return found


def is_exact(found: Said) -> bool:
    """Tell whether every event and every label of a summary is accounted for."""
    labels = found["labels"]
    return bool(
        found["produced"] == found["counted"] + found["late"] + found["rejected"]
        and labels["sent"] == labels["joined"] + labels["orphan"]
    )


def print_alert(console: Console, alert: Said) -> None:
    """Print a line about an alert."""
    colour = "green" if alert["status"] == "resolved" else COLOURS[alert["severity"]]
    where = alert["feature"] or ("model" if alert["segment"] == ALL else alert["segment"])
    console.print(
        f"[{colour}]{alert['window']['start'][:10]}  {alert['status']:8}  {alert['severity']:8}[/]  "
        f"{where:12} {alert['check']:22} {alert['value']:.3f}  (n={alert['n']})",
        soft_wrap=True,
    )


def print_month(console: Console, month: str, found: Said) -> None:
    """Print a line about how good the model was in a month."""
    if found["accuracy"] is None:
        return
    estimated = (
        f"; {found['estimated']:.3f} expected from its scores (on {found['estimated_days']} of {found['days']} days)"
        if found["estimated"] is not None
        else ""
    )
    console.print(
        f"[bold]{month}[/]     accuracy {_interval(found)} of {found['labelled']:,} flights that landed{estimated}",
        soft_wrap=True,
    )


def _interval(found: Said) -> str:
    return f"{found['accuracy']:.3f} \\[{found['low']:.3f}, {found['high']:.3f}]"


def print_summary(console: Console, found: Said) -> None:
    """Print the faults, the performance by month, and what became of every event and label."""
    table = Table(title="faults", title_justify="left")
    for name in ("what broke", "since", "found after", "found in"):
        table.add_column(name)
    for fault in found["faults"]:
        n = fault["found_after_windows"]
        after = f"{n} daily window{'s' * (n != 1)}" if n else "not found"
        table.add_row(
            fault["what"], _day(fault["from_ms"]), after, fault["feature"] or f"accuracy of {fault['segment']}" if n else ""
        )
    console.print(table)
    table = Table(title="accuracy by month (UTC)", title_justify="left")
    for name in ("month", "flights", "landed", "accuracy, 95 %", "expected", "on days"):
        table.add_column(name, justify="right", no_wrap=True)
    for month, of_month in found["performance"].items():
        if of_month["accuracy"] is None:
            continue
        expected = f"{of_month['estimated']:.3f}" if of_month["estimated"] is not None else "–"
        table.add_row(
            month,
            f"{of_month['n']:,}",
            f"{of_month['labelled']:,}",
            _interval(of_month),
            expected,
            f"{of_month['estimated_days']} of {of_month['days']}",
        )
    console.print(table)
    console.print(
        "expected: without labels, from the scores (CBPE); on days whose labels contradict it (concept drift) it is not shown"
    )
    accounted = found["counted"] + found["late"] + found["rejected"]
    console.print(
        f"{found['produced']:,} events produced = {found['counted']:,} counted + {found['late']:,} late "
        f"+ {found['rejected']:,} rejected{'' if accounted == found['produced'] else '  [red]— NOT EQUAL[/]'}"
    )
    labels = found["labels"]
    console.print(
        f"{labels['sent']:,} labels sent = {labels['joined']:,} joined + {labels['orphan']:,} without a prediction (planes in the air when "
        f"the demo began){'' if labels['sent'] == labels['joined'] + labels['orphan'] else '  [red]— NOT EQUAL[/]'}",
        soft_wrap=True,
    )
    console.print(f"{found['windows']} windows, {len(found['alerts'])} alerts, {found['seconds']:.0f} s")
