"""What a seed is about: models, sources, and the events, good and bad, that producers put on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from monitor.columns import About, ColumnBatch, DecodedBatch, Int, Payloads, Read
from monitor.decision.early import OpenWindow
from monitor.events import Rejection, RejectionReason
from monitor.findings import ClosedWindow, Judgement
from monitor.judgement.looks import Before, Looked
from monitor.layout import Layout
from monitor.ports import LOG_APPEND_TIME, Record
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.segments import Key, Segmentation
from monitor.stages.settings import ModelSettings, Revising, Settings, SourceSettings
from monitor.windows import WindowSpec
from tests.simulation.broker import Log

ZOMBIE_MS, IN_FLIGHT_MS = 90, 60
"""How long an owner may go on after it was replaced, and a message of a dead process may still be on its way."""
HOUR_MS = 3_600_000
ENDS_MS = (180, 180, 1_000)
"""Just after the last event, or far beyond: as many windows without rows as are published."""
MAX_FUTURE_MS, MAX_DELAY_MS, IDLE_AFTER_MS = 20, 80, 25
ALERT_ROWS = 3
TAGS = ("u", "v", "w")
BY_TAG = Segmentation((Key(name="tags.t"),), (("u",), ("v",)))
MALFORMED = (b"", b"{", b"[1]", b"\xff\xfe")
FAR_MS = (HOUR_MS, 24 * HOUR_MS, 100 * 365 * 24 * HOUR_MS, 1_700_000_000_000_000_000, 253_402_300_799_999)
"""Ahead by an hour, a day, a century; nanoseconds taken for milliseconds; the year 9999."""

PLAIN = ModelSettings((WindowSpec(10, 10),), grace_ms=4, sha256="plain")
MODELS = {
    "hops": ModelSettings((WindowSpec(10, 10), WindowSpec(30, 10)), grace_ms=4, sha256="hops"),
    "patient": ModelSettings((WindowSpec(20, 5),), grace_ms=12, sha256="patient"),
    "bound": ModelSettings((WindowSpec(20, 20),), grace_ms=0, sources=("y",), sha256="bound"),
}
RESTATED = "again"
REMEMBERED = "once"
WITH_LATE = {
    RESTATED: ModelSettings(
        (WindowSpec(10, 10), WindowSpec(30, 10)), grace_ms=4, sha256=RESTATED, revising=Revising(for_ms=50, every_ms=20)
    ),
    REMEMBERED: ModelSettings((WindowSpec(10, 10),), grace_ms=4, sha256=REMEMBERED, remember_ids_ms=40),
}
"""Of some scenarios with event time: late rows restate windows, and an id counts once."""
LONG = ModelSettings((WindowSpec(96, 96),), grace_ms=4, sha256="long", early_above_ms=50)
"""Looked at while it is open, every 2 ms of event time."""
EARLY_ROWS = 4
"""At each multiple of it a look tells something."""


class Wire:
    """`[model, version, time, tag]` in JSON, some with an id, `["tick", ms]` for a tick: events without features; anything else is refused."""

    in_tables = False

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        events, ticks, rejections = [], [], []
        for record in records:
            try:
                body = msgspec.json.decode(record.value or b"")
            except msgspec.DecodeError:
                body = None
            if isinstance(body, list) and len(body) in (4, 5):
                events.append((record, *body[:3], body[3:]))
            elif isinstance(body, list) and len(body) == 2:
                ticks.append((record.offset, body[1]))
            else:
                rejections.append((record.offset, Rejection(RejectionReason.MALFORMED_JSON)))
        keys = sorted({(model, version) for _, model, version, _, _ in events})
        return DecodedBatch(
            np.array([record.offset for record, *_ in events], np.int64),
            np.array([time for *_, time, _ in events], np.int64),
            np.array([record.timestamp for record, *_ in events], np.int64),
            keys,
            np.array([keys.index((model, version)) for _, model, version, _, _ in events], np.int64),
            Payloads(payload for *_, payload in events),
            ticks,
            [],
            rejections,
        )

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        return self.values(layout, payloads)

    def about(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> About:
        return About(None)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[object], offsets: Int) -> Read:
        return Read(self.values(layout, payloads), None, np.zeros(len(payloads), bool), {})

    def values(self, layout: Layout, payloads: Sequence[object]) -> ColumnBatch:
        tags = [[payload[0] for payload in payloads]] if layout.tags else []  # type: ignore[index]
        return ColumnBatch(len(payloads), np.zeros((0, len(payloads))), None, [], tags=tags)

    def ids(self, payloads: Sequence[object]) -> list[str | None]:
        return [payload[1] if len(payload) > 1 else None for payload in payloads]  # type: ignore[arg-type,index]

    def rows(self, payloads: Sequence[object]) -> list[dict[str, object]]:
        return [{} for _ in payloads]


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """Say a window's rows by segment and partition and its outsiders; alert above some. The state counts windows, and alerts, so far."""
    profile, n = closed.profile, closed.profile.n
    windows, alerts = msgspec.json.decode(before) if before else (0, 0)
    is_alert = n >= ALERT_ROWS
    windows, alerts = windows + 1, alerts + is_alert
    key = f"{closed.model}|{closed.version}|{closed.window.start_ms}|{closed.window.size_ms}|{closed.revision}".encode()
    counts = {name: profile.stream.count(name) for name in ("late", "future")}
    facts = {"n": n, "segments": profile.rows[1:].tolist(), "window": windows, "lost": closed.lost_offsets} | counts
    facts |= {name: profile.stream.most(name) for name in ("lateness", "ahead")}
    facts |= {"rows": closed.partition_rows, "offsets": closed.source_offsets, "other": closed.rows_other_layout}
    facts |= {"told": len(msgspec.json.decode(closed.early)) if closed.early else 0} if closed.model == "long" else {}
    sent = ((key, msgspec.json.encode({"n": n, "alert": alerts})),) if is_alert else ()
    after = msgspec.json.encode([windows, alerts])
    result = ((key, msgspec.json.encode(facts)),)
    return Judgement(result, sent, after, ("warning",) * is_alert, said=after, is_news=after != closed.said)


