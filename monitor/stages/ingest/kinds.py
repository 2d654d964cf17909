"""The settings of models as arrays: what applies to each row of a fetch is taken by place, not asked model by model."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from monitor.columns import Int
from monitor.stages.settings import Settings


class Kinds:
    """Settings by place: the defaults at 0, then those of each configured model; shape (1 + number of these,).

    revising: where late rows restate windows, how.
    """

    def __init__(self, settings: Settings) -> None:
        kinds = (settings.defaults, *settings.models.values())
        self._places = {model: place for place, model in enumerate(settings.models, 1)}
        self.pane_ms: Int = np.array([kind.pane_ms for kind in kinds], np.int64)
        self.grace_ms: Int = np.array([kind.grace_ms for kind in kinds], np.int64)
        self.remember_ids_ms: Int = np.array([kind.remember_ids_ms for kind in kinds], np.int64)
        self.revising = {place: kind.revising for place, kind in enumerate(kinds) if kind.revising is not None}

    def of_keys(self, keys: Collection[tuple[str, str]]) -> Int:
        """Return the place of each of some model versions."""
        if not self._places:
            return np.zeros(len(keys), np.int64)
        return np.array([self._places.get(model, 0) for model, _ in keys], np.int64)
