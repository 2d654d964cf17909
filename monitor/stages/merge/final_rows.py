"""Final windows as they are stored, and which of them later ones are judged with."""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from monitor.decision.scales import MAX_EARLIER
from monitor.stages.pieces import Row
from monitor.stages.rows import row_key
from monitor.windows import Window

MAX_EMPTY_WINDOWS = 24
"""Windows without a row that are still published after the last one with rows: enough for a traffic alert, then silence."""

MAX_LOOKBACK = 168
"""Final windows, with rows or without, among which those are looked for that a window is judged with: a week of hours."""


class Unsent(msgspec.Struct, array_like=True):
    """What an earlier edition of a final window had not sent yet."""

    serial: int
    results: list[tuple[bytes, bytes]]
    alerts: list[tuple[bytes, bytes]]

    @property
    def n_bytes(self) -> int:
        """Bytes of its records."""
        return sum(len(part) for record in (*self.results, *self.alerts) for part in record)


class Final(msgspec.Struct, kw_only=True):
    """A final window: frozen bytes until they are sent, and the decision state after it by version, where the next one starts.

    live: versions that had rows in the last window with any. unseen_for: windows since a version had rows. empty: windows in a row
    without rows. alarmed: versions with an open incident that is a warning or worse. revisions: of versions that were restated, and of those
    that it was published for while no version had rows. said: what the next revision has to know of the alerts, by version. edition: how
    often the row was replaced. serial: place among all that is decided of a model that revises, in which order it is sent. unsent: of
    earlier editions. tallies: what later windows are judged with, by version with rows (decision.scales); of the first edition.
    """

    after: dict[str, bytes]
    live: list[str]
    unseen_for: dict[str, int] = {}
    empty: int = 0
    alarmed: list[str] = []
    results: list[tuple[bytes, bytes]] = []
    alerts: list[tuple[bytes, bytes]] = []
    revisions: dict[str, int] = {}
    said: dict[str, bytes] = {}
    edition: int = 0
    serial: int = 0
    unsent: list[Unsent] = []
    tallies: dict[str, bytes] = {}

    @property
    def to_send(self) -> list[Unsent]:
        """What is frozen and not sent, of this edition and of those before, in order."""
        return [*self.unsent, Unsent(self.serial, self.results, self.alerts)] if self.results or self.alerts else self.unsent

    @property
    def serials(self) -> list[int]:
        """Serials of what may be there to send, this edition's last."""
        return [*(unsent.serial for unsent in self.unsent), self.serial]

    def forget_sent(self) -> None:
        """Everything is on its topic."""
        self.results, self.alerts, self.unsent = [], [], []

    @property
    def handed_on(self) -> tuple[object, ...]:
        """What the next window depends on, beside `after`."""
        return sorted(self.after), self.live, self.unseen_for, self.empty, sorted(self.alarmed)

    @property
    def published(self) -> Set[str]:
        """Versions that the window was published for, live or not any more."""
        return {*self.live, *self.revisions}

    def remember(self, old: Final) -> None:
        """Keep the numbers of versions that late rows of others have taken from the window: what comes of them is their next revision."""
        for version in old.published - {*self.live}:
            self.revisions[version] = old.revisions.get(version, 0)
            if version in old.said:
                self.said[version] = old.said[version]

    @property
    def held_bytes(self) -> int:
        """Memory that its bytes take."""
        return sum(unsent.n_bytes for unsent in self.to_send) + sum(
            len(each) for by in (self.after, self.said, self.tallies) for each in by.values()
        )

    @property
    def at_rest(self) -> Final:
        """An empty one that tells which versions later windows are judged with, and in which order it is sent."""
        unsent = [Unsent(each.serial, [], []) for each in self.unsent]
        return Final(after={}, live=[], serial=self.serial, unsent=unsent, tallies=dict.fromkeys(self.tallies, b""))

    def copy(self, old: Final, version: str) -> None:
        """Take over what is known of a version that had rows before too."""
        self.after[version] = old.after[version]
        self.alarmed += [version] if version in old.alarmed else []
        if version in old.revisions:
            self.revisions[version] = old.revisions[version]
        if version in old.said:
            self.said[version] = old.said[version]
        if version in old.tallies:
            self.tallies[version] = old.tallies[version]


def window_key(model: str, window: Window, edition: int = 0) -> bytes:
    """Return the row key of a final window; each edition has its own, for the same reason."""
    return row_key("window", model, window.end_ms, window.size_ms, window.step_ms, *((edition,) if edition else ()))


def n_unneeded(finals: Sequence[tuple[Window, Row[Final]]]) -> int:
    """Return how many of a specification's oldest final windows the next one is not judged with; never the last, which has the state.

    Kept are the newest `MAX_EARLIER` with tallies of any version, of the newest `MAX_LOOKBACK`.
    """
    keeping = [i for i in range(max(0, len(finals) - MAX_LOOKBACK), len(finals)) if finals[i][1].shown.tallies]
    return keeping[-MAX_EARLIER:][0] if keeping else max(0, len(finals) - 1)


def history_of(finals: Sequence[tuple[Window, Row[Final]]], version: str) -> list[bytes]:
    """Return the tallies of a version's final windows, newest first: those that the window after them is judged with."""
    rows = (row for _, row in reversed(finals[n_unneeded(finals) :]) if version in row.shown.tallies)
    return [each for row in rows if (each := row.value.tallies[version])]
