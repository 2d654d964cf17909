"""Made-up inference events at a steady rate."""

from __future__ import annotations

import random
import time

import orjson

from monitor.config.settings import Config
from monitor.runtime.broker import producer

COUNTRIES = ("DE", "FR", "US", "IT")


def event(dice: random.Random, model: str, time_ms: int) -> dict[str, object]:
    """Return one event of a credit model."""
    income = round(dice.lognormvariate(10.4, 0.6), 2)
    score = min(0.999, max(0.001, dice.gauss(0.3, 0.15)))
    return {
        "id": f"r-{time_ms}-{dice.getrandbits(32):08x}",
        "model": model,
        "version": "1",
        "time": time_ms,
        "features": {
            "age": dice.randint(18, 90),
            "income": None if dice.random() < 0.02 else income,
            "country": dice.choices(COUNTRIES, (5, 3, 2, 1))[0],
        },
        "prediction": "default" if score > 0.5 else "paid",
        "score": round(score, 4),
        "latency_ms": round(dice.expovariate(1 / 12), 2),
    }


def send_traffic(config: Config, rate: float, seconds: float | None) -> int:
    """Send events to the first source until `seconds` have passed (None: for ever); return how many."""
    client = producer(config.kafka)
    model = next(iter(config.models), "credit")
    dice = random.Random()
    started, n = time.monotonic(), 0
    while seconds is None or time.monotonic() - started < seconds:
        client.produce(config.sources[0].topic, orjson.dumps(event(dice, model, time.time_ns() // 1_000_000)))
        client.poll(0)
        n += 1
        time.sleep(max(0.0, started + n / rate - time.monotonic()))
    client.flush(30)
    return n
