"""The policies topic: what its records mean to a worker, and publishing to it. Not read where policies are files."""

from __future__ import annotations

import structlog

from monitor.config.policy_file import from_record
from monitor.config.settings import Config
from monitor.errors import InputError
from monitor.policy import Policies
from monitor.runtime.compacted import publish_record, read_newest

log = structlog.get_logger()


def policies_topic(config: Config) -> str:
    """Return the name of the topic."""
    return f"{config.app}.policies"


def read_policies(config: Config, partitions: int, into: Policies) -> dict[int, int]:
    """Take every policy on the topic in; return the next offset of each partition that has records."""
    return read_newest(config, policies_topic(config), partitions, lambda key, value: take_policy(key, value, into))


def take_policy(key: bytes, value: bytes | None, into: Policies) -> None:
    """Take one record in, or a policy out; a record that is no policy is logged, and what it would have replaced stays."""
    if value is None:
        into.remove(key)
        return
    try:
        policy = from_record(value)
    except InputError as error:
        log.error("policy_ignored", key=key.decode(errors="replace"), reason=str(error))
        return
    into.add(policy)


def publish(config: Config, key: bytes, value: bytes | None) -> None:
    """Put a policy on the topic, or take one off, and await the acknowledgement. Raises ConfigError."""
    publish_record(config, policies_topic(config), key, value, "policy")
