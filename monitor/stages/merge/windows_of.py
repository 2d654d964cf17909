"""Which windows models have: they belong to the state, and may be others from the offset that meta covers on, made of the same panes.

A kind of window that comes begins with the first window of which no pane was sealed before: whether an earlier one would be whole depends
on what has been collected. One that goes is published no more; one that comes again has forgotten what it decided.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS, WindowSpec

_DEFAULTS = ""
"""Stands for the models that are not configured."""


class WindowsOf(msgspec.Struct):
    """specs: model → the kinds of its windows. since_ms: model → kind → no window of it begins before; absent where it was always there."""

    specs: dict[str, list[WindowSpec]] = {}
    since_ms: dict[str, dict[WindowSpec, int]] = {}

    @classmethod
    def configured(cls, settings: Settings) -> WindowsOf:
        """Return the windows of now."""
        return cls(
            {name: list(model.specs) for name, model in settings.models.items()} | {_DEFAULTS: list(settings.defaults.specs)}
        )

    def of_model(self, name: str) -> list[WindowSpec]:
        """Return the kinds of a model's windows."""
        return self.specs.get(name, self.specs[_DEFAULTS])

    def after(self, then: WindowsOf, sealed_ms: Mapping[str, int]) -> WindowsOf:
        """Return these windows as those that state goes on with, which was made for other ones.

        sealed_ms: of models with rows, up to when panes were sealed.
        """
        since: dict[str, dict[WindowSpec, int]] = {}
        for name in sorted(sealed_ms.keys() | then.since_ms.keys()):
            before = then.of_model(name)
            for spec in self.of_model(name):
                formerly = then.since_ms.get(name, {}).get(spec, NEVER_MS)
                begins = formerly if spec in before else sealed_ms.get(name, NEVER_MS)
                if begins > NEVER_MS:
                    since.setdefault(name, {})[spec] = begins
        return WindowsOf(self.specs, since)
