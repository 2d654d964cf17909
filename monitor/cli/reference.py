"""`monitor reference infer|build|publish|show|diff`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from monitor.cli.console import DEFAULT_CONFIG, ERR, ConfigPath, data, say
from monitor.cli.reference_tables import print_diff, print_reference
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.config.values import duration_ms
from monitor.distances import DISTANCES
from monitor.errors import InputError
from monitor.reference import Reference

reference = typer.Typer(help="Record a model's state before deployment.", no_args_is_help=True)

SHOWN_DISTANCES = ("psi", "js")

Column = Annotated[str | None, typer.Option(help="Name of the column.", show_default=False)]


def optional_config(path: Path) -> Config:
    """Return the configuration, or the defaults where the default file does not exist."""
    return Config() if path == DEFAULT_CONFIG and not path.exists() else load_config(path)


Excluded = Annotated[list[str] | None, typer.Option(help="A column that is no feature; repeatable.")]
ClassScores = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS=COLUMN", help="The column that holds the score of a class; repeatable.", show_default=False),
]
Unit = Annotated[str, typer.Option(help="Of integer times: s, ms, us, ns.")]


def class_scores(given: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Return (class, column) of every CLASS=COLUMN. Raises InputError for what is none.

    >>> class_scores(["yes=p_yes", "no=p_no"])
    (('yes', 'p_yes'), ('no', 'p_no'))
    """
    for text in given or ():
        if not all(text.partition("=")):
            raise InputError(f"--class-score {text}: write class=column, such as --class-score yes=p_yes")
    return tuple((text.partition("=")[0], text.partition("=")[2]) for text in given or ())


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed:,.0f} rows read"), TimeElapsedColumn(),
        console=ERR, disable=not sys.stderr.isatty(), transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("rows", total=None)
        yield lambda n: progress.advance(task, n)


@reference.command()
def build(
    file: Annotated[Path, typer.Argument(help="CSV, CSV.gz, Parquet or NDJSON.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    model_version: Annotated[str, typer.Option(help="Version of the model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write.")] = Path("reference.json"),
    config: ConfigPath = DEFAULT_CONFIG,
    time_column: Column = None,
    prediction_column: Column = None,
    score_column: Column = None,
    class_score: ClassScores = None,
    latency_column: Column = None,
    label_column: Column = None,
    id_column: Column = None,
    exclude: Excluded = None,
    time_unit: Unit = "ms",
    window: Annotated[
        str | None,
        typer.Option(help="Of so long windows it learns the scatter; left out: the model's shortest.", show_default=False),
    ] = None,
    positive_class: Annotated[str | None, typer.Option(help="Of two classes, for AUC and the like.", show_default=False)] = None,
) -> None:
    """Build a reference from a file of rows: `monitor reference build train.csv --model credit --model-version 7`."""
    from monitor.bootstrap import build_hash_key, feature_options  # noqa: PLC0415
    from monitor.files import ColumnOptions  # noqa: PLC0415
    from monitor.reference_build import SegmentOptions, build_reference  # noqa: PLC0415

    found = optional_config(config)
    settings = found.models.get(model, found.defaults)
    segments = [SegmentOptions(segment.keys, segment.values) for segment in settings.segments]
    columns = ColumnOptions(
        time=time_column,
        prediction=prediction_column,
        score=score_column,
        latency=latency_column,
        label=label_column,
        id=id_column,
        class_scores=class_scores(class_score),
        exclude=tuple(exclude or ()),
        time_unit=time_unit,  # type: ignore[arg-type]
    )
    options = feature_options(settings)
    with _progress() as progress:
        made = build_reference(
            file,
            model,
            model_version,
            columns,
            options,
            progress,
            hash_key=build_hash_key(found),
            segments=segments,
            max_segments=settings.max_segments,
            window_ms=_window_ms(found, model, window),
            positive_class=positive_class,
        )
    _write(output, made.to_bytes())
    print_reference(made)
    say(f"wrote {output}, {output.stat().st_size:,} bytes")
    data(made.sha256)


def _write(output: Path, content: bytes) -> None:
    partial = output.with_name(output.name + ".part")
    partial.write_bytes(content)
    os.replace(partial, output)


@reference.command()
def infer(
    file: Annotated[Path, typer.Argument(help="CSV, CSV.gz, Parquet or NDJSON.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write.")] = Path("features.yaml"),
    model: Annotated[str | None, typer.Option(help="Only rows of this model; and its configuration.", show_default=False)] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    time_column: Column = None,
    prediction_column: Column = None,
    score_column: Column = None,
    class_score: ClassScores = None,
    latency_column: Column = None,
    label_column: Column = None,
    id_column: Column = None,
    exclude: Excluded = None,
    time_unit: Unit = "ms",
) -> None:
    """Write what a reference would take the columns for, to be edited and pasted under models.<model>.features of monitor.yaml."""
    from monitor.bootstrap import feature_options  # noqa: PLC0415
    from monitor.cli.inferred import features_yaml  # noqa: PLC0415
    from monitor.files import ColumnOptions  # noqa: PLC0415
    from monitor.reference_build import infer_features  # noqa: PLC0415

    columns = ColumnOptions(
        time=time_column,
        prediction=prediction_column,
        score=score_column,
        latency=latency_column,
        label=label_column,
        id=id_column,
        class_scores=class_scores(class_score),
        exclude=tuple(exclude or ()),
        time_unit=time_unit,  # type: ignore[arg-type]
    )
    given = optional_config(config)
    options = feature_options(given.models.get(model or "", given.defaults))
    with _progress() as progress:
        found = infer_features(file, columns, options, model, progress=progress)
    _write(output, features_yaml(file.name, found).encode())
    for warning in found.warnings:
        say(f"warning: {warning}")
    say(
        f"wrote {output}: {len(found.features)} features; paste it under models.{model or '<model>'}.features of {DEFAULT_CONFIG}"
    )


def _window_ms(config: Config, model: str, window: str | None) -> int:
    """Return the length that the user names, or of the model's shortest tumbling window; of its shortest, where none tumbles."""
    if window is not None:
        try:
            size_ms = duration_ms(window)
        except ValueError as error:
            raise InputError(f"--window: {error}") from error
        if size_ms <= 0:
            raise InputError(f"--window {window}: a window must be longer than 0")
        return size_ms
    specs = [w.spec for w in config.models.get(model, config.defaults).windows]
    return min(s.size_ms for s in [s for s in specs if s.kind == "tumbling"] or specs)


@reference.command()
def show(file: Annotated[Path, typer.Argument(help="A reference file.")]) -> None:
    """Print what a reference holds."""
    made = read_reference(file)
    print_reference(made)
    data(made.sha256)


@reference.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A reference file.")],
    b: Annotated[Path, typer.Argument(help="The one to be seen from it.")],
    config: ConfigPath = DEFAULT_CONFIG,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help="Exit 1 if a distance of any feature is larger, such as psi>0.2; repeatable.", show_default=False),
    ] = None,
) -> None:
    """Compare two references: a table on stderr, JSON on stdout: `monitor reference diff old.json new.json --fail-on 'psi>0.2'`."""
    from monitor.bootstrap import build_hash_key  # noqa: PLC0415
    from monitor.reference_diff import difference  # noqa: PLC0415

    limits = [_limit(text) for text in fail_on or ()]
    key = build_hash_key(optional_config(config))
    found = difference(read_reference(a).with_key(key), read_reference(b).with_key(key))
    print_diff(found, tuple(dict.fromkeys([*SHOWN_DISTANCES, *(name for name, _ in limits)])))
    data(msgspec.json.encode(found))
    beyond = [
        f"{feature}: {name} {f.distances[name]:.4g} > {limit:g}"
        for feature, f in found.features.items()
        for name, limit in limits
        if f.distances.get(name, 0.0) > limit
    ]
    for line in beyond:
        say(line)
    if beyond:
        raise typer.Exit(1)