def look(window: OpenWindow, newest: Callable[[int], ClosedWindow], before: Before) -> Looked:
    """Tell the rows so far when they pass a multiple of `EARLY_ROWS`, once; and the windows before, and the newest rows. Publish all."""
    closed, told = window.closed, msgspec.json.decode(before.told) if before.told else []
    level = closed.profile.n // EARLY_ROWS
    key = f"{closed.model}|{closed.version}|{closed.window.start_ms}|{closed.window.size_ms}|early|{window.upto_ms}".encode()
    results = ((key, msgspec.json.encode({"n": closed.profile.n})),)
    if level <= len(told):
        return Looked(results=results)
    told += [window.upto_ms] * (level - len(told))
    windows = msgspec.json.decode(before.state)[0] if before.state else 0
    facts = {"n": closed.profile.n, "level": level, "windows": windows, "newest": newest(2).profile.n}
    return Looked(((key, msgspec.json.encode(facts)),), msgspec.json.encode(told), ("warning",), results)


@dataclass(frozen=True)
class Scenario:
    """A configuration. is_live: sources have the clock on the wall, and silent partitions move on by themselves.

    has_late: models whose late rows restate windows, and whose ids count once, are among the others.
    end_ms: where the ticks at the end move the clocks of the others.
    """

    settings: Settings
    partitions: dict[str, int]
    is_live: bool
    has_segments: bool
    end_ms: int = 1_000
    has_late: bool = False

    @classmethod
    def draw(cls, dice: random.Random) -> Scenario:
        is_live = dice.random() < 0.25
        partitions = {"x": dice.choice((1, 2, 2, 3))}
        if dice.random() < 0.3:
            partitions["y"] = 1
        return cls.of(
            partitions, q=dice.choice((1, 1, 2)), is_live=is_live, has_segments=dice.random() < 0.15, end_ms=dice.choice(ENDS_MS),
            has_late=not is_live and dice.random() < 0.4,
        )  # fmt: skip

    @classmethod
    def of(
        cls, partitions: dict[str, int], q: int = 1, *,
        is_live: bool = False, has_segments: bool = False, end_ms: int = 1_000, has_late: bool = False,
    ) -> Scenario:  # fmt: skip
        sources = {
            topic: SourceSettings(topic, "wall", IDLE_AFTER_MS, MAX_FUTURE_MS, MAX_DELAY_MS)
            if is_live
            else SourceSettings(
                topic, "event", HOUR_MS, MAX_FUTURE_MS
            )  # a source that was idle may come back with what is late by then
            for topic in partitions
        }
        known = MODELS | WITH_LATE if has_late else MODELS
        models = {name: model for name, model in known.items() if set(model.sources) <= set(sources)}
        settings = Settings(
            "m", models, PLAIN, sources,
            partials_partitions=q, retire_after_ms=ZOMBIE_MS + IN_FLIGHT_MS, watermark_every_ms=40,
        )  # fmt: skip
        return cls(settings, partitions, is_live, has_segments, end_ms, has_late)

    def with_looks(self) -> Scenario:
        """Return it with one more model, whose windows are looked at while they are open."""
        return replace(self, settings=replace(self.settings, models={**self.settings.models, "long": LONG}))

    def references(self) -> list[Reference]:
        names = (*self.settings.models, "plain") if self.has_segments else ()
        return [_segmented(name, version) for name in names for version in ("1", "2")]

    def models(self, topic: str) -> list[str]:
        """Models whose events are on a source."""
        return ["plain", *(name for name, m in self.settings.models.items() if not m.sources or topic in m.sources)]


