"""`monitor reference build|publish|show|effective`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from monitor.cli.console import DEFAULT_CONFIG, ERR, ConfigPath, data, say
from monitor.config import Config, duration_ms, load_config
from monitor.errors import InputError
from monitor.files import ColumnOptions
from monitor.layout import NumberFeature
from monitor.reference import Reference

reference = typer.Typer(help="Record a model's state before deployment.", no_args_is_help=True)

Column = Annotated[str | None, typer.Option(help="Name of the column.", show_default=False)]


def optional_config(path: Path) -> Config:
    """Return the configuration, or the defaults where the default file does not exist."""
    return Config() if path == DEFAULT_CONFIG and not path.exists() else load_config(path)


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
    label_column: Column = None,
    id_column: Column = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A column that is no feature; repeatable.")] = None,
    time_unit: Annotated[str, typer.Option(help="Of integer times: s, ms, us, ns.")] = "ms",
    window: Annotated[
        str | None,
        typer.Option(help="Of so long windows it learns the scatter; left out: the model's shortest.", show_default=False),
    ] = None,
    positive_class: Annotated[str | None, typer.Option(help="Of two classes, for AUC and the like.", show_default=False)] = None,
) -> None:
    """Build a reference from a file of rows: `monitor reference build train.csv --model credit --model-version 7`."""
    from monitor.reference_build import FeatureOptions, build_reference  # noqa: PLC0415

    found = optional_config(config)
    features = found.models[model].features if model in found.models else {}
    options = {n: FeatureOptions(f.kind, f.max_categories, f.pii) for n, f in features.items()}
    columns = ColumnOptions(
        time=time_column,
        prediction=prediction_column,
        score=score_column,
        label=label_column,
        id=id_column,
        exclude=tuple(exclude or ()),
        time_unit=time_unit,  # type: ignore[arg-type]
    )
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed:,.0f} rows read"), TimeElapsedColumn(),
        console=ERR, disable=not sys.stderr.isatty(), transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("rows", total=None)
        made = build_reference(
            file,
            model,
            model_version,
            columns,
            options,
            lambda n: progress.advance(task, n),
            window_ms=_window_ms(found, model, window),
            positive_class=positive_class,
        )
    partial = output.with_name(output.name + ".part")
    partial.write_bytes(made.to_bytes())
    os.replace(partial, output)
    _print(made)
    say(f"wrote {output}, {output.stat().st_size:,} bytes")
    data(made.sha256)


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


def _print(made: Reference) -> None:
    table = Table(title=f"{made.model} {made.version}: {made.record.rows:,} rows", title_justify="left")
    for name in ("feature", "kind", "rows", "missing", "mean", "std", "from", "to"):
        table.add_column(name, justify="left" if name in ("feature", "kind") else "right")
    for feature in made.layout.features:
        s = made.profile.summary(feature.name)
        if isinstance(feature, NumberFeature):
            facts = [f"{v:.6g}" for v in (s.mean or 0.0, s.std or 0.0, feature.minimum, feature.maximum)]
            table.add_row(feature.name, "number", f"{s.n:,}", f"{s.missing:,}", *facts)
        else:
            values = f"{len(feature.values)} values" + (f" + {len(feature.other)} other" if feature.other else "")
            table.add_row(feature.name, "category", f"{s.n:,}", f"{s.missing:,}", "", "", values, "")
    ERR.print(table)
    for warning in made.record.warnings:
        say(f"warning: {warning}")


@reference.command()
def show(file: Annotated[Path, typer.Argument(help="A reference file.")]) -> None:
    """Print what a reference holds."""
    made = read_reference(file)
    _print(made)
    data(made.sha256)


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
    from monitor.files import text_ms  # noqa: PLC0415
    from monitor.reference import References  # noqa: PLC0415
    from monitor.runtime import references, topics  # noqa: PLC0415

    found = load_config(config)
    made = read_reference(file)
    counts = topics.check_topics(found)
    known = References()
    references.read_references(found, counts[references.references_topic(found)], known)
    if effective_from is None:
        newest = known.at(made.model, made.version, 1 << 60)
        if newest is not None and newest.sha256 != made.sha256:
            raise InputError(
                f"{made.model} {made.version} has a reference already ({newest.sha256[:12]}); "
                "say from which event time the new one applies: --effective-from 2025-06-01T00:00:00Z"
            )
    else:
        made = made.effective_from(text_ms(effective_from))
    references.publish(found, made)
    say(f"published {made.key.decode()} to {references.references_topic(found)}")
    data(made.sha256)
