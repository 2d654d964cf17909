"""How an alert is called by others: labels, annotations and texts for people. Labels are an alert's identity and never hold values."""

from __future__ import annotations

import re
from urllib.parse import quote

from monitor.acks import Ack
from monitor.alerts import Alert, AlertWindow, iso
from monitor.config.notify import LINK_FIELDS
from monitor.notify.notice import Posted

MAX_SHOWN_REASONS = 3


def labels_of(alert: Alert, owner: str | None) -> dict[str, str]:
    """Return the labels; two incidents that can be open at once differ in them, an incident's alerts do not."""
    data = alert.data
    found = {
        "alertname": data.check,
        "model": data.model,
        "version": data.version,
        "segment": data.segment,
        "feature": data.feature or "",
        "view": data.view or "",
        "window": window_name(data.window),
        "severity": data.severity,
        "owner": owner or "",
    }
    return {name: value for name, value in found.items() if value}


def window_name(window: AlertWindow) -> str:
    """Return the length of a window, and whether it hops: `1h`, `24h hopping`."""
    rest = window.end_ms - window.start_ms
    words = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        n, rest = divmod(rest, size)
        words += [f"{n}{unit}"] if n else []
    return "".join(words) + ("" if window.kind == "tumbling" else f" {window.kind}")


def summary(alert: Alert) -> str:
    """Return one line that says what happened to what."""
    data = alert.data
    what = data.feature or "the model"
    view = f" ({data.view})" if data.view else ""
    where = f" in {data.segment}" if data.segment != "all" else ""
    return f"{data.model} {data.version}: {data.check} of {what}{view}{where} {data.value:.4g} (threshold {data.threshold:g}, n={data.n})"


def description(alert: Alert) -> str:
    """Return what else an alert says, a sentence a line."""
    data = alert.data
    lines = [f"Window {data.window.start} to {data.window.end}."]
    if data.critical_value is not None:
        lines.append(f"Chance alone explains up to {data.critical_value:.4g} at this number of rows.")
    lines += [f"{r.bin}: {r.ref:.1%} in the reference, {r.cur:.1%} now." for r in data.why[:MAX_SHOWN_REASONS]]
    return "\n".join(lines)


def link_to(template: str | None, alert: Alert) -> str | None:
    """Return the address of the page about an alert."""
    if template is None:
        return None
    data = alert.data
    words = (data.model, data.version, data.segment, data.check, data.feature or "", data.incident_id)
    return template.format(**{name: quote(word, safe="") for name, word in zip(LINK_FIELDS, words, strict=True)})


def alertmanager_alert(posted: Posted, link: str | None, now_ms: int) -> dict[str, object]:
    """Return an alert of Alertmanager's API v2."""
    alert = posted.notice.alert
    starts_ms = min(alert.data.opened_ms, now_ms)
    annotations = {
        "summary": summary(alert),
        "description": description(alert),
        "alert_id": alert.id,
        "incident_id": alert.data.incident_id,
    }
    if posted.ack is not None:
        annotations["acknowledged"] = acknowledged(posted.ack)
    found: dict[str, object] = {
        "labels": posted.labels,
        "annotations": annotations,
        "startsAt": iso(starts_ms),
        "endsAt": iso(max(posted.ends_ms, starts_ms)),
    }
    address = link_to(link, alert)
    return found | ({"generatorURL": address} if address else {})


def acknowledged(ack: Ack) -> str:
    """Return who looks after it, since when, and what they say."""
    return f"{ack.by}, {ack.at}" + (f": {ack.comment}" if ack.comment else "")


def message(alert: Alert, owner: str | None, link: str | None) -> tuple[str, str]:
    """Return (title, text) for people."""
    data = alert.data
    title = f"[{data.severity}] {summary(alert)}" if data.status == "firing" else f"[resolved] {summary(alert)}"
    lines = [description(alert)]
    if owner:
        lines.append(f"Owner: {owner}.")
    if address := link_to(link, alert):
        lines.append(address)
    if data.status == "firing":
        lines.append(f"I look after it: monitor ack {data.incident_id[:12]}")
    lines.append(f"Alert {alert.id}")
    return re.sub(r"\s+", " ", title), "\n".join(lines)
