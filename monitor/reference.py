"""The reference record: a model's state before deployment, as a profile of its training data, and which one applies when."""

from __future__ import annotations

import base64
import copy
import hashlib
from bisect import bisect_right
from functools import cached_property
from typing import Literal

import cramjam
import msgspec

from monitor.chance.calibration import Calibration
from monitor.errors import ConfigError, InputError
from monitor.features import Feature, builtin, encode_json
from monitor.hash_key import NO_KEY, HashKey
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.segments import Segmentation
from monitor.windows import NEVER_MS

FORMAT = 2
FORMATS = (1, 2)
"""That are read. Format 1 had neither calibration nor performance."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 19
STATE_LEVEL = 3
"""Of zstd, where a reference is kept in state: 88 instead of 68 KB at 200 features, and 1 ms instead of 270, once a model and partition."""
BYTES_PER_CELL = 32
"""What a reference takes in memory for each of its cells: its end 8, its scores 8, its groups 8, its count 2, its share of names and calibration."""

PREDICTION = "@prediction"
SCORE = "@score"
LATENCY = "@latency_ms"
CONFIDENCE = "@confidence"
"""Names under which a layout holds outputs, besides `class_score_name`; a feature cannot begin with @."""

_CLASS_SCORE = "@score["


def class_score_name(label: str) -> str:
    """Return the name under which a layout holds the score of one class.

    >>> class_score_name("default")
    '@score[default]'
    """
    return f"{_CLASS_SCORE}{label}]"


def class_of(name: str) -> str | None:
    """Return the class that a name in a layout is the score of, or None.

    >>> class_of("@score[default]"), class_of("@score")
    ('default', None)
    """
    return name[len(_CLASS_SCORE) : -1] if name.startswith(_CLASS_SCORE) else None


class ScoreCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """Which share of rows is of the class, by score: linear between the points, level beyond; without points the score itself."""

    scores: list[float] = []
    """Increasing."""
    shares: list[float] = []
    ece: tuple[float, float] = (0.0, 0.0)
    """Expected calibration error of the scores as they are, and calibrated, on rows that the calibration was not made of."""


class ErrorModel(msgspec.Struct, frozen=True, kw_only=True):
    """Which |error| is to be expected of a row, by its features and what is predicted: a sum of small trees, in whole numbers."""

    features: list[str]
    """Names in the layout."""
    ranks: list[list[int]]
    """Of a category, the rank of each of its cells, special ones first; empty of a number, whose cells are ranks."""
    questions: list[tuple[int, int]]
    """(feature, rank): is a row's rank above that?"""
    trees: list[list[int]]
    """The questions of each tree; answers, the first one the highest bit, say which of its values counts."""
    values: list[list[int]]
    start: int
    """Of every row; values are added to it."""
    edges: list[int]
    """Rising; cell i holds the rows whose sum is in (edges[i−1], edges[i]]."""
    absolute_error: list[float]
    """Mean of |label − prediction| by cell, of rows that the trees which were asked were not made of."""
    squared_error: list[float]
    """Mean of its square, likewise."""


class PerformanceEstimator(msgspec.Struct, frozen=True, kw_only=True):
    """What estimates of performance without labels are made from."""

    n: int
    """Rows of the reference that it was made from."""
    calibrations: list[ScoreCalibration] = []
    """Of classes: per score, in the order of the classes, or the positive class's alone (CBPE)."""
    predicted: list[int] = []
    """Of classes: rows by predicted class. Of numbers: rows by cell of the predicted number (DLE)."""
    absolute_error: list[float] = []
    """Of numbers: mean of |label − prediction| by cell of the predicted number."""
    squared_error: list[float] = []
    """Of numbers: mean of its square, likewise."""
    error_model: ErrorModel | msgspec.UnsetType = msgspec.UNSET
    """Of numbers: where features say more of errors than the prediction alone does."""


class SegmentPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """How good the model was on the rows of a segment."""

    n: int
    """Rows with a label."""
    values: dict[str, float]


class ReferencePerformance(msgspec.Struct, frozen=True, kw_only=True):
    """How good the model was on the reference's rows."""

    task: Literal["binary", "multiclass", "regression"] | None = None
    n: int = 0
    """Rows with a label and a prediction."""
    n_scored: int = 0
    """Rows with a label and a score."""
    values: dict[str, float] = {}
    """accuracy, precision, recall, f1, auc, brier, log_loss, ece; mae, rmse, r2: those that are known."""
    classes: list[str] = []
    confusion: list[list[int]] = []
    """Rows by label (outer) and prediction (inner), in the order of `classes`."""
    positive_class: str | None = None
    """Of two classes, the one that precision, recall, f1 and the scores are about."""
    unknown: str | None = None
    """Why nothing, or not everything, is known."""
    estimator: PerformanceEstimator | msgspec.UnsetType = msgspec.UNSET
    """For estimates before labels come; references of earlier programs have none."""
    segments: dict[str, SegmentPerformance] | msgspec.UnsetType = msgspec.UNSET
    """By name, of segments with enough labels; likewise."""

    def of_segment(self, segment: str) -> tuple[int, dict[str, float]]:
        """Return rows and values of a segment: its own where they are known, else those of all rows."""
        own = {} if isinstance(self.segments, msgspec.UnsetType) else self.segments
        return (own[segment].n, own[segment].values) if segment in own else (self.n, self.values)


