"""The process of `monitor notify`: a thread per route, silences and acknowledgements beside them, probes and metrics."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import confluent_kafka as ck
import structlog

from monitor.acks import Ack
from monitor.config.notify import RouteConfig
from monitor.config.settings import Config
from monitor.errors import ConfigError
from monitor.notify.acknowledged import AckFollower, Acks, acks_topic, read_acks
from monitor.notify.breaker import Breaker
from monitor.notify.each_alert import EachAlert
from monitor.notify.matching import matches
from monitor.notify.notice import Notice
from monitor.notify.receivers import receiver_of
from monitor.notify.route import Course, RouteThread
from monitor.notify.silences import SilenceReader, Silences
from monitor.notify.telemetry import NotifyTelemetry
from monitor.notify.what_fires import WhatFires
from monitor.runtime.broker import BrokerUnreachable, partition_counts
from monitor.runtime.exits import EXIT_CRASH, EXIT_UNREACHABLE, end_process
from monitor.runtime.http import serve
from monitor.runtime.logs import forward_libraries

STUCK_S = 120
"""A route whose step takes so long is not alive: a webhook has 5 s, people's services a few seconds each."""
FIRST_SILENCES_S = 6.0
"""Routes wait so long for the first answer about silences; without one, nothing is silenced."""
STOP_S = 15.0

log = structlog.get_logger()


class Mutes:
    """Silences and acknowledgements, as the routes ask for them."""

    def __init__(self, silences: Silences, acks: Acks) -> None:
        self._silences = silences
        self._acks = acks

    def is_silenced(self, notice: Notice, now_ms: int) -> bool:
        """Whether a silence of Alertmanager is in force for it."""
        return self._silences.of(notice, now_ms) is not None

    def ack(self, incident_id: str) -> Ack | None:
        """Return who looks after an incident."""
        return self._acks.get(incident_id)


def check_routes(config: Config) -> dict[str, RouteConfig]:
    """Return the routes that are on, after a look at everything that they need. Raises ConfigError."""
    routes = {name: route for name, route in config.notify.routes.items() if route.enabled}
    if not routes:
        raise ConfigError("notify.routes: nobody is to be told; docs/notify.md shows how to write a route")
    problems: list[str] = []
    for name, route in routes.items():
        try:
            receiver_of(name, route, config.notify).close()
        except ConfigError as error:
            problems += error.problems
    counts = partition_counts(config.kafka)
    wanted = (f"{config.app}.alerts", f"{config.app}.dead-letter", acks_topic(config))
    problems += [f"topic {topic} is missing; `monitor topics create` makes it" for topic in wanted if topic not in counts]
    if problems:
        raise ConfigError(problems)
    return routes


class Notifier:
    """One process. Several of one `app` share the partitions of the alerts topic, route by route."""

    def __init__(self, config: Config) -> None:
        forward_libraries()
        self._config = config
        self.silences, self.acks = Silences(), Acks()
        self.telemetry = NotifyTelemetry()
        self._mutes = Mutes(self.silences, self.acks)
        self._stop_asked = threading.Event()
        try:
            routes = check_routes(config)
            nexts = read_acks(config, partition_counts(config.kafka)[acks_topic(config)], self.acks)
        except (BrokerUnreachable, ck.KafkaException) as error:
            end_process(str(error), EXIT_UNREACHABLE)
        self._ack_follower = AckFollower(config, nexts, self.acks, _fatal("acks"))
        self._started_s = time.monotonic()
        alertmanager = config.notify.alertmanager
        self._silence_reader = SilenceReader(alertmanager, self.silences, _fatal("silences")) if alertmanager else None
        self.routes = [self._route(name, route) for name, route in routes.items()]
        self.server = serve(config.notify.bind, 0, self.telemetry.registry, self._livez, self._readyz)

    def _route(self, name: str, route: RouteConfig) -> RouteThread:
        def is_wanted(notice: Notice) -> bool:
            return matches(route.match, notice.alert.data, notice.labels.get("owner"))

        breaker = Breaker(random.random)
        course: Course
        if route.receiver == "alertmanager":
            assert self._config.notify.alertmanager is not None
            course = WhatFires(self._config.notify.alertmanager.resend, self._mutes, breaker, is_wanted)
        else:
            course = EachAlert(route, self._mutes, breaker, is_wanted)
        receiver = receiver_of(name, route, self._config.notify)
        return RouteThread(self._config, name, course, receiver, failed=_fatal(name), observed=self._observe)

    def _observe(self, route: RouteThread) -> None:
        now_ms, now_s = time.time_ns() // 1_000_000, time.monotonic()
        route.measure_lag()
        self.telemetry.counted(route.route_name, route.course.counts)
        is_open = route.course.breaker.is_open
        self.telemetry.observe(route.route_name, route.course.gauges(), is_open=is_open, lag=route.lag, now_ms=now_ms)
        self.telemetry.silences(self.silences.in_force(now_ms), now_s - (self.silences.read_s or self._started_s))

    # --- probes

    def _livez(self) -> tuple[bool, str]:
        oldest_s = time.monotonic() - min(route.turned_s for route in self.routes)
        return oldest_s < STUCK_S, f"the slowest route turned {oldest_s:.1f} s ago"

    def _readyz(self) -> tuple[bool, str]:
        """Whether every route is a member of its group and knows what fires; a receiver that is dead is no reason to start again."""
        waiting = [route.route_name for route in self.routes if not (route.is_assigned and route.course.is_loaded)]
        if waiting:
            return False, f"not read to the end yet: {', '.join(waiting)}"
        dead = [route.route_name for route in self.routes if route.course.breaker.is_open]
        return True, f"{len(self.routes)} routes" + (f"; receivers that are dead: {', '.join(dead)}" if dead else "")

    # --- running

    def run(self) -> NoReturn:
        """Run until SIGTERM or SIGINT; the exit code is that of the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop_asked.set())
        log.info("notifier_starts", http=f"{self._config.notify.bind.rpartition(':')[0]}:{self.server.server_port}")
        self._ack_follower.start()
        if self._silence_reader is not None:
            self._silence_reader.start()
            self._silence_reader.was_asked.wait(FIRST_SILENCES_S)
        for route in self.routes:
            route.turned_s = time.monotonic()
            route.start()
        self._stop_asked.wait()
        for route in self.routes:
            route.stop()
        deadline_s = time.monotonic() + STOP_S
        for route in self.routes:
            route.join(max(0.1, deadline_s - time.monotonic()))
        sys.exit(0)


def _fatal(what: str) -> Callable[[BaseException], None]:
    """Return what ends the process: it starts again and reads what fires anew."""

    def end(error: BaseException) -> None:
        is_kafka = isinstance(error, ck.KafkaException)
        end_process(f"{what}: {error!r}", EXIT_UNREACHABLE if is_kafka else EXIT_CRASH, exc_info=not is_kafka)

    return end
