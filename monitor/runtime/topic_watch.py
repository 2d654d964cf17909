"""Whether a broker answers, and whether the topics are still those that the worker began with: asked all the time, for the probes.

A consumer that waits for records does not notice for a long time that nobody is there; a topic that was deleted looks like silence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from monitor.config.settings import Kafka
from monitor.runtime.broker import client_settings, silent

ASK_S = 1.0
ANSWER_S = 2.0
"""An answer that takes longer is none; together with `ASK_S` a probe is right within 5 s."""


class TopicWatch(threading.Thread):
    """Asks every second. `unreachable` and `changed` say what is wrong, None when all is well.

    ids: what each topic's UUID is expected to be. None, on a broker that does not tell them: then only whether a broker answers is asked.
    """

    def __init__(self, kafka: Kafka, ids: Mapping[str, str | None]) -> None:
        super().__init__(name="topics", daemon=True)
        self._ids = {topic: uuid for topic, uuid in ids.items() if uuid is not None}
        self._client = AdminClient(client_settings(kafka) | {"error_cb": silent})
        self._servers = kafka.bootstrap_servers
        self.unreachable: str | None = None
        self.changed: str | None = None

    def run(self) -> None:
        """Ask for ever."""
        while True:
            self.ask()
            time.sleep(ASK_S)

    def ask(self) -> None:
        """Ask once. An answer that does not come leaves what was known of the topics as it was."""
        try:
            if self._ids:
                self.changed = self._what_changed()
            else:
                self._client.list_topics(timeout=ANSWER_S)
        except ck.KafkaException as error:
            self.unreachable = f"no broker answers at {self._servers}: {error.args[0].str()}"
        else:
            self.unreachable = None

    def _what_changed(self) -> str | None:
        """Return a sentence about the first topic that is not what it was. Raises KafkaException when no broker answers."""
        problem = None
        asked = self._client.describe_topics(ck.TopicCollection(list(self._ids)), request_timeout=ANSWER_S)
        for topic, future in asked.items():
            try:
                found = str(future.result(2 * ANSWER_S).topic_id)
            except ck.KafkaException as error:
                if error.args[0].code() not in _OF_A_TOPIC:
                    raise
                problem = problem or f"{topic}: {error.args[0].str()}"
            except TimeoutError as error:
                raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT)) from error
            else:
                if found != self._ids[topic]:
                    problem = problem or f"{topic} was deleted and created again"
        return problem


_OF_A_TOPIC = frozenset(
    {
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
        ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
        ck.KafkaError.UNKNOWN_TOPIC_ID,
        ck.KafkaError.LEADER_NOT_AVAILABLE,
    }
)
"""What a broker that answers says of one topic."""
