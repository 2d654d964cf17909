"""What the end of a shortest window leaves for later ones: what versions without a reference learn, and panes to be compared with.

How a version learns, see `learning`; which panes a window is compared with, see `trail`. What a window leaves it leaves once: a revision
changes neither, else every later window would have to be restated with it.
"""

from __future__ import annotations

from monitor.hash_key import HashKey
from monitor.stages.merge.changes import Changes
from monitor.stages.merge.learning import Found, Learner, Learning, after_window, ended, merged
from monitor.stages.merge.rows import ModelRows
from monitor.stages.merge.trail import Kept, is_needed
from monitor.stages.pieces import Row
from monitor.stages.rows import CLOSED, OPEN, row_key
from monitor.stages.settings import Settings
from monitor.windows import Window


class History:
    """Makes rows of learnings and of kept panes, and gives up those that they replace. hash_key: of the values' hashes."""

    def __init__(self, settings: Settings, hash_key: HashKey, changes: Changes) -> None:
        self._settings = settings
        self._hash_key = hash_key
        self._changes = changes

    def find(self, name: str, model: ModelRows, pane: tuple[int, str], found: list[bytes], offset: int) -> None:
        """Keep what was discovered in a sealed pane (start, version) until a window has learnt from it; nothing once a learning is done."""
        start, version = pane
        learning = model.learning.get(version)
        if any(found) and not (learning is not None and learning.value.is_done):
            key = row_key("found", name, version, start, self._settings.model(name).pane_ms)
            row = Row(key, CLOSED, offset, Found(merged(found, self._hash_key)))
            model.found.setdefault(start, {})[version] = row
            self._changes.put(row)

    def give_up_learnt(self, name: str, model: ModelRows) -> None:
        """Give up what windows before meta's offset have learnt from: it was about to be deleted."""
        self._changes.give_up(model.pop_outdated())
        done = model.done_ms(self._settings.model(name).shortest)
        if done is not None:
            self._changes.give_up(row for rows in model.pop_found(done).values() for row in rows)

    def after(self, name: str, model: ModelRows, window: Window, offset: int) -> None:
        """Learn from a window that is final, and keep its panes, if it is one of the shortest; nothing of versions under alarm."""
        settings = self._settings.model(name)
        if window.spec != settings.shortest:
            return
        alarmed = {version for finals in model.final.values() for version in finals[-1][1].value.alarmed}
        self._learn(name, model, window, offset, alarmed)
        if settings.trail is not None or model.kept:
            self._keep(name, model, window, offset, alarmed)

    def _learn(self, name: str, model: ModelRows, window: Window, offset: int, alarmed: set[str]) -> None:
        """Let versions without a reference learn from a window that is final, less those under alarm."""
        others = {v for pane in model.panes(window) for v in pane if any(sha for sha, _ in pane[v].value.profiles)}
        found = model.pop_found(window.end_ms)
        self._changes.give_up(row for rows in found.values() for row in rows)
        settings, lead_ms = self._settings.model(name), self._settings.reference_lead_ms
        for version in sorted(found.keys() | (others & model.learning.keys())):
            known = model.learning.get(version)
            before = known.value if known else Learning()
            parts = [] if version in alarmed else [each.value.data for each in found.get(version, ())]
            if version in others:
                after = ended(before, window)
            else:
                after = after_window(Learner(name, version, settings, lead_ms, self._hash_key), before, window, parts)
            if after is before:
                continue
            self._changes.give_up([known] if known else [])
            key = row_key("learning", name, version, window.end_ms)
            row = model.learning[version] = Row(key, CLOSED if after.record else OPEN, offset, after)
            self._changes.put(row)

    def _keep(self, name: str, model: ModelRows, window: Window, offset: int, alarmed: set[str]) -> None:
        """Keep the panes with which a window ends, less those under alarm, and give up those that no later window needs."""
        settings = self._settings.model(name)
        for start in [s for s in model.kept if not is_needed(s, settings, window)]:
            self._changes.give_up(model.kept.pop(start).values())
        for start in sorted(s for s in model.sealed if window.end_ms - window.step_ms <= s < window.end_ms):
            if not is_needed(start, settings, window):
                continue
            for version, pane in model.sealed[start].items():
                profiles = [(sha, data) for sha, data in pane.value.profiles if sha]
                if profiles and version not in alarmed:
                    key = row_key("kept", name, version, start, settings.pane_ms)
                    row = model.kept.setdefault(start, {})[version] = Row(key, CLOSED, offset, Kept(profiles))
                    self._changes.put(row)
