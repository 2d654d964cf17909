"""`monitor replay`: the monitor on a file, without Kafka."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from monitor.cli.console import DEFAULT_CONFIG, ERR, ConfigPath, say
from monitor.cli.reference import ClassScores, Column, Excluded, Unit, class_scores, read_reference
from monitor.config.file import load_config
from monitor.errors import InputError
from monitor.ports import StoredRecord
from monitor.reference import Reference
from monitor.rules import SEVERITIES

if TYPE_CHECKING:
    from monitor.pipeline import Pipeline
    from monitor.replay import Labels, ReplayOutcome


def replay(
    events: Annotated[Path, typer.Option(help="Events: CSV, CSV.gz, Parquet, NDJSON rows, or native NDJSON events.")],
    reference: Annotated[
        list[Path] | None, typer.Option(help="A reference file; repeatable. Where there is none, one is learnt from the events.")
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="A policy file, or a folder of them; repeatable. The configuration's if left out.", show_default=False),
    ] = None,
    results: Annotated[Path, typer.Option(help="Where result records go.")] = Path("results.ndjson"),
    alerts: Annotated[Path, typer.Option(help="Where alert records go.")] = Path("alerts.ndjson"),
    config: ConfigPath = DEFAULT_CONFIG,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="What became known: id, label and time (and model) of each row; joined by id. CSV, CSV.gz, Parquet, NDJSON.",
            show_default=False,
        ),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="The source that the file stands for; the first one if left out.")] = None,
    model: Column = None,
    model_version: Column = None,
    time_column: Column = None,
    prediction_column: Column = None,
    score_column: Column = None,
    class_score: ClassScores = None,
    latency_column: Column = None,
    label_column: Column = None,
    id_column: Column = None,
    model_column: Column = None,
    version_column: Column = None,
    exclude: Excluded = None,
    time_unit: Unit = "ms",
    end_of_input: Annotated[bool, typer.Option(help="No more will come: close the windows that are open.")] = False,
    fail_on: Annotated[str | None, typer.Option(help="Exit 1 if an alert of this severity or above fires.")] = None,
) -> None:
    """Run the monitor on a file: `monitor replay --reference reference.json --events new.csv --time-column time --end-of-input`."""
    from monitor.bootstrap import build_hash_key, build_pipeline, missing_segments  # noqa: PLC0415
    from monitor.files import ColumnOptions, EventFile  # noqa: PLC0415
    from monitor.formats.native import NativeFormat  # noqa: PLC0415
    from monitor.replay import Replay  # noqa: PLC0415

    found = load_config(config)
    references = [read_reference(path) for path in reference or ()]
    source = topic or found.sources[0].topic
    pipeline = build_pipeline(found, references, policy)
    for difference in filter(None, (missing_segments(found, one) for one in references)):
        say(f"warning: {difference}")
    if source not in pipeline.formats:
        raise InputError(f"--topic {source} is not one of the sources: {', '.join(pipeline.formats)}")
    if fail_on is not None and fail_on not in SEVERITIES:
        raise InputError(f"--fail-on {fail_on} is not a severity: {', '.join(SEVERITIES)}")
    only = references[0] if len(references) == 1 else None
    columns = ColumnOptions(
        time=time_column,
        prediction=prediction_column,
        score=score_column,
        latency=latency_column,
        class_scores=class_scores(class_score),
        label=label_column,
        id=id_column,
        model=model_column,
        version=version_column,
        exclude=tuple(exclude or ()),
        time_unit=time_unit,  # type: ignore[arg-type]
    )
    rows = EventFile(
        events,
        columns,
        model or (only.model if only else None),
        model_version or (only.version if only else None),
        only.layout if only else None,
    )
    if not rows.has_record_timestamps:
        say(
            "note: the events have no record_timestamp: the future guard is off"
            + ("" if rows.has_partitions else ", and all are taken as one partition")
        )
    engine = Replay(
        pipeline.settings,
        source,
        wire=pipeline.formats[source] if rows.is_native else NativeFormat(),  # rows of a table become events with `time` in ms
        judge=pipeline.judge,
        look=pipeline.look,
        references=references,
        hash_key=build_hash_key(found),
        future_guard=rows.has_record_timestamps,
        labels=_labels(labels, pipeline, model or (only.model if only else None), time_unit) if labels is not None else None,
    )
    outcome = engine.run(_WithProgress(rows), end_of_input=end_of_input)
    for path, records in ((results, outcome.results), (alerts, outcome.alerts)):
        path.write_bytes(b"".join(value + b"\n" for _, value in records))
    say(
        f"{outcome.produced:,} records: {outcome.counted:,} counted, {outcome.late:,} late, "
        + (f"{outcome.revised:,} late and revised, " if outcome.revised else "")
        + (f"{outcome.duplicate:,} duplicate, " if outcome.duplicate else "")
        + f"{sum(outcome.rejected.values()):,} rejected"
        + "".join(f", {n:,} {reason}" for reason, n in sorted(outcome.rejected.items()))
        + (f", {outcome.dropped:,} dropped" if outcome.dropped else "")
    )
    _say_learnt(Reference.from_bytes(value) for _, value in outcome.references)
    if labels is not None:
        _say_joined(outcome)
    if outcome.open_panes:
        say(f"{outcome.open_panes} panes are still open; --end-of-input closes their windows")
    revisions = f", of {outcome.revisions:,} revisions too" if outcome.revisions else ""
    say(f"{len(outcome.results):,} result records{revisions} → {results}; {len(outcome.alerts):,} alert records → {alerts}")
    if fail_on is not None:
        worst = [s for s in outcome.alert_severities if SEVERITIES.index(s) >= SEVERITIES.index(fail_on)]
        if worst:
            raise typer.Exit(1)


def _say_learnt(references: Iterable[Reference]) -> None:
    for record in (reference.record for reference in references):
        say(
            f"learnt a provisional reference of {record.model} {record.version} from {record.rows:,} rows in {record.windows} windows: "
            f"{len(record.features)} features" + (f", {len(record.warnings)} warnings" if record.warnings else "")
        )


@dataclass(frozen=True, slots=True)
class _WithProgress:
    """Rows that show how far they have been read, each time anew."""

    rows: Iterable[tuple[int, StoredRecord]]

    def __iter__(self) -> Iterator[tuple[int, StoredRecord]]:
        if not sys.stderr.isatty():
            yield from self.rows
            return
        with Progress(
            SpinnerColumn(), TextColumn("{task.completed:,.0f} records"), TimeElapsedColumn(), console=ERR, transient=True
        ) as progress:
            task = progress.add_task("records", total=None)
            for n, row in enumerate(self.rows):
                if n % 1_000 == 0:
                    progress.update(task, completed=n)
                yield row


def _labels(path: Path, pipeline: Pipeline, model: str | None, time_unit: str) -> Labels:
    """Return a file of labels as the source that the configuration has for them, or as one of its own."""
    from monitor.files.labels import LabelFile  # noqa: PLC0415
    from monitor.formats.native_label import NativeLabelFormat  # noqa: PLC0415
    from monitor.replay import Labels  # noqa: PLC0415

    file = LabelFile(path, model, time_unit)  # type: ignore[arg-type]
    configured = next(((topic, w) for topic, w in pipeline.formats.items() if isinstance(w, NativeLabelFormat)), None)
    topic, wire = configured or ("labels", NativeLabelFormat())
    wire = wire if file.is_native else NativeLabelFormat()  # rows of a table become labels with `time` in ms
    return Labels(file, wire, pipeline.judge_performance, topic, file.has_record_timestamps)


def _say_joined(outcome: ReplayOutcome) -> None:
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in sorted(outcome.joined.items()) if n)
    say(f"joined: {counts or 'nothing'}; {outcome.reports:,} reports of performance among the results")
