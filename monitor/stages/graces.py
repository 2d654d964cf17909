"""The grace of each model belongs to the state: it may be another one from the offset that meta covers on.

What was complete under the former grace stays so, since it was sent: under a longer one, rows of it are late as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import msgspec

from monitor.errors import StateMismatch
from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS, duration_text

_DEFAULTS = ""
"""Stands for the models that are not configured."""


class Graces(msgspec.Struct):
    """of: model → grace, ms, by which rows are sorted; empty where an earlier version wrote the state.

    passed_ms: model → event time that was complete under former ones.
    """

    of: dict[str, int] = {}
    passed_ms: dict[str, int] = {}

    @classmethod
    def configured(cls, settings: Settings) -> Graces:
        """Return the graces of now."""
        return cls({name: model.grace_ms for name, model in settings.models.items()} | {_DEFAULTS: settings.defaults.grace_ms})

    def of_model(self, name: str) -> int:
        """Return a model's grace, ms."""
        return self.of.get(name, self.of[_DEFAULTS])

    def passed(self, name: str) -> int:
        """Return up to when a model's event time was complete under former graces; NEVER where its grace was always the same."""
        return self.passed_ms.get(name, self.passed_ms.get(_DEFAULTS, NEVER_MS))

    def after(self, then: Graces, topic: str, models: Set[str], reached: Callable[[int], int], *, ahead: bool) -> Graces:
        """Return these graces as those that state of a partition of `topic` goes on with, which was made under other ones.

        models: that have rows. reached: grace → event time that is complete under it. ahead: rows hold more than meta covers, so that what
        comes after meta would be sorted by two graces; then a change raises StateMismatch. Those that are not known stay so.
        """
        if not then.of:
            return then
        passed: dict[str, int] = {}
        for name in sorted(self.of.keys() | then.of.keys() | then.passed_ms.keys() | models):
            before, now = then.of_model(name), self.of_model(name)
            if before != now and ahead and name in models:
                raise StateMismatch(
                    f"the grace of model {name} was {duration_text(before)} and is {duration_text(now)} now, and the last owner of the state "
                    f"of {topic} ended before a checkpoint was complete: start all workers once more with the former grace, stop them "
                    "(SIGTERM), then change it"
                )
            passed_ms = max(then.passed(name), reached(before) if before != now else NEVER_MS)
            if passed_ms > NEVER_MS:
                passed[name] = passed_ms
        return Graces(self.of, passed)
