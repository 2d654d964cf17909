from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck

from monitor.config.settings import Kafka
from monitor.runtime.topic_watch import TopicWatch

NOBODY = Kafka(bootstrap_servers="127.0.0.1:1")


class Broker:
    """What an admin client is told: an id or an error for each topic."""

    def __init__(self, **answers: str | int) -> None:
        self.answers = answers

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[str, Future[Any]]:
        found: dict[str, Future[Any]] = {}
        for topic, answer in self.answers.items():
            found[topic] = Future()
            if isinstance(answer, str):
                found[topic].set_result(SimpleNamespace(topic_id=answer))
            else:
                found[topic].set_exception(ck.KafkaException(ck.KafkaError(answer)))
        return found


def watch(broker: Broker) -> TopicWatch:
    found = TopicWatch(NOBODY, {"a": "id-a", "b": "id-b"})
    found._client = broker
    found.ask()
    return found


def test_topics_as_they_were_are_well() -> None:
    found = watch(Broker(a="id-a", b="id-b"))
    assert (found.unreachable, found.changed) == (None, None)


def test_a_topic_that_is_missing_or_was_made_anew_is_told_until_it_is_there_again() -> None:
    found = watch(Broker(a="id-a", b=ck.KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert found.unreachable is None
    assert str(found.changed).startswith("b: ")
    found._client = Broker(a="id-other", b="id-b")
    found.ask()
    assert found.changed == "a was deleted and created again"
    found._client = Broker(a="id-a", b="id-b")
    found.ask()
    assert found.changed is None


def test_a_broker_that_does_not_answer_says_nothing_of_topics() -> None:
    found = watch(Broker(a="id-other", b="id-b"))
    found._client = Broker(a=ck.KafkaError._TRANSPORT, b=ck.KafkaError._TRANSPORT)
    found.ask()
    assert "no broker answers at 127.0.0.1:1" in str(found.unreachable)
    assert found.changed == "a was deleted and created again"
    found._client = Broker(a="id-a", b="id-b")
    found.ask()
    assert (found.unreachable, found.changed) == (None, None)


def test_where_ids_are_not_told_only_the_broker_is_asked_for() -> None:
    found = TopicWatch(NOBODY, {"a": None})
    found.ask()
    assert "no broker answers" in str(found.unreachable)
