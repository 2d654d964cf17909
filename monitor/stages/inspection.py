"""What stored rows hold, one by one and together: decoded as a new owner would, for people who want to know whether it could."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from monitor.errors import MonitorError, StateMismatch, UnknownCodec
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.stages import codec_1, partials
from monitor.stages.ingest import panes
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.join import deltas
from monitor.stages.join.partition import JoinMeta
from monitor.stages.merge.meta import Meta
from monitor.stages.merge.rows import KINDS
from monitor.stages.merge.sealed_panes import Sealed
from monitor.stages.merge.trail import Kept
from monitor.stages.pieces import Row
from monitor.stages.rows import META, UNREADABLE, Stored, check_kinds, key_parts, parse, rank

ID_BYTES = 8
Parsed = tuple["Facts", bytes, Stored]
Layouts = Mapping[str, Layout]
"""By sha256 of the reference; "" is that of rows without one."""


@dataclass(slots=True)
class Facts:
    """One stored row. hi: last offset folded in. layouts: of its profiles, sha256. problem: why it cannot be used."""

    key: str
    kind: str = "?"
    codec: int = 0
    epoch: int = 0
    hi: int = -1
    bytes: int = 0
    layouts: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(slots=True)
class Partition:
    """All rows of one partition. hi: what its best meta covers, -1 without one. problems: of its rows together.

    is_of_later_version: a row is of a codec that this program does not know.
    """

    rows: list[Facts] = field(default_factory=list)
    hi: int = -1
    problems: list[str] = field(default_factory=list)
    is_of_later_version: bool = False

    def all_problems(self) -> Iterator[str]:
        """Yield a sentence per problem."""
        yield from (f"{row.key}: {row.problem}" for row in self.rows if row.problem)
        yield from self.problems


def inspect(items: Iterable[tuple[bytes, bytes]]) -> Partition:
    """Decode every row of a partition, every epoch; what a row holds is never a reason to raise."""
    found = Partition()
    parsed: list[Parsed] = []
    for stored, value in items:
        facts = Facts(repr(stored), bytes=len(stored) + len(value))
        found.rows.append(facts)
        with _noting(found, facts):
            key, version = parse(stored, value)
            check_kinds([key])
            facts.key, facts.kind = key.decode(), key_parts(key)[0]
            facts.codec, facts.epoch, facts.hi = version.codec, version.epoch, version.hi
            parsed.append((facts, key, version))
    layouts = _references(found, parsed)
    for whole, pieces in _whole_rows(parsed):
        facts = pieces[min(pieces)][0]
        with _noting(found, facts):
            facts.layouts = tuple(dict.fromkeys(_look(whole, {i: stored for i, (_, stored) in pieces.items()}, layouts)))
    _together(found, parsed)
    return found


@contextmanager
def _noting(found: Partition, facts: Facts) -> Iterator[None]:
    try:
        yield
    except UnknownCodec as error:
        facts.problem, found.is_of_later_version = str(error), True
    except (MonitorError, *UNREADABLE) as error:
        facts.problem = f"{type(error).__name__}: {error}"


def _references(found: Partition, parsed: Iterable[Parsed]) -> Layouts:
    """Return the layouts of the references kept among the rows."""
    layouts = {"": Layout()}
    for facts, key, version in parsed:
        if facts.kind == "reference":
            with _noting(found, facts):
                reference = Reference.from_bytes(version.payload)
                if reference.sha256 != key_parts(key)[1]:
                    raise StateMismatch(f"it holds the reference {reference.sha256[:12]}")
                layouts[reference.sha256] = reference.layout
                facts.layouts = (reference.layout.sha256,)
    return layouts


def _whole_rows(parsed: Iterable[Parsed]) -> Iterator[tuple[bytes, dict[int, tuple[Facts, Stored]]]]:
    """Yield what rows hold, by key, with the pieces that it is stored in; those of an earlier codec as one piece."""
    found: dict[tuple[bytes, int], dict[int, tuple[Facts, Stored]]] = {}
    for facts, key, version in parsed:
        if facts.kind in KINDS and version.codec != codec_1.VERSION:
            whole, _, piece = key.rpartition(b"|")
            found.setdefault((whole, version.epoch), {})[int(piece)] = facts, version
        elif facts.kind != "reference":
            found[key, version.epoch] = {0: (facts, version)}
    yield from ((key, pieces) for (key, _), pieces in found.items())


def _look(key: bytes, pieces: Mapping[int, Stored], layouts: Layouts) -> Iterator[str]:
    """Decode what `pieces` hold to the last count; yield the sha256 of each layout met. Raises what decoders raise."""
    kind, stored = key_parts(key)[0], pieces[min(pieces)]
    if stored.codec == codec_1.VERSION and kind != "meta":
        upgraded = {key: stored}
        codec_1.upgrade(upgraded)
        if upgraded != {key: stored}:
            for new_key, new in upgraded.items():
                whole = new_key.rpartition(b"|")[0] if kind in KINDS else new_key
                yield from _look(whole, {0: new._replace(codec=codec_1.VERSION + 1)}, layouts)
            return
    if kind in ("pane", "late"):
        yield from _profile(*panes.stored_profile(stored.payload), layouts)
    elif kind == "partial":
        partial = partials.decode(stored.payload)
        assert isinstance(partial, partials.Partial)
        yield from _profile(partial.reference, partial.profile, layouts)
    elif kind in KINDS:
        row: Row[Sealed] | Row[Kept] | None = Row.load(key, pieces, KINDS[kind])
        if row is not None and isinstance(row.value, Sealed | Kept):
            for reference, profile in row.value.profiles:
                yield from _profile(reference, profile, layouts)
    else:
        _look_at_plain(kind, stored.payload)


def _look_at_plain(kind: str, payload: bytes) -> None:
    """Look at what has no profile. Raises what decoders raise."""
    if kind == "meta":
        _decode_meta(payload)
    elif kind == "delta":
        deltas.stored_cells(payload)
    elif kind == "outcome":
        if not isinstance(partials.decode(payload), partials.OutcomePartial):
            raise StateMismatch("it holds no outcomes")
    elif kind == "ids" and len(payload) % ID_BYTES:
        raise StateMismatch(f"{len(payload)} bytes are no whole hashes")


def _decode_meta(payload: bytes) -> None:
    for kind in (IngestMeta, JoinMeta):
        with suppress(msgspec.ValidationError):
            kind.from_bytes(payload)
            return
    Meta.from_bytes(payload)


def _profile(reference: str, data: bytes, layouts: Layouts) -> Iterator[str]:
    if reference not in layouts:
        if data and not reference:
            raise StateMismatch("its layout is not known")
        return  # merge rows are read with the references topic too; ingest rows without their reference are told below
    layout = layouts[reference]
    if data:
        Profile.from_bytes(data, layout)
    yield layout.sha256


def _together(found: Partition, parsed: Iterable[Parsed]) -> None:
    """Look at what the rows are together: meta, and that no row is of an epoch that no meta knows."""
    metas = [version for _, key, version in parsed if key == META]
    found.hi = max((version.hi for version in metas), default=-1)
    if found.rows and not metas:
        found.problems.append("there are rows, but no meta: how far the log was read is not known")
    best: dict[bytes, Stored] = {}
    for _, key, version in parsed:
        if key not in best or rank(version) > rank(best[key]):
            best[key] = version
    kept = {key_parts(key)[1] for key in best if key.startswith(b"reference|")}
    for key, version in best.items():
        if key.startswith((b"pane|", b"late|")) and version.codec != codec_1.VERSION:
            try:
                reference, _ = panes.stored_profile(version.payload)
            except UNREADABLE:
                continue  # told already
            if reference and reference not in kept:
                found.problems.append(f"{key.decode()}: its reference {reference[:12]} is not in the state")
