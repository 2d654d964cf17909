"""A closed window, and what is said of it."""

from __future__ import annotations

from typing import NamedTuple

from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.windows import Window


class ClosedWindow(NamedTuple):
    """A final window of one model version and segment, with the reference that it is compared with."""

    model: str
    version: str
    window: Window
    segment: str
    """`all`, or a segment's name."""
    profile: Profile
    reference: Reference | None
    revision: int
    rows_other_layout: int
    """Rows of the window that came under another reference's layout; not compared."""
    lost_offsets: int
    """Source offsets that retention took before they were read; > 0 means that the window is incomplete."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last]"""


class Judgement(NamedTuple):
    """What a closed window leads to: records to publish, as (key, value), and the decision state after it."""

    results: tuple[tuple[bytes, bytes], ...]
    alerts: tuple[tuple[bytes, bytes], ...]
    after: bytes
    """State for the next window of the same model version and specification; b"" is none."""
    alert_severities: tuple[str, ...]
    """Of the alerts, in order."""