_SEGMENTED: dict[tuple[str, str], Reference] = {}


def _segmented(model: str, version: str) -> Reference:
    if (model, version) not in _SEGMENTED:
        _SEGMENTED[model, version] = Reference.build(model, version, Profile(Layout((), (BY_TAG,))))
    return _SEGMENTED[model, version]


class Producer:
    """Puts events on one source partition, a few at a time; live ones have the broker's clock, others a clock of their own."""

    def __init__(self, scenario: Scenario, topic: str, log: Log, dice: random.Random, n_events: int) -> None:
        self.log = log
        self._dice = dice
        self._models = scenario.models(topic)
        self._grace_ms = {name: scenario.settings.model(name).grace_ms for name in self._models}
        self._n_ids = 0
        self._is_live = scenario.is_live
        self._tags = TAGS if scenario.has_segments else (None,)
        self._left = n_events
        self._end_ms = scenario.end_ms
        self._base_ms = dice.randrange(10)
        self.silent_until_ms = 0
        self.is_finished = self._has_paused = False
        if not self._is_live:  # a partition without any record is idle, and waited for by nobody
            log.append(msgspec.json.encode(["tick", -HOUR_MS]), None, 0, LOG_APPEND_TIME)

    def produce(self, now_ms: int) -> None:
        """Append some of what is left; now and then malformed records, retries, aborted transactions, a pause."""
        if now_ms < self.silent_until_ms:
            return
        if self._left <= 0:
            if not (self._is_live or self.is_finished or self._has_paused):
                self._has_paused = True
                self._tick(self._end_ms - 30)
            else:
                self.finish()
            return
        dice = self._dice
        if dice.random() < 0.02:
            self.silent_until_ms = now_ms + dice.choice((10, IDLE_AFTER_MS * 3))
        for _ in range(dice.randrange(1, 4)):
            self._left -= 1
            self._base_ms = now_ms if self._is_live else self._base_ms + dice.randrange(4)
            value = self._value()
            for _ in range(2 if dice.random() < 0.05 else 1):  # a producer that heard no answer sends again
                self.log.append(value, b"k", self._base_ms, LOG_APPEND_TIME)
            if dice.random() < 0.05:
                self.log.mark()

    def _value(self) -> bytes:
        dice = self._dice
        chance = dice.random()
        if chance < 0.04:
            return dice.choice(MALFORMED)
        if chance < 0.05 and not self._is_live:
            return msgspec.json.encode(["tick", self._base_ms])
        time = self._base_ms - dice.randrange(5)
        if chance < 0.08:
            time = self._base_ms + dice.choice(FAR_MS)
        elif chance < 0.10 and not self._is_live:
            time = self._base_ms - dice.choice((30, 300, HOUR_MS))
        elif chance < 0.25 and not self._is_live:
            time = self._base_ms - dice.randrange(20)
        model, version = dice.choice(self._models), "1"
        if not self._is_live and dice.random() < 0.2:
            version = "2"
        if self._is_live and time <= self._base_ms:
            time = self._base_ms - dice.randrange(self._grace_ms[model] + 1)  # on time even for a clock that silence has moved
        if model == RESTATED and dice.random() < 0.3:
            time -= dice.choice((20, 40, 70))
        return msgspec.json.encode([model, version, time, dice.choice(self._tags), *self._id(model)])

    def _id(self, model: str) -> list[str]:
        """Return an id, or none. One in four is that of an event before, which may be forgotten by now."""
        if model != REMEMBERED:
            return []
        self._n_ids += 1
        back = self._dice.choice((1, 2, 3, 9)) if self._dice.random() < 0.25 else 0
        return [f"i{self._n_ids - back}"]

    def finish(self) -> None:
        """Say, once, that nothing more comes."""
        if self.is_finished:
            return
        self.is_finished = True
        if not self._is_live:
            self._tick(self._end_ms)
        elif self._dice.random() < 0.5:
            self.log.mark()

    def _tick(self, ms: int) -> None:
        self.log.append(msgspec.json.encode(["tick", ms]), None, ms, LOG_APPEND_TIME)