class ReferenceRecord(msgspec.Struct, kw_only=True, omit_defaults=False):
    """The wire form (schemas/reference.schema.json). `sha256` covers all but itself and `effective_from_ms`."""

    format: int = FORMAT
    model: str
    version: str
    rows: int
    features: list[Feature]
    segments: list[Segmentation] | msgspec.UnsetType = msgspec.UNSET
    """How rows are split; the profile has each segment's own counts, where the data had its keys."""
    profile: str
    """base64 of the profile's bytes."""
    labels: dict[str, int] = {}
    """Rows by label, where the data had a label column."""
    time_range_ms: tuple[int, int] | None = None
    """First and last event time, where the data had a time column."""
    warnings: list[str] = []
    calibration: Calibration | msgspec.UnsetType = msgspec.UNSET
    """How the reference's own windows scatter."""
    performance: ReferencePerformance | msgspec.UnsetType = msgspec.UNSET
    """How good the model was."""
    provisional: bool | msgspec.UnsetType = msgspec.UNSET
    """Learnt from live traffic, for want of data from before deployment; it gives way to any other reference."""
    windows: int | msgspec.UnsetType = msgspec.UNSET
    """Windows of traffic that it was learnt from, if it was."""
    left_out: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Features that were seen and are none of the reference's, such as identifiers: no window is to blame for them."""
    sha256: str = ""
    effective_from_ms: int | None = None
    """Event time from which windows are compared with this reference; null until it is published."""


class Reference:
    """A reference, decoded: its layout and its profile.

    hash_key: what values outside the dictionaries are hashed with; needed where values are counted, not where they are only read.
    panes: how many panes of earlier traffic its counts are of; None for its own.
    Raises InputError when the content does not match its sha256.
    """

    panes: int | None = None

    def __init__(self, record: ReferenceRecord, hash_key: HashKey = NO_KEY, packed: bytes | None = None) -> None:
        expected = record_sha256(record)
        if record.sha256 != expected:
            raise InputError(
                f"reference of {record.model} {record.version}: sha256 is {record.sha256[:12] or 'missing'}, "
                f"its content has {expected[:12]}; build it again"
            )
        self.record = record
        self.packed = packed
        self.model = record.model
        self.version = record.version
        self.sha256 = record.sha256
        self.effective_from_ms = NEVER_MS if record.effective_from_ms is None else record.effective_from_ms
        self.layout = Layout(tuple(record.features), tuple(record.segments or ()), hash_key)

    @property
    def calibration(self) -> Calibration:
        """How windows scatter, or why that is not known."""
        found = self.record.calibration
        return Calibration(unknown="a reference of format 1") if isinstance(found, msgspec.UnsetType) else found

    @property
    def performance(self) -> ReferencePerformance:
        """How good the model was, or why that is not known."""
        found = self.record.performance
        return ReferencePerformance(unknown="a reference of format 1") if isinstance(found, msgspec.UnsetType) else found

    @cached_property
    def profile(self) -> Profile:
        """Counts of the reference's rows."""
        return Profile.from_bytes(base64.b64decode(self.record.profile), self.layout)

    @cached_property
    def ranked(self) -> Profile:
        """The rows whose ranks are scored: its own, whatever rows it is counted on."""
        return self.profile

    @classmethod
    def build(
        cls,
        model: str,
        version: str,
        profile: Profile,
        *,
        labels: dict[str, int] | None = None,
        time_range_ms: tuple[int, int] | None = None,
        warnings: list[str] | None = None,
        calibration: Calibration | None = None,
        performance: ReferencePerformance | None = None,
        provisional_windows: int | None = None,
        left_out: list[str] | None = None,
    ) -> Reference:
        """Seal a profile into a reference; a provisional one if it was learnt from so many windows."""
        record = ReferenceRecord(
            model=model,
            version=version,
            rows=profile.n,
            features=list(profile.layout.features),
            segments=list(profile.layout.segmentations) or msgspec.UNSET,
            profile=base64.b64encode(profile.to_bytes()).decode(),
            labels=labels or {},
            time_range_ms=time_range_ms,
            warnings=warnings or [],
            calibration=calibration or Calibration(unknown="not made from a file with times"),
            performance=performance or ReferencePerformance(unknown="not made from a file with labels"),
            provisional=msgspec.UNSET if provisional_windows is None else True,
            windows=msgspec.UNSET if provisional_windows is None else provisional_windows,
            left_out=left_out or msgspec.UNSET,
        )
        record.sha256 = record_sha256(record)
        return cls(record, profile.layout.hash_key)

    def effective_from(self, time_ms: int | None) -> Reference:
        """Return the same reference, valid from an event time (None: from always)."""
        return Reference(msgspec.structs.replace(self.record, effective_from_ms=time_ms), self.layout.hash_key)

    def with_performance(self, performance: ReferencePerformance) -> Reference:
        """Return the same reference with another performance, sealed anew."""
        record = msgspec.structs.replace(self.record, performance=performance)
        record.sha256 = record_sha256(record)
        return Reference(record, self.layout.hash_key)

    def with_key(self, hash_key: HashKey) -> Reference:
        """Return the same reference, ready to count with a key. Raises ConfigError when it was built with another one."""
        other = next((key_id for key_id in self.layout.hash_key_ids if key_id != hash_key.id), None)
        if other is not None:
            raise ConfigError(
                f"the reference {self.sha256[:12]} of {self.model} {self.version} was built with {_named(other)}, but privacy.hash_key "
                f"is {_named(hash_key.id)}: set the key that it was built with, or build and publish it again"
            )
        return self if self.layout.hash_key == hash_key else Reference(self.record, hash_key, self.packed)

    def counted(self, profile: Profile, panes: int) -> Reference:
        """Return the same reference with the counts of so many panes in place of its own. The range stays the reference's."""
        other = copy.copy(self)
        other.__dict__.update(profile=profile, ranked=self.ranked)
        other.panes = panes
        return other

    @property
    def key(self) -> bytes:
        """Key on the references topic: model|version|effective_from, and |provisional lest it replace one that is not."""
        suffix = "|provisional" if self.record.provisional else ""
        return f"{self.model}|{self.version}|{self.effective_from_ms}{suffix}".encode()

    def to_bytes(self) -> bytes:
        """Return the JSON document, for a file."""
        return encode_json(self.record)

    def to_packed(self, level: int = _ZSTD_LEVEL) -> bytes:
        """Return the JSON document packed by zstd: a record of the topic, or of state. At most 64 KiB per 100 features."""
        return bytes(cramjam.zstd.compress(self.to_bytes(), level=level))

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """Read a JSON document, packed or not. Raises InputError when it is none, or of another format."""
        packed = data if data.startswith(_ZSTD_MAGIC) else None
        try:
            if packed is not None:
                data = bytes(cramjam.zstd.decompress(data))
            record = msgspec.json.decode(data, type=ReferenceRecord)
        except (msgspec.MsgspecError, cramjam.DecompressionError) as error:
            raise InputError(f"not a reference file: {error}") from error
        if record.format not in FORMATS:
            known = " and ".join(map(str, FORMATS))
            raise InputError(f"reference format {record.format} is not known; this program reads {known}")
        return cls(record, packed=packed)


