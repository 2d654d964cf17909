"""One route: a thread with a consumer group of its own on the alerts topic, so that a receiver that is dead delays nobody else.

Every partition is read from its beginning: records before the committed offset only tell what fires and which ids were seen, so a crash
forgets nothing; those after it are dealt with. The offset is committed after each step, and never beyond an alert that waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import confluent_kafka as ck
import structlog

from monitor.config.settings import Config
from monitor.notify.each_alert import EachAlert
from monitor.notify.labels import labels_of
from monitor.notify.matching import owner_of
from monitor.notify.notice import Bury, Notice, Step, Verdict, decode_alert
from monitor.notify.progress import Progress, withheld_in
from monitor.notify.receivers import Receiver
from monitor.notify.what_fires import WhatFires
from monitor.runtime.broker import TIMEOUT_S, client_settings, producer

BATCH = 100
POLL_S = 0.2
COMMIT_S = 1.0
OBSERVE_S = 1.0

log = structlog.get_logger()


Course = EachAlert | WhatFires


def group_of(config: Config, route: str) -> str:
    """Return the consumer group of a route."""
    return f"{config.app}-notify-{route}"


def read_notice(config: Config, message: ck.Message) -> Notice | None:
    """Return the alert of a record, None when it is none."""
    alert = decode_alert(message.value())
    if alert is None:
        return None
    labels = labels_of(alert, owner_of(config.notify.owners, alert.data))
    _, timestamp_ms = message.timestamp()
    place = message.partition() or 0, message.offset() or 0
    return Notice(*place, timestamp_ms, message.key(), message.value() or b"", alert, labels)


class RouteThread(threading.Thread):
    """Runs a route. failed: told what ended it; observed: called about once a second."""

    def __init__(
        self, config: Config, name: str, course: Course, receiver: Receiver,
        *, failed: Callable[[BaseException], None], observed: Callable[[RouteThread], None],
    ) -> None:  # fmt: skip
        super().__init__(name=f"route-{name}", daemon=True)
        self.route_name = name
        self.course = course
        self.turned_s = time.monotonic()
        self.lag = 0
        self.is_assigned = False
        self._config = config
        self._max_age_ms = config.notify.routes[name].max_age
        self._receiver = receiver
        self._failed = failed
        self._observed = observed
        self._topic = f"{config.app}.alerts"
        self._stop_asked = threading.Event()
        self._committed: dict[int, tuple[int, str]] = {}
        self._committed_s = self._observed_s = 0.0
        self._is_paused = False
        self._dead_letters: ck.Producer | None = None
        self._log = log.bind(route=name)
        self._consumer = ck.Consumer(
            client_settings(config.kafka)
            | {
                "group.id": group_of(config, name),
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted",
                "session.timeout.ms": config.kafka.session_timeout,
                "heartbeat.interval.ms": config.kafka.heartbeat_interval,
                "error_cb": lambda error: self._log.warning("broker", reason=error.str()),
            }
        )

    # --- running

    def run(self) -> None:
        """Run until it is asked to stop."""
        try:
            self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
            while not self._stop_asked.is_set():
                self._turn()
            self._commit()
            self._consumer.close()
            self._receiver.close()
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the process ends and reads again)
            self._failed(error)

    def stop(self) -> None:
        """Ask it to stop after the step at hand."""
        self._stop_asked.set()

    def _turn(self) -> None:
        self.turned_s = time.monotonic()
        step = self.course.next(_now_ms())
        if step is not None:
            self._do(step)
            self._commit()  # before a rebalance can be heard of
        for message in self._consumer.consume(BATCH, 0 if step is not None else POLL_S):
            self._take(message)
        self._hold_back()
        if time.monotonic() - self._committed_s >= COMMIT_S:
            self._commit()
        if time.monotonic() - self._observed_s >= OBSERVE_S:
            self._observed_s = time.monotonic()
            self._observed(self)

    def _do(self, step: Step) -> None:
        verdict = self._bury(step) if isinstance(step, Bury) else self._receiver.send(step)
        was_open = self.course.breaker.is_open
        self.course.done(step, verdict, _now_ms())
        if verdict.outcome != "delivered" or isinstance(step, Bury):
            alerts = [step.notice.id] if isinstance(step, Bury) else [notice.id for notice in step.notices[:3]]
            reason = step.reason if isinstance(step, Bury) else verdict.detail
            self._log.warning("not_delivered", outcome=verdict.outcome, reason=reason, alerts=alerts)
        if was_open != self.course.breaker.is_open:
            self._log.warning("receiver_dead" if self.course.breaker.is_open else "receiver_back")

    def _hold_back(self) -> None:
        """Read no more while the queue is full."""
        if self.course.is_full != self._is_paused:
            assignment = self._consumer.assignment()
            (self._consumer.resume if self._is_paused else self._consumer.pause)(assignment)
            self._is_paused = not self._is_paused

    # --- the topic

    def _take(self, message: ck.Message) -> None:
        error, partition = message.error(), message.partition() or 0
        if error is None:
            self._take_record(message)
        elif error.code() == ck.KafkaError._PARTITION_EOF:
            self.course.loaded(partition)
        elif error.fatal() or error.code() == ck.KafkaError._AUTO_OFFSET_RESET:
            raise ck.KafkaException(error)
        else:
            self._log.warning("broker", reason=error.str())

    def _take_record(self, message: ck.Message) -> None:
        notice = read_notice(self._config, message)
        if notice is not None:
            self.course.take(notice)
            return
        self.course.skip(message.partition() or 0, message.offset() or 0)
        self._log.warning("no_alert", partition=message.partition(), offset=message.offset())

    def _on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        for found in consumer.committed(partitions, timeout=TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(ck.TopicPartition(self._topic, found.partition), timeout=TIMEOUT_S)
            if found.offset > high:
                self._log.error("topic_is_younger_than_the_group", partition=found.partition, committed=found.offset, end=high)
            has_position = 0 <= found.offset <= high
            offset = found.offset if has_position else self._first_position(consumer, found.partition, high)
            self.course.assigned(found.partition, Progress(max(offset, low), withheld_in(found.metadata) if has_position else ()))
            self._committed[found.partition] = (found.offset, found.metadata or "")
        consumer.assign([ck.TopicPartition(self._topic, p.partition, ck.OFFSET_BEGINNING) for p in partitions])
        self._is_paused = False
        self.is_assigned = True
        self._commit()  # a first position must hold, even if nothing is delivered before a crash

    def _first_position(self, consumer: ck.Consumer, partition: int, high: int) -> int:
        """Return where a new route begins: with alerts that are not older than `max_age`."""
        since = ck.TopicPartition(self._topic, partition, max(0, _now_ms() - self._max_age_ms))
        (found,) = consumer.offsets_for_times([since], timeout=TIMEOUT_S)
        return int(found.offset) if found.offset >= 0 else high

    def _on_revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        for found in partitions:
            self.course.revoked(found.partition)
            self._committed.pop(found.partition, None)

    def _commit(self) -> None:
        self._committed_s = time.monotonic()
        changed = {p: at for p, at in self.course.positions().items() if self._committed.get(p) != at}
        if not changed:
            return
        offsets = [ck.TopicPartition(self._topic, p, offset, metadata=text) for p, (offset, text) in changed.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except ck.KafkaException as error:  # of a rebalance, or an outage: what is not committed is read and sent again
            self._log.warning("not_committed", reason=error.args[0].str())
            return
        self._committed |= changed

    def measure_lag(self) -> None:
        """Compare the committed positions with the ends that the consumer knows."""
        ends = {p: self._consumer.get_watermark_offsets(ck.TopicPartition(self._topic, p), cached=True) for p in self._committed}
        self.lag = sum(max(0, end[1] - self._committed[p][0]) for p, end in ends.items() if end is not None)

    def _bury(self, step: Bury) -> Verdict:
        """Put an alert on the dead-letter topic, its bytes unchanged, and await the acknowledgement."""
        if self._dead_letters is None:
            self._dead_letters = producer(self._config.kafka, **{"message.timeout.ms": 8_000})
        failures: list[str] = []

        def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
            if error is not None:
                failures.append(error.str())

        notice = step.notice
        facts = {
            "reason": f"notification_{step.reason}", "route": self.route_name, "topic": self._topic,
            "partition": notice.partition, "offset": notice.offset, "timestamp": notice.timestamp_ms,
        }  # fmt: skip
        headers = {f"__monitor.errors.{name}": str(value).encode() for name, value in facts.items()}
        self._dead_letters.produce(
            f"{self._config.app}.dead-letter", notice.value, key=notice.key, headers=headers, on_delivery=delivered
        )
        left = self._dead_letters.flush(10)
        return Verdict("failed", failures[0] if failures else "no broker answered") if left or failures else Verdict("delivered")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
