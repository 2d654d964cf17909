"""Health of the stream itself: lateness, disorder, repeated ids, mixed schemas, sample rates, producers, keys, statuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from monitor.chance.counts import ALPHA, critical_silence, normal_quantile, silence_p
from monitor.findings import CheckInfo, ClosedWindow, Evidence, Measurement
from monitor.ratios import MIN_ROWS, ratio
from monitor.stream_facts import Sent, StreamFacts

MIN_PARTITION_ROWS = 100
"""Below, rows per partition say nothing of keys."""
MIN_PRODUCER_ROWS = 30
"""A producer with fewer rows is not compared with others."""

TABLE = (
    CheckInfo(
        "stream.late", "rows that came too late while the window was current, as a share of them and its rows", "", MIN_ROWS
    ),
    CheckInfo(
        "stream.future",
        "rows refused while the window was current, because their time lies in the future of their record's timestamp, as a share of "
        "them and its rows",
        "",
        MIN_ROWS,
    ),
    CheckInfo(
        "stream.out_of_order",
        "share of rows whose event time lies before the running maximum of their partition; many producers make it large in health",
        "",
        MIN_ROWS,
    ),
    CheckInfo(
        "stream.duplicate_id",
        "share of events that repeat an id of the window",
        "three standard errors of the sample of ids (z of 1 − α): approximate; exact below 256 ids",
        MIN_ROWS,
        "Deequ isUnique, TFDV unique_constraints",
    ),
    CheckInfo(
        "schema.id_changed",
        "share of rows with another schema id than the most common one",
        "",
        2,
        "TFDV SCHEMA_TRAINING_SERVING_SKEW, in part",
    ),
    CheckInfo(
        "schema.envelope",
        "share of rows with an unusable id, schema, producer, status or sample_rate, of the worst of these fields",
        "",
        MIN_ROWS,
        "",
    ),
    CheckInfo("stream.sample_rate", "highest sample rate over the lowest; 1: it did not change", "", 2),
    CheckInfo(
        "stream.clock_skew",
        f"largest difference between two producers' least delays, ms, of producers with {MIN_PRODUCER_ROWS} rows; on a topic whose "
        "timestamps are the producers' own it sees nothing",
        "",
        2 * MIN_PRODUCER_ROWS,
    ),
    CheckInfo(
        "stream.key_skew",
        "rows of the fullest partition over the mean of the partitions with rows; of the source where it is largest",
        "largest of P multinomial counts, Bonferroni, normal law: approximate; rows of one key come together and are no chance",
        MIN_PARTITION_ROWS,
    ),
    CheckInfo(
        "stream.producer_gone",
        f"silence of a producer up to the window's last event, as a share of the window's events' span; of producers with "
        f"{MIN_PRODUCER_ROWS} rows",
        "(1 − silence)ⁿ, Bonferroni over producers: exact for a Poisson stream of steady rate",
        2 * MIN_PRODUCER_ROWS,
    ),
    CheckInfo("stream.error_status", "share of rows with a status that is not `ok`, of those with one", "", MIN_ROWS),
)


def stream(evidence: Evidence) -> Iterator[Measurement]:
    """Yield what the window's events say of their way here; needs no reference. An optional field that no event has is not measured."""
    closed = evidence.closed
    facts = closed.profile.stream
    rows = facts.count("rows")
    for name, furthest in (("late", "lateness"), ("future", "ahead")):
        n = facts.count(name)
        if n or rows:
            yield _with_furthest(ratio(f"stream.{name}", "", n, rows + n), facts.most(furthest))
    if rows:
        disorder = ratio("stream.out_of_order", "", facts.count("out_of_order"), rows)
        yield _with_furthest(disorder, facts.most("disorder"))
        yield _envelope(facts, rows)
    optional = {"id": _duplicates, "schema": _schemas, "rate": _sample_rate, "status": _statuses}
    yield from (measure(facts) for field, measure in optional.items() if facts.count(f"with_{field}"))
    producers = {name: sent for name, sent in facts.named("producer").items() if sent.rows >= MIN_PRODUCER_ROWS}
    if len(producers) > 1:
        yield from _clock_skew(producers)
        yield from _producer_gone(facts, producers)
    yield from _key_skew(closed)


