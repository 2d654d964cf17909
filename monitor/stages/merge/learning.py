"""Stage 2's side of a learnt reference: what was discovered in sealed panes is added up, window by window, until there is enough of it.

A learning is a function of the final windows of a model version up to the last one that it has seen, which is in its row's key: its rows
never change, and one that a crash left ahead of meta is written again as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from monitor.hash_key import HashKey
from monitor.learning.discovery import Discovery
from monitor.learning.references import Learnt, learn
from monitor.stages.settings import ModelSettings
from monitor.windows import NEVER_MS, Window

FORGET_WINDOWS = 1_000
"""A version without rows for so many windows begins anew: what is kept is bounded by the versions alive."""


class Found(msgspec.Struct, array_like=True):
    """What a sealed pane looks like, until the window that it ends has been learnt from."""

    data: bytes


class Learning(msgspec.Struct, array_like=True):
    """What is known of a model version at the end of window `seen_ms`, of `windows` windows, the first from `start_ms`.

    is_done: a reference was learnt, or another one applies. record: the learnt one as (key, value), until it is sent.
    """

    seen_ms: int = NEVER_MS
    windows: int = 0
    start_ms: int = 0
    data: bytes = b""
    is_done: bool = False
    record: tuple[bytes, bytes] | None = None

    def forget_sent(self) -> None:
        """The reference is on its topic."""
        self.record = None


def merged(parts: Iterable[bytes], hash_key: HashKey) -> bytes:
    """Return the discovery of all parts together, less those of another hash key; b"" of none."""
    total: Discovery | None = None
    for part in parts:
        if part and total is None:
            total = Discovery.from_bytes(part, hash_key)
        elif part and total is not None:
            total.merge(Discovery.from_bytes(part, hash_key))
    return total.to_bytes() if total is not None else b""


class Learner(NamedTuple):
    """Whose reference is learnt, and how. lead_ms: how far ahead of the events it is published. hash_key: of the values' hashes."""

    model: str
    version: str
    settings: ModelSettings
    lead_ms: int
    hash_key: HashKey


def after_window(learner: Learner, learning: Learning, window: Window, parts: Sequence[bytes]) -> Learning:
    """Return a learning after one more window, with what was discovered in it: nothing where it was under alarm.

    As soon as there is enough, a reference is made of it, effective from the window's end, grace and lead: by then the partitions have
    read it that are no further ahead of the slowest one than the lead. Where no feature can be learnt, it begins anew.
    """
    wanted = learner.settings.learning
    if is_forgotten(learning, window):
        learning = Learning()
    if learning.is_done or wanted is None:
        return learning
    if not parts:
        return msgspec.structs.replace(learning, seen_ms=window.end_ms)
    data = merged([learning.data, *parts], learner.hash_key)
    start_ms = learning.start_ms if learning.windows else window.start_ms
    grown = Learning(window.end_ms, learning.windows + 1, start_ms, data)
    discovery = Discovery.from_bytes(data, learner.hash_key)
    if grown.windows < wanted.min_windows or discovery.rows < wanted.min_rows:
        return grown
    reference = learn(discovery, learner.model, learner.version, Learnt(grown.windows, start_ms, window.end_ms), wanted.options)
    if reference is None:
        return Learning(window.end_ms)
    reference = reference.effective_from(window.end_ms + learner.settings.grace_ms + learner.lead_ms)
    return Learning(window.end_ms, grown.windows, start_ms, is_done=True, record=(reference.key, reference.to_packed()))


def ended(learning: Learning, window: Window) -> Learning:
    """Return a learning that is over with a window, because another reference applies to it."""
    return learning if learning.is_done else Learning(window.end_ms, is_done=True)


def is_forgotten(learning: Learning, window: Window) -> bool:
    """Whether a window is so late that the learning counts no more."""
    return learning.seen_ms + FORGET_WINDOWS * window.step_ms <= window.end_ms
