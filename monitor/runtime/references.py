"""The references topic: what its records mean to a worker, and publishing to it."""

from __future__ import annotations

import structlog

from monitor.bootstrap import missing_segments
from monitor.config.settings import Config
from monitor.errors import InputError
from monitor.reference import Reference, References
from monitor.runtime.compacted import publish_record, read_newest

log = structlog.get_logger()


def references_topic(config: Config) -> str:
    """Return the name of the topic."""
    return f"{config.app}.references"


def read_references(config: Config, partitions: int, into: References) -> dict[int, int]:
    """Take every reference on the topic in; return the next offset of each partition that has records."""
    return read_newest(config, references_topic(config), partitions, lambda _, value: take_reference(value, into, config))


def take_reference(value: bytes | None, into: References, config: Config) -> None:
    """Take one record in; one that is no reference is logged and left out. Raises ConfigError for one of another hash key."""
    if value is None:
        return
    try:
        reference = Reference.from_bytes(value)
        into.add(reference)
    except InputError as error:
        log.error("reference_ignored", reason=str(error))
        return
    difference = missing_segments(config, reference)
    if difference is not None:
        log.warning("segments_differ", reason=difference)


def publish(config: Config, reference: Reference) -> None:
    """Put a reference on the topic and await the acknowledgement. Raises ConfigError."""
    publish_record(config, references_topic(config), reference.key, reference.to_packed(), "reference")