def record_sha256(record: ReferenceRecord) -> str:
    """Return the hash of a record's content."""
    content = msgspec.to_builtins(
        msgspec.structs.replace(record, sha256="", effective_from_ms=None), order="deterministic", enc_hook=builtin
    )
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _named(key_id: str) -> str:
    return f"hash key {key_id}" if key_id else "no hash key"


class References:
    """Every reference known, by model version and event time, and by sha256.

    hash_key: with which all were built; None takes in those of any key, to look at and not to count with.
    """

    def __init__(self, hash_key: HashKey | None = NO_KEY) -> None:
        self._hash_key = hash_key
        self._by_version: dict[tuple[str, str], list[Reference]] = {}
        self._by_sha: dict[str, Reference] = {}

    @property
    def hash_key(self) -> HashKey:
        """What values of references that are learnt are hashed with."""
        return self._hash_key or NO_KEY

    def add(self, reference: Reference) -> None:
        """Take a reference in; one with the same model, version and `effective_from_ms` and `provisional` replaces it.

        Raises ConfigError when it was built with another hash key.
        """
        if self._hash_key is not None:
            reference = reference.with_key(self._hash_key)
        known = self._by_version.setdefault((reference.model, reference.version), [])
        known[:] = [r for r in known if r.key != reference.key]
        known.append(reference)
        known.sort(key=lambda r: r.effective_from_ms)
        self._by_sha[reference.sha256] = reference

    def keep(self, reference: Reference) -> None:
        """Know a reference by its sha256 only: state still needs it, whether or not it applies to new windows.

        One of another hash key is known too: what was counted with it can be read, but not added to; unkeyed ones go on unkeyed.
        """
        if self._hash_key is not None and reference.layout.hash_key_ids <= {self._hash_key.id}:
            reference = reference.with_key(self._hash_key)
        self._by_sha.setdefault(reference.sha256, reference)

    def at(self, model: str, version: str, start_ms: int) -> Reference | None:
        """Return the newest reference with `effective_from_ms` ≤ start_ms, a provisional one only if there is no other; or None."""
        known = self._by_version.get((model, version))
        if not known:
            return None
        known = known[: bisect_right(known, start_ms, key=lambda r: r.effective_from_ms)]
        return next((r for r in reversed(known) if not r.record.provisional), known[-1] if known else None)

    def by_sha256(self, sha256: str) -> Reference | None:
        """Return the reference with that content, whatever its time."""
        return self._by_sha.get(sha256)

    def __len__(self) -> int:
        return len(self._by_sha)

    @property
    def held_bytes(self) -> int:
        """Memory that the references take, about, with what windows are judged by."""
        return sum(BYTES_PER_CELL * one.layout.n_cells + len(one.packed or b"") for one in self._by_sha.values())
