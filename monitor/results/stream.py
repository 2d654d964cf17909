"""The wire form of what a final window knows of its stream."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.stream_facts import Sent, StreamFacts


class Delay(msgspec.Struct, kw_only=True):
    """Record timestamp less event time, milliseconds; negative where the producer's clock is ahead of the record's."""

    min: int
    p05: int
    """Quantiles are inverted-CDF ones, at most a quarter too large."""
    p50: int
    p95: int
    p99: int
    max: int


class NamedRows(msgspec.Struct, kw_only=True):
    """Rows that share a schema, a producer or a status."""

    rows: int
    first_ms: int
    """Event time of the first and the last of them."""
    last_ms: int
    min_delay_ms: int | None
    """Smallest and largest delay; null where no record had a timestamp."""
    max_delay_ms: int | None


class SampleRate(msgspec.Struct, kw_only=True):
    """What producers say of the share of traffic that they log."""

    rows: int
    """Rows with a rate."""
    min: float
    max: float
    estimated_rows: float
    """Events before sampling: Σ 1/rate, rows without a rate as one each."""


class Ids(msgspec.Struct, kw_only=True):
    """Repeated ids."""

    rows: int
    """Rows with an id."""
    duplicates_ratio: float
    """Share of them that repeat an id of the window."""
    standard_error: float
    """0: exact, all ids were kept."""


class StreamResult(msgspec.Struct, kw_only=True):
    """The window's events on their way here. Late and future rows are those that came while the window was current."""

    rows: int
    """Rows counted as events, under any reference."""
    late: int
    """Rows that came too late, while this window was current at their partition's clock; no window counts them."""
    furthest_late_ms: int | None
    """Largest distance of such a row's event time from the clock."""
    future: int
    """Rows refused as future_timestamp while this window was current, of a model version that was known."""
    furthest_future_ms: int | None
    """Largest distance of such a row's event time from its record's timestamp."""
    out_of_order: int
    """Rows whose event time lies before the running maximum of their partition."""
    furthest_disorder_ms: int | None
    """Largest distance from it."""
    delay: Delay | None
    """null where no record has a timestamp."""
    ids: Ids | None
    """null without ids; so are the others."""
    sample_rate: SampleRate | None
    schemas: dict[str, NamedRows]
    """By id of the producer's schema: the 32 with the smallest hashes."""
    producers: dict[str, NamedRows]
    statuses: dict[str, NamedRows]
    other: dict[str, int]
    """`schema`, `producer`, `status` → rows with one that is not kept; empty in most windows."""
    wrong_type: dict[str, int]
    """Rows by field of the envelope that was there and could not be used."""
    partition_rows: dict[str, dict[str, int]]
    """topic → partition → rows"""


def stream_result(facts: StreamFacts, partition_rows: Mapping[str, Mapping[str, int]]) -> StreamResult:
    """Return the facts as they are published."""
    return StreamResult(
        rows=facts.count("rows"),
        late=facts.count("late"),
        furthest_late_ms=facts.most("lateness"),
        future=facts.count("future"),
        furthest_future_ms=facts.most("ahead"),
        out_of_order=facts.count("out_of_order"),
        furthest_disorder_ms=facts.most("disorder"),
        delay=_delay(facts),
        ids=_ids(facts),
        sample_rate=_sample_rate(facts),
        schemas=_named(facts.named("schema")),
        producers=_named(facts.named("producer")),
        statuses=_named(facts.named("status")),
        other={kind: n for kind in ("schema", "producer", "status") if (n := facts.unnamed(kind))},
        wrong_type=facts.wrong_type,
        partition_rows={topic: dict(sorted(rows.items())) for topic, rows in sorted(partition_rows.items())},
    )


def _delay(facts: StreamFacts) -> Delay | None:
    least, most = facts.least("delay"), facts.most("delay")
    if least is None or most is None:
        return None
    p05, p50, p95, p99 = (facts.delay_ms(share) or 0 for share in (0.05, 0.5, 0.95, 0.99))
    return Delay(min=least, p05=p05, p50=p50, p95=p95, p99=p99, max=most)


def _ids(facts: StreamFacts) -> Ids | None:
    ratio, error = facts.ids.duplicates()
    n = facts.count("with_id")
    return Ids(rows=n, duplicates_ratio=ratio, standard_error=error) if n else None


def _sample_rate(facts: StreamFacts) -> SampleRate | None:
    if facts.rates is None:
        return None
    low, high = facts.rates
    return SampleRate(rows=facts.count("with_rate"), min=low, max=high, estimated_rows=facts.estimated_rows)


def _named(found: Mapping[str, Sent]) -> dict[str, NamedRows]:
    return {
        name: NamedRows(
            rows=sent.rows,
            first_ms=sent.first_ms,
            last_ms=sent.last_ms,
            min_delay_ms=sent.min_delay_ms if sent.has_delay else None,
            max_delay_ms=sent.max_delay_ms if sent.has_delay else None,
        )
        for name, sent in found.items()
    }
