"""Events to measure with: 20 features (15 numbers, 5 categories), about 550 bytes of JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from monitor.features import CategoryFeature, Feature, NumberFeature
from monitor.layout import Layout, layout_of
from monitor.sketches.moments import scale_of

START_MS = 1_735_689_600_000
NUMBERS = tuple(f"feature_{i:02d}" for i in range(15))
CATEGORIES = tuple(f"category_{i}" for i in range(5))
VALUES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


def features(rng: random.Random, null_share: float = 0.0) -> dict[str, object]:
    """Return the features of one event: of three numbers one is an integer, the others have four decimals."""
    numbers = {name: round(rng.gauss(50, 20), 4) if i % 3 else rng.randrange(1000) for i, name in enumerate(NUMBERS)}
    drawn: dict[str, object] = numbers | {name: rng.choice(VALUES) for name in CATEGORIES}
    return {name: None if rng.random() < null_share else value for name, value in drawn.items()}


MALFORMED = (b"", b"\xff", b"{", b"[]", b"{}", b'{"model": "credit-0", "time": "now", "features": {}}', b'{"model": NaN}')


@dataclass(frozen=True, slots=True)
class Mix:
    """What events look like: how many models in random order, and which shares are out of the ordinary.

    null: of values. wrong_type: of events, one number a text. malformed: of events. all_fields: also those that say where it comes from.
    """

    models: int = 1
    null: float = 0.0
    wrong_type: float = 0.0
    malformed: float = 0.0
    all_fields: bool = False


def events(n: int, mix: Mix, seed: int = 1) -> Iterator[bytes]:
    """Yield native events, one a millisecond."""
    rng = random.Random(seed)
    for i in range(n):
        drawn = features(rng, mix.null)
        if rng.random() < mix.wrong_type:
            drawn[rng.choice(NUMBERS)] = "unknown"
        event = {
            "id": f"r-{i}",
            "model": f"credit-{rng.randrange(mix.models)}",
            "version": "7",
            "time": START_MS + i,
            "features": drawn,
            "prediction": "default",
            "score": round(rng.random(), 4),
            "latency_ms": 12.5,
        }
        if mix.all_fields:
            event |= {"schema": "s-3", "producer": f"host-{i % 8}", "status": "ok", "sample_rate": 0.25}
        yield rng.choice(MALFORMED) if rng.random() < mix.malformed else orjson.dumps(event)


def layout(cells: int = 128, rows: int = 5_000) -> Layout:
    """Return the layout that a reference of such events has, roughly."""
    rng = random.Random(0)
    sample = [features(rng) for _ in range(rows)]
    found: list[Feature] = [CategoryFeature(name=name, values=VALUES) for name in CATEGORIES]
    for name in NUMBERS:
        values = np.array([row[name] for row in sample], np.float64)
        edges = np.unique(np.quantile(values, np.linspace(0, 1, cells + 1), method="inverted_cdf")).tolist()
        centre, exponent = scale_of(float(values.mean()), float(values.std()))
        found.append(
            NumberFeature(
                name=name,
                edges=tuple(edges),
                reported=tuple(edges[:: cells // 10]),
                minimum=edges[0],
                maximum=edges[-1],
                centre=centre,
                exponent=exponent,
            )
        )
    return layout_of(found)
