"""What an output topic may answer that is no reason to end the process: it is gone, forbidden, too small, or has too few replicas."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from aiokafka import errors

from monitor.ports import Message

_REFUSALS = (
    errors.UnknownTopicOrPartitionError,
    errors.TopicAuthorizationFailedError,
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.NotEnoughReplicasError,
    errors.NotEnoughReplicasAfterAppendError,
    errors.LeaderNotAvailableError,
    errors.NotLeaderForPartitionError,
    errors.InvalidTopicError,
    errors.PolicyViolationError,
    errors.RequestTimedOutError,
    errors.KafkaTimeoutError,
)


class Refused(Exception):
    """Output topics took nothing for as long as a record may be on its way.

    topics: with what they answered. unsent: every message for them, in order, those too that may have been taken: what has one key must
    stay in order. offsets: of all messages that were sent, where each is; -1 of the refused ones.
    """

    def __init__(self, topics: Mapping[str, BaseException], unsent: Sequence[Message], offsets: Sequence[int] = ()) -> None:
        self.topics = dict(topics)
        self.unsent = tuple(unsent)
        self.offsets = list(offsets)
        super().__init__("; ".join(f"{topic}: {meaning(error)}" for topic, error in sorted(topics.items())))


class Refusals:
    """What output topics refused of one send; any other error is raised as it is. outputs: names of topics that may refuse."""

    def __init__(self, outputs: Collection[str]) -> None:
        self._outputs = outputs
        self._topics: dict[str, BaseException] = {}

    @contextmanager
    def of(self, topic: str) -> Iterator[None]:
        """Note it when a topic refuses what is done in this context."""
        try:
            yield
        except Exception as error:
            if topic not in self._outputs or not is_refusal(error):
                raise
            self._topics.setdefault(topic, error)

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def check(self, messages: Sequence[Message], offsets: Sequence[int]) -> None:
        """Raise Refused if a topic refused anything."""
        if self._topics:
            raise Refused(self._topics, [message for message in messages if message.topic in self], offsets)


def is_refusal(error: BaseException) -> bool:
    """Whether an error of a send is one of those that pass, or that an operator can mend while the worker runs."""
    return isinstance(cause(error), _REFUSALS)


def cause(error: BaseException) -> BaseException:
    """Return the client's own error: Faust wraps some."""
    return error if isinstance(error, errors.KafkaError) or error.__cause__ is None else error.__cause__


def meaning(error: BaseException) -> str:
    """Return the name and number of an error, without the record's content."""
    found = cause(error)
    return f"{type(found).__name__} ({getattr(found, 'errno', '?')})"