def _limit(text: str) -> tuple[str, float]:
    """Return (distance, value) of `psi>0.2`."""
    name, sign, value = text.partition(">")
    known = [distance.name for distance in DISTANCES]
    if name.strip() not in known:
        raise InputError(f"--fail-on {text}: {name.strip()!r} is no distance; it is one of {', '.join(known)}, such as psi>0.2")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not sign or math.isnan(limit):
        raise InputError(f"--fail-on {text}: a distance, > and a number are expected, such as psi>0.2")
    return name.strip(), limit


def read_reference(file: Path) -> Reference:
    """Read a reference file. Raises InputError."""
    if not file.exists():
        raise InputError(f"{file}: no such file; `monitor reference build` makes one")
    try:
        return Reference.from_bytes(file.read_bytes())
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


@reference.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A reference file.")],
    config: ConfigPath = DEFAULT_CONFIG,
    effective_from: Annotated[
        str | None, typer.Option(help="Event time from which it applies, ISO 8601; left out: always.", show_default=False)
    ] = None,
) -> None:
    """Put a reference on the references topic. A later one for the same version must say from when it applies."""
    from monitor.bootstrap import build_hash_key, missing_segments  # noqa: PLC0415
    from monitor.event_time import text_ms  # noqa: PLC0415
    from monitor.reference import References  # noqa: PLC0415
    from monitor.runtime import references, topics  # noqa: PLC0415

    found = load_config(config)
    made = read_reference(file).with_key(build_hash_key(found))
    difference = missing_segments(found, made)
    if difference is not None:
        say(f"warning: {difference}")
    counts = topics.check_topics(found)
    known = References(None)
    references.read_references(found, counts[references.references_topic(found)], known)
    if effective_from is None:
        newest = known.at(made.model, made.version, 1 << 60)
        if newest is not None and newest.sha256 != made.sha256 and newest.layout.hash_key_ids == made.layout.hash_key_ids:
            raise InputError(
                f"{made.model} {made.version} has a reference already ({newest.sha256[:12]}); "
                "say from which event time the new one applies: --effective-from 2025-06-01T00:00:00Z"
            )
    else:
        made = made.effective_from(text_ms(effective_from))
    references.publish(found, made)
    say(f"published {made.key.decode()} to {references.references_topic(found)}")
    data(made.sha256)
