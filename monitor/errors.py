"""The error tree. Data errors are values (`events.Rejection`), never exceptions.

MonitorError
├── ConfigError          one or more problems in configuration or environment; exit code 78
├── OffsetGap            a batch left offsets out; the driver asks the broker why
├── StateError
│   ├── StaleOwner       state holds an epoch that is not below this owner's
│   ├── StateMismatch    state belongs to another topic, partition count or configuration; exit code 78
│   ├── StateDamaged     a row's bytes are not what its codec says; exit code 78
│   └── UnknownCodec     a row was written by a version that this one does not know; exit code 78
└── InputError           a file given by the user cannot be used; exit code 2
"""

from __future__ import annotations

from collections.abc import Sequence


class MonitorError(Exception):
    """Root of everything this package raises on purpose."""


class ConfigError(MonitorError):
    """Configuration or environment is unusable; `problems` holds one sentence each."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class OffsetGap(MonitorError):
    """A batch starts, or continues, beyond the expected offset."""

    def __init__(self, expected: int, got: int) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"expected offset {expected}, got {got}")


class StateError(MonitorError):
    """Stored state cannot be used as it is."""


class StaleOwner(StateError):
    """A row's epoch is above this owner's: either the group was reset, or this owner is stale."""

    def __init__(self, own_epoch: int, found_epoch: int) -> None:
        self.own_epoch = own_epoch
        self.found_epoch = found_epoch
        super().__init__(f"state holds epoch {found_epoch}, this owner has {own_epoch}")


class StateMismatch(StateError):
    """State was written for another topic, partition count or configuration."""


class StateDamaged(StateError):
    """Stored bytes are not what their codec says: cut, or changed."""


class UnknownCodec(StateError):
    """Bytes carry a codec version that this version of the program does not read."""

    def __init__(self, what: str, version: int, known: Sequence[int]) -> None:
        self.what = what
        self.version = version
        self.known = tuple(known)
        super().__init__(f"{what} has codec version {version}; this program reads {', '.join(map(str, known))}")


class InputError(MonitorError):
    """A file or argument given by the user cannot be used; the message says what to do."""
