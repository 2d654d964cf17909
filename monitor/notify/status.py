"""What fires now, who looks after it, what is silenced, and how far each route has come: read from the topics, no process is asked."""

from __future__ import annotations

import dataclasses
import getpass
import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck

from monitor.acks import Ack
from monitor.alerts import iso
from monitor.config.settings import Config
from monitor.errors import ConfigError, InputError
from monitor.notify.acknowledged import Acks, acks_topic, publish_ack, read_acks
from monitor.notify.notice import Notice
from monitor.notify.outbound import Undelivered
from monitor.notify.progress import withheld_in
from monitor.notify.receivers import AlertmanagerApi
from monitor.notify.route import group_of, read_notice
from monitor.notify.silences import Silences, read_silences
from monitor.runtime.broker import TIMEOUT_S, partition_counts, read_to_end, reader

MIN_PREFIX = 8


@dataclasses.dataclass(slots=True)
class _Incident:
    notice: Notice
    ids: set[str]
    is_open: bool


def _incidents(config: Config, partitions: int) -> dict[str, _Incident]:
    """Return every incident that the alerts topic has, by id."""
    found: dict[str, _Incident] = {}
    for message in read_to_end(config.kafka, f"{config.app}.alerts", partitions=partitions):
        notice = read_notice(config, message)
        if notice is None:
            continue
        one = found.setdefault(notice.incident_id, _Incident(notice, set(), is_open=False))
        if notice.id in one.ids:
            continue
        one.ids.add(notice.id)
        one.is_open = notice.is_firing
        one.notice = notice if notice.is_firing else one.notice
    return found


def _partitions(config: Config) -> tuple[int, int]:
    """Return the partitions of alerts and acknowledgements. Raises ConfigError."""
    counts = partition_counts(config.kafka)
    topics = (f"{config.app}.alerts", acks_topic(config))
    missing = [f"topic {topic} is missing; `monitor topics create` makes it" for topic in topics if topic not in counts]
    if missing:
        raise ConfigError(missing)
    return counts[topics[0]], counts[topics[1]]


def acknowledge(config: Config, alert: str, *, by: str | None, comment: str, is_undo: bool) -> str:
    """Write the acknowledgement of the incident that an alert belongs to, or take it back; return the incident's id.

    alert: the id of an alert or incident, or its first characters, at least 8. Raises InputError, ConfigError.
    """
    if len(alert) < MIN_PREFIX:
        raise InputError(f"{alert}: at least the first {MIN_PREFIX} characters of an alert's id are expected")
    partitions, _ = _partitions(config)
    found = _incidents(config, partitions)
    meant = {incident_id: one for incident_id, one in found.items() if any(i.startswith(alert) for i in (incident_id, *one.ids))}
    if not meant:
        raise InputError(
            f"{alert}: no alert on {config.app}.alerts has an id that begins so; `monitor notify status` lists what fires"
        )
    if len(meant) > 1:
        raise InputError(
            f"{alert}: alerts of {len(meant)} incidents begin so; give more characters: {', '.join(sorted(meant)[:5])}"
        )
    ((incident_id, one),) = meant.items()
    if not one.is_open:
        raise InputError(f"{alert}: its incident is resolved; there is nothing to look after")
    now_ms = time.time_ns() // 1_000_000
    ack = Ack(incident_id=incident_id, by=by or getpass.getuser(), comment=comment, at=iso(now_ms), at_ms=now_ms)
    publish_ack(config, incident_id, None if is_undo else ack)
    return incident_id


def open_incidents(config: Config, silences: Silences) -> Iterator[dict[str, Any]]:
    """Yield what fires, oldest first: id, since when, labels, who looks after it, and the silence in force."""
    partitions, ack_partitions = _partitions(config)
    acks = Acks()
    read_acks(config, ack_partitions, acks)
    now_ms = time.time_ns() // 1_000_000
    firing = [(i, one.notice) for i, one in _incidents(config, partitions).items() if one.is_open]
    for incident_id, notice in sorted(firing, key=lambda item: (item[1].alert.data.opened_ms, item[0])):
        ack, silence = acks.get(incident_id), silences.of(notice, now_ms)
        yield {
            "incident_id": incident_id,
            "since": iso(notice.alert.data.opened_ms),
            "labels": notice.labels,
            "acknowledged": {"by": ack.by, "at": ack.at, "comment": ack.comment} if ack else None,
            "silenced": {"id": silence.id, "by": silence.created_by, "comment": silence.comment} if silence else None,
        }


def silences_now(config: Config) -> tuple[Silences, str | None]:
    """Return the silences, and why they are not known."""
    silences = Silences()
    if config.notify.alertmanager is None:
        return silences, None
    api = AlertmanagerApi(config.notify.alertmanager)
    try:
        read_silences(api, silences)
    except Undelivered as error:
        return silences, str(error)
    finally:
        api.close()
    return silences, None


def route_positions(config: Config) -> Iterator[dict[str, Any]]:
    """Yield, by route, how many records are not dealt with yet, and how many wait for the end of a silence."""
    topic = f"{config.app}.alerts"
    partitions, _ = _partitions(config)
    for name, route in config.notify.routes.items():
        consumer = reader(config.kafka, **{"group.id": group_of(config, name)})
        try:
            wanted = [ck.TopicPartition(topic, p) for p in range(partitions)]
            behind, withheld, is_started = 0, 0, False
            for found in consumer.committed(wanted, timeout=TIMEOUT_S):
                _, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, found.partition), timeout=TIMEOUT_S)
                if found.offset >= 0:
                    is_started = True
                    behind += max(0, high - found.offset)
                    withheld += len(withheld_in(found.metadata))
        finally:
            consumer.close()
        yield {
            "route": name, "receiver": route.receiver, "enabled": route.enabled, "started": is_started, "behind": behind,
            "withheld": withheld,
        }  # fmt: skip
