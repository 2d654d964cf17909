"""How profiles of stage 2 are merged: what has arrived of a pane into a sealed one, and sealed panes into a closed window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.errors import StateMismatch
from monitor.findings import ClosedWindow
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.reference import References
from monitor.stages.kept import KeptReferences
from monitor.stages.merge.arrivals import Arrivals, newest
from monitor.stages.merge.rows import ModelRows
from monitor.stages.merge.sealed_panes import Sealed, Share, count_rows, share_of, spans
from monitor.stages.merge.trail import counted_on, trailing
from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS, Window


@dataclass(slots=True)
class Merged:
    """Sealed panes of a version together. by_reference: sha256 → profile. offsets, rows: see findings.ClosedWindow."""

    by_reference: dict[str, Profile] = field(default_factory=dict)
    offsets: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: int = 0


class Closer:
    """Merges profiles by the reference that they were counted with; `kept` is told which references the state names.

    Raises StateMismatch when such a reference is not known.
    """

    def __init__(self, settings: Settings, references: References, kept: KeptReferences) -> None:
        self._settings = settings
        self._references = references
        self._kept = kept

    def pane(self, places: Mapping[str, Arrivals], base: Sealed | None = None) -> tuple[Sealed, list[bytes]]:
        """Merge what has come of a pane, by place, and add it to what was sealed before; return it, and what was discovered by each."""
        by_reference: dict[str, Profile] = {}
        shares: dict[str, Share] = dict(base.shares) if base is not None else {}
        lost = base.lost if base is not None else 0
        found: list[bytes] = []
        for sha256, data in base.profiles if base is not None else ():
            self._merged(by_reference, sha256).add_block(data)
        for place in sorted(places):
            for arrived in newest(places[place]):
                partial = arrived.partial
                self._merged(by_reference, partial.reference).add_block(partial.profile)
                if not partial.chunk:
                    shares[place] = share_of(partial)
                    lost += partial.lost
                    found.append(partial.discovery)
        profiles = [(sha, by_reference[sha].to_bytes()) for sha in sorted(by_reference, key=self._age)]
        return Sealed(profiles, shares, lost), found

    def window(self, name: str, version: str, window: Window, model: ModelRows) -> ClosedWindow:
        """Merge a version's sealed panes of a window under the newest of their references."""
        merged = Merged()
        for pane in model.panes(window):
            if version in pane:
                self.add(merged, pane[version].value)
        return self.closed(name, version, window, model, merged)

    def add(self, merged: Merged, pane: Sealed) -> None:
        """Add a sealed pane to those before it."""
        spans(pane.shares, merged.offsets)
        count_rows(pane.shares, merged.rows)
        merged.lost += pane.lost
        for sha, data in pane.profiles:
            self._merged(merged.by_reference, sha).add_block(data)

    def closed(self, name: str, version: str, window: Window, model: ModelRows, merged: Merged) -> ClosedWindow:
        """Return a window of merged panes, which are of no further use if they have several references."""
        by_reference = merged.by_reference
        judged = max(by_reference, key=self._age, default=None)
        if judged is None:
            reference = self._references.at(name, version, window.start_ms)
            profile = Profile(reference.layout if reference else Layout())
        else:
            reference = self._references.by_sha256(judged) if judged else None
            profile = by_reference[judged]
        others = [other for sha, other in by_reference.items() if sha != judged]
        for other in others:
            profile.stream.merge(other.stream)  # whatever their layout, they are rows of this window
        trail = self._settings.model(name).trail
        if reference is not None and trail is not None:
            earlier = (model.kept[start].get(version) for start in trailing(trail, window, sorted(model.kept)))
            reference = counted_on(reference, [row.value.profiles for row in earlier if row is not None])
        return ClosedWindow(
            model=name,
            version=version,
            window=window,
            profile=profile,
            reference=reference,
            revision=0,
            rows_other_layout=sum(other.n for other in others),
            lost_offsets=merged.lost,
            source_offsets=merged.offsets,
            partition_rows=merged.rows,
        )

    def _merged(self, by_reference: dict[str, Profile], sha256: str) -> Profile:
        """Return the profile that everything of one reference is added to."""
        if sha256 not in by_reference:
            by_reference[sha256] = Profile(self._layout(sha256))
        return by_reference[sha256]

    def _age(self, sha256: str) -> tuple[int, str]:
        reference = self._references.by_sha256(sha256)
        return (reference.effective_from_ms if reference else NEVER_MS, sha256)

    def _layout(self, sha256: str) -> Layout:
        if not sha256:
            return Layout()
        reference = self._references.by_sha256(sha256)
        if reference is None:
            raise StateMismatch(
                f"reference {sha256[:12]} is named by a partial but is not on {self._settings.topic('references')}"
            )
        self._kept.use(reference)
        return reference.layout
