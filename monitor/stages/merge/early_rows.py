"""What stage 2 keeps of its looks into open windows: a row for each that saw something."""

from __future__ import annotations

import msgspec

from monitor.stages.merge.final_rows import Unsent


class Early(msgspec.Struct, kw_only=True):
    """A look into an open window, at all panes before `upto_ms`, that saw something: frozen bytes until they are sent.

    told: by version, what was told of the window by then (told_early). results: what looks saw (results.looks). serial: see
    `final_rows.Final`.
    """

    upto_ms: int
    told: dict[str, bytes]
    alerts: list[tuple[bytes, bytes]] = []
    serial: int = 0
    results: list[tuple[bytes, bytes]] = []

    @property
    def to_send(self) -> list[Unsent]:
        """What is frozen and not sent."""
        return [Unsent(self.serial, self.results, self.alerts)]

    def forget_sent(self) -> None:
        """Everything is on its topic."""
        self.alerts, self.results = [], []
