"""Topics full of events to read, and the reference that workers compare them with."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import confluent_kafka as ck
import numpy as np
import orjson

from monitor.columns import ColumnBatch
from monitor.config.settings import Config
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build.windows import WindowCounts
from monitor.runtime.references import references_topic
from monitor.segments import Key, Segmentation
from tests.kafka import KafkaCluster
from tests.shapes import number_feature_of

PARTITIONS = 4
HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
COLOURS = [f"colour {i}" for i in range(4)]
BODIES = 10_000
REFERENCE_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a topic holds.

    n: events, of `models` in turn. features: a quarter of them categories. hours: of event time that they are spread over evenly.
    slow: share of events that the fast path cannot take, a third each: cut short; a text for a number; nulls and an unknown feature.
    """

    n: int
    models: int = 1
    features: int = 20
    hours: int = 10
    slow: float = 0.0

    @property
    def topic(self) -> str:
        """Its name."""
        return f"events-{self.n}-{self.models}-{self.features}-{self.hours}-{round(1000 * self.slow)}"

    @property
    def step_ms(self) -> float:
        """Event time from one event to the next."""
        return self.hours * HOUR_MS / self.n

    @property
    def numbers(self) -> list[str]:
        """Names of the numbers."""
        return [f"feature_{j:03d}" for j in range(self.features - self.features // 4)]

    @property
    def categories(self) -> list[str]:
        """Names of the categories."""
        return [f"feature_{j:03d}" for j in range(self.features - self.features // 4, self.features)]


def tails(traffic: Traffic) -> list[bytes]:
    """Return different events from their time on."""
    dice, found = np.random.default_rng(1), []
    for _ in range(BODIES * 20 // max(20, traffic.features)):
        features: dict[str, object] = {name: round(float(dice.normal()), 6) for name in traffic.numbers}
        features |= {name: COLOURS[dice.integers(len(COLOURS))] for name in traffic.categories}
        odd = int(dice.integers(3)) if dice.random() < traffic.slow else None
        if odd == 1:
            features[traffic.numbers[0]] = "unknown"
        elif odd == 2:
            features |= {traffic.numbers[0]: None, traffic.categories[0]: None, "unheard of": 1}
        body = orjson.dumps({"features": features, "prediction": "paid", "score": 0.8312, "latency_ms": 12.5})
        found.append(b"," + (body[1:-20] if odd == 0 else body[1:]))
    return found


def events(traffic: Traffic) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and events in order; the models take turns, each with all partitions. The key is the model, for those who need it."""
    rest = tails(traffic)
    for i in range(traffic.n):
        model = b"credit-%04d" % (i // PARTITIONS % traffic.models)
        head = b'{"id":"req-%012d","model":"%s","version":"7","time":%d' % (i, model, START_MS + int(i * traffic.step_ms))
        yield model, head + rest[i % len(rest)]


def fill(cluster: KafkaCluster, traffic: Traffic) -> float:
    """Make the topic and fill it; return the mean size of its events, bytes."""
    cluster.create(traffic.topic, PARTITIONS)
    producer = ck.Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "linger.ms": 20,
            "batch.size": 1 << 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for i, (key, value) in enumerate(events(traffic)):
        while True:
            try:
                producer.produce(traffic.topic, value, key=key, partition=i % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError(f"{traffic.topic} was not filled")
    return statistics.mean(len(value) for _, value in islice(events(traffic), 1_000))


def segmentations(traffic: Traffic, rows: int) -> tuple[Segmentation, ...]:
    """Return a way to split rows by three categories crossed that gives profiles so many rows, `all` and `(other)` among them."""
    if rows == 0:
        return ()
    values = tuple(product(COLOURS, repeat=3))[: rows - 2]
    return (Segmentation(tuple(Key(name=name) for name in traffic.categories[:3]), values),)


def profile_of(
    traffic: Traffic, split: tuple[Segmentation, ...] = (), rows: int = REFERENCE_ROWS
) -> tuple[Profile, WindowCounts]:
    """Return a profile of rows like the traffic's, and how they scatter over 24 hours."""
    dice = np.random.default_rng(2)
    numbers = dice.normal(size=(len(traffic.numbers), rows))
    texts = [dice.choice(COLOURS, rows).tolist() for _ in traffic.categories]
    features = [number_feature_of(name, values) for name, values in zip(traffic.numbers, numbers, strict=True)]
    layout = layout_of(
        [*features, *(CategoryFeature(name=name, values=tuple(COLOURS)) for name in traffic.categories)], segmentations=split
    )
    batch = ColumnBatch(rows, numbers, None, texts)
    profile = Profile(layout)
    profile.update(batch)
    scatter = WindowCounts(profile, HOUR_MS)
    scatter.add(batch, np.arange(rows, dtype=np.int64) * 24 // rows * HOUR_MS)
    return profile, scatter


def publish_references(config: Config, traffic: Traffic, split: tuple[Segmentation, ...] = ()) -> None:
    """Publish a reference, the same rows for every model."""
    profile, scatter = profile_of(traffic, split)
    calibration = scatter.calibration()[0]
    producer = ck.Producer({"bootstrap.servers": config.kafka.bootstrap_servers, "message.max.bytes": 4 << 20, "log_level": 0})
    for model in range(traffic.models):
        reference = Reference.build(f"credit-{model:04d}", "7", profile, calibration=calibration)
        producer.produce(references_topic(config), reference.to_packed(), key=reference.key)
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("references were not published")
