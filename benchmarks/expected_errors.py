"""How near estimates of a regression come to its errors, beside NannyML's: 60,000 cars of reference, 60,000 more in ten chunks.

Two steps, since NannyML, whose data set it is, wants other versions of its dependencies than the project:

    /other/venv/bin/python benchmarks/expected_errors.py cars FOLDER     with nannyml==0.13.* alone; prints NannyML's figures
    python -m benchmarks.expected_errors estimates FOLDER                with the project's packages
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

FEATURES = ["car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission"]
CHUNK = 6_000


def cars(folder: Path) -> None:
    """Write both parts, and print how far NannyML's estimates are off."""
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml as nml

    reference, analysis, targets = nml.load_synthetic_car_price_dataset()
    analysis = analysis.merge(targets, on="id") if "id" in targets else analysis.join(targets)
    for name, part in (("reference", reference), ("analysis", analysis)):
        part[[*FEATURES, "y_pred", "y_true"]].to_csv(folder / f"{name}.csv", index=False)
    estimator = nml.DLE(feature_column_names=FEATURES, y_pred="y_pred", y_true="y_true", metrics=["mae", "rmse"], chunk_number=1)
    estimator.fit(reference)
    found = []
    for start in range(0, len(analysis), CHUNK):
        chunk = analysis.iloc[start : start + CHUNK].reset_index(drop=True)
        made = estimator.estimate(chunk).filter(period="analysis").to_df()
        error = (chunk["y_true"] - chunk["y_pred"]).to_numpy()
        found.append([*truth(error), *(float(made[(metric, "value")].iloc[0]) for metric in ("mae", "rmse"))])
    said("NannyML", found)


def estimates(folder: Path) -> None:
    """Print how far the project's are off, and what they cost."""
    from monitor.files import ColumnOptions, open_table
    from monitor.files.tables import role
    from monitor.performance import ErrorTrees, OutcomeCells, PerformanceSpec, Rows, estimated
    from monitor.reference_build import build_reference
    from monitor.reference_build.rows import column_batch

    columns = ColumnOptions(prediction="y_pred", label="y_true")
    begun = time.process_time()
    made = build_reference(folder / "reference.csv", "cars", "1", columns)
    print(f"reference built in {time.process_time() - begun:.1f} s of CPU, {len(made.to_bytes()):,} bytes")
    spec = PerformanceSpec.of(made)
    assert spec.error_model is not None
    trees = ErrorTrees(spec.error_model, made.layout)
    predicted, expected, errors, took = [], [], [], 0.0
    for batch in open_table(folder / "analysis.csv", columns, {}).batches():
        for part in (batch.where(np.arange(batch.n) // 1_000 == i) for i in range(-(-batch.n // 1_000))):
            rows = column_batch(part, made.layout)
            cells = made.layout.category_cells(rows)
            begun = time.process_time()
            expected.append(trees.expected(rows, cells))
            took += time.process_time() - begun
            predicted.append(np.array(part.arrays["@prediction"].to_pylist()))
            errors.append(np.array(part.arrays[role("label")].to_pylist()) - predicted[-1])
    whole = [np.concatenate(column) for column in (predicted, expected, errors)]
    found, constant = [], made.performance.values
    for start in range(0, len(whole[0]), CHUNK):
        of_chunk = [column[start : start + CHUNK] for column in whole]
        n = len(of_chunk[0])
        outcomes = OutcomeCells(spec)
        outcomes.add_made(Rows(of_chunk[0], of_chunk[1][:, np.newaxis], (np.arange(n), np.zeros(n, np.int64))))
        values = estimated(outcomes).values
        found.append([*truth(of_chunk[2]), values["mae"].value, values["rmse"].value])
    said("monitor", found)
    said("the reference's own", [[*one[:2], constant["mae"], constant["rmse"]] for one in found])
    print(f"{1e6 * took / len(whole[0]):.2f} µs a row")


def truth(error: np.ndarray) -> tuple[float, float]:
    """Return mean |error| and root mean square of rows."""
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def said(who: str, found: list[list[float]]) -> None:
    mae, rmse = (np.mean([abs(one[i + 2] - one[i]) for one in found]) for i in (0, 1))
    print(f"{who}: estimates of {len(found)} chunks are off by {mae:.1f} (mae) and {rmse:.1f} (rmse) in the mean")


if __name__ == "__main__":
    {"cars": cars, "estimates": estimates}[sys.argv[1]](Path(sys.argv[2]))