def _with_furthest(measured: Measurement, furthest_ms: int | None) -> Measurement:
    return replace(measured, evidence={**measured.evidence, "furthest_ms": furthest_ms})


def _duplicates(facts: StreamFacts) -> Measurement:
    share, error = facts.ids.duplicates()
    measured = Measurement("stream.duplicate_id", "", share, facts.count("with_id"), 0, normal_quantile() * error, min_n=MIN_ROWS)
    return replace(measured, evidence={"standard_error": error})


def _schemas(facts: StreamFacts) -> Measurement:
    named, n = facts.named("schema"), facts.count("with_schema")
    most = next(iter(named.values())).rows if named else 0
    spans = {name: {"rows": s.rows, "first_ms": s.first_ms, "last_ms": s.last_ms} for name, s in named.items()}
    measured = ratio("schema.id_changed", "", n - most, n)
    return replace(measured, min_n=2, evidence={"schemas": spans, "other": facts.unnamed("schema")})


def _envelope(facts: StreamFacts, rows: int) -> Measurement:
    wrong = facts.wrong_type
    return replace(ratio("schema.envelope", "", max(wrong.values(), default=0), rows), evidence={"rows": wrong})


def _sample_rate(facts: StreamFacts) -> Measurement:
    low, high = facts.rates or (1.0, 1.0)
    measured = Measurement("stream.sample_rate", "", high / low, facts.count("with_rate"), 0, min_n=2)
    return replace(measured, evidence={"min": low, "max": high})


def _statuses(facts: StreamFacts) -> Measurement:
    n = facts.count("with_status")
    measured = ratio("stream.error_status", "", n - facts.count("ok"), n)
    by_status = {name: sent.rows for name, sent in facts.named("status").items()}
    return replace(measured, evidence={**measured.evidence, "statuses": by_status, "other": facts.unnamed("status")})


def _clock_skew(producers: Mapping[str, Sent]) -> Iterator[Measurement]:
    least = {name: sent.min_delay_ms for name, sent in producers.items() if sent.has_delay}
    if len(least) > 1:
        ahead, behind = min(least, key=lambda name: (least[name], name)), max(least, key=lambda name: (least[name], name))
        n = sum(producers[name].rows for name in least)
        measured = Measurement("stream.clock_skew", "", float(least[behind] - least[ahead]), n, 0, min_n=2 * MIN_PRODUCER_ROWS)
        yield replace(measured, evidence={"ahead": {ahead: least[ahead]}, "behind": {behind: least[behind]}})


def _producer_gone(facts: StreamFacts, producers: Mapping[str, Sent]) -> Iterator[Measurement]:
    first, last = facts.least("first"), facts.most("last")
    if first is None or last is None or first == last:
        return
    chances = {name: silence_p((last - sent.last_ms) / (last - first), sent.rows) for name, sent in producers.items()}
    gone = min(chances, key=lambda name: (chances[name], name))
    sent, tests = producers[gone], len(producers)
    yield Measurement(
        check="stream.producer_gone",
        feature="",
        value=(last - sent.last_ms) / (last - first),
        n=sum(s.rows for s in producers.values()),
        n_ref=0,
        critical_value=critical_silence(sent.rows, ALPHA / tests),
        p_value=min(1.0, tests * chances[gone]),
        min_n=2 * MIN_PRODUCER_ROWS,
        evidence={"producer": gone, "rows": sent.rows, "last_ms": sent.last_ms},
    )


def _key_skew(closed: ClosedWindow) -> Iterator[Measurement]:
    """Of the worst source; only where two partitions have rows."""
    skews = {}
    for source, rows in sorted(closed.partition_rows.items()):
        if len(rows) > 1:
            skews[source] = max(rows.values()) * len(rows) / sum(rows.values())
    if not skews:
        return
    source = max(skews, key=lambda name: skews[name])
    rows = closed.partition_rows[source]
    n, k = sum(rows.values()), len(rows)
    fullest = max(rows, key=lambda partition: rows[partition])
    measured = Measurement("stream.key_skew", "", skews[source], n, 0, min_n=MIN_PARTITION_ROWS)
    yield replace(
        measured,
        critical_value=1 + normal_quantile(ALPHA / k) * math.sqrt((k - 1) / n),
        evidence={"source": source, "partition": fullest, "rows": rows[fullest], "partitions": k},
    )
