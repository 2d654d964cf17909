"""References that a partition's state was made with, kept in that state: its rows can be read without the references topic."""

from __future__ import annotations

from collections.abc import Mapping

from monitor.reference import STATE_LEVEL, Reference, References
from monitor.stages.rows import OPEN, Stored, row_key

_KIND = "reference"


class KeptReferences:
    """Loads the references of a partition's rows into `known`, and tells which ones still have to be written."""

    def __init__(self, known: References, rows: Mapping[bytes, Stored]) -> None:
        self._known = known
        self._kept: set[str] = set()
        self._new: list[Reference] = []
        for key, row in rows.items():
            if key.startswith(f"{_KIND}|".encode()):
                reference = Reference.from_bytes(row.payload)
                self._kept.add(reference.sha256)
                known.keep(reference)

    def use(self, reference: Reference) -> None:
        """State will name this reference: it is written with the next checkpoint, once."""
        if reference.sha256 not in self._kept:
            self._kept.add(reference.sha256)
            self._new.append(reference)

    def new_rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return rows (key, state, hi, payload) of references not written yet."""
        rows = [(row_key(_KIND, one.sha256), OPEN, 0, one.packed or one.to_packed(STATE_LEVEL)) for one in self._new]
        self._new = []
        return rows
