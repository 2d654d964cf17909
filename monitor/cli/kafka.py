"""`monitor topics`, `monitor tail`, `monitor traffic`: commands that speak to a broker."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import orjson
import typer

from monitor.cli.console import DEFAULT_CONFIG, ConfigPath, data, say
from monitor.config.file import load_config
from monitor.windows import duration_text

topics = typer.Typer(help="The topics that a configuration needs.", no_args_is_help=True)


@topics.command()
def create(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Make the topics that are missing; existing ones are not touched."""
    from monitor.runtime.topics import create_topics  # noqa: PLC0415

    made, there = create_topics(load_config(config))
    for name in made:
        data(name)
    say(f"{len(made)} topics made, {len(there)} were there")


@topics.command()
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Say which topics are missing or have a wrong number of partitions."""
    from monitor.runtime.topics import check_topics, expected_topics  # noqa: PLC0415

    found = load_config(config)
    counts = check_topics(found)
    for spec in expected_topics(found):
        data(f"{spec.name}\t{counts[spec.name]}")


def tail(
    what: Annotated[Literal["alerts", "results"], typer.Argument(help="alerts or results")],
    config: ConfigPath = DEFAULT_CONFIG,
    from_beginning: Annotated[bool, typer.Option(help="From the first record that the topic has.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for more.")] = True,
    limit: Annotated[int | None, typer.Option(help="Stop after so many records.")] = None,
) -> None:
    """Print alerts or results as they come: lines for people on a terminal, else JSON lines."""
    import confluent_kafka as ck  # noqa: PLC0415

    from monitor.runtime.broker import partition_counts, reader  # noqa: PLC0415

    found = load_config(config)
    topic = f"{found.app}.{what}"
    n = partition_counts(found.kafka).get(topic)
    if n is None:
        from monitor.errors import ConfigError  # noqa: PLC0415

        raise ConfigError(f"topic {topic} is missing; `monitor topics create` makes it")
    start = ck.OFFSET_BEGINNING if from_beginning else ck.OFFSET_END
    consumer = reader(found.kafka)
    consumer.assign([ck.TopicPartition(topic, p, start) for p in range(n)])
    ended: set[int] = set()
    printed = 0
    while limit is None or printed < limit:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            ended.add(message.partition() or 0)
            if not follow and len(ended) == n:
                break
            continue
        value = message.value() or b""
        data(line(what, orjson.loads(value)) if sys.stdout.isatty() else value)
        printed += 1
    consumer.close()


def line(what: str, record: dict[str, Any]) -> str:
    """Return one line for people about an alert or a result."""
    if what == "results" and record.get("type") == "performance":
        return performance_line(record)
    if what == "results" and record.get("type") == "look":
        return look_line(record)
    if what == "results":
        window = record["window"]
        drifts = [(f["distances"].get("psi", 0.0), name) for name, f in record["features"].items() if f["distances"]]
        top = max(drifts, default=(0.0, "-"))
        found = ", ".join(f"{f['check']} {f['feature'] or ''}".strip() for f in record["findings"]) or "quiet"
        revision = f" revision {record['revision']}" if record["revision"] else ""
        of = f"{record['model']} {record['version']} [{window['start_ms']}, {window['end_ms']}){revision}"
        return f"{of} n={record['n']} max psi {top[0]:.3f} ({top[1]}): {found}"
    d = record["data"]
    where = (d["feature"] or "model") + (f" ({d['view']})" if d.get("view") else "")
    revision = f", revision {d['window']['revision']} of its window" if d["window"]["revision"] else ""
    others = f", {d['n_members'] - 1} more findings" if d["n_members"] > 1 else ""
    return (
        f"{d['window']['end']} {d['status']:8} {d['severity']:8} {d['model']} {d['version']} {d['check']} {where}: "
        f"{d['value']:.4g} (threshold {d['threshold']:g}, n={d['n']}{revision}{others})"
    )


def look_line(record: dict[str, Any]) -> str:
    """Return one line for people about a look into an open window: what chance hardly explains by now, most surprising first."""
    window = record["window"]
    found = [
        (p, check, feature, segment)
        for segment, checks in record["unlikely"].items()
        for check, of in checks.items()
        for p, feature in zip(of["p_value"], of["features"], strict=True)
    ]
    first = ", ".join(
        f"{check} {feature}{'' if segment == 'all' else f' of {segment}'} p {p:.1e}"
        for p, check, feature, segment in sorted(found)[:3]
    )
    others = f" and {len(found) - 3} more" if len(found) > 3 else ""
    of = f"{record['model']} {record['version']} [{window['start_ms']}, {window['end_ms']})"
    share = (record["upto_ms"] - window["start_ms"]) / window["size_ms"]
    return f"{of} look after {share:.0%}: n={record['n']}, {first}{others}"


def performance_line(record: dict[str, Any]) -> str:
    """Return one line for people about a report of performance: realised values with their intervals, those expected behind a ~."""
    window, expected = record["window"], record["estimated"]["values"]
    revision = f" revision {record['revision']}" if record["revision"] else ""
    final = ", final" if record["is_final"] else ""
    segment = "" if record["segment"] == "all" else f" {record['segment']}"
    of = f"{record['model']} {record['version']}{segment} [{window['start_ms']}, {window['end_ms']}){revision}"
    values = []
    for name in sorted({*record["values"], *expected}):
        one = record["values"].get(name)
        text = f"{name} {one['value']:.3f}" if one else name
        text += f" [{one['low']:.3f}, {one['high']:.3f}]" if one and one["low"] is not None else ""
        values.append(text + (f" ~{expected[name]['value']:.3f}" if name in expected else ""))
    found = ", ".join(finding["check"] for finding in record["findings"]) or "quiet"
    conflict = f"; {record['conflict']['text']}" if record["conflict"] else ""
    age = duration_text(record["as_of_ms"] - window["end_ms"])
    labelled = f"{record['labelled']} of {record['n']} labelled ({record['coverage']:.0%})"
    return f"{of} performance after {age}{final}: {labelled}; {', '.join(values) or 'no values'}: {found}{conflict}"


def traffic(
    config: ConfigPath = DEFAULT_CONFIG,
    rate: Annotated[float, typer.Option(help="Events per second.")] = 50.0,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
) -> None:
    """Send made-up events to the first source, to see something move."""
    from monitor.sdk.traffic import send_traffic  # noqa: PLC0415

    say(f"{send_traffic(load_config(config), rate, seconds):,} events sent")
