from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from monitor.runtime.logs import forward_libraries


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_what_libraries_log_becomes_an_event_of_ours() -> None:
    forward_libraries()
    with capture_logs() as logs:
        logging.getLogger("aiokafka.conn").warning("closed %s", "early")
        logging.getLogger("aiokafka.conn").info("of no interest")
    assert logs == [{"event": "closed early", "logger": "aiokafka.conn", "log_level": "warning"}]


def test_an_exception_keeps_its_trace() -> None:
    forward_libraries()
    with capture_logs() as logs:
        try:
            raise ValueError("x")
        except ValueError:
            logging.getLogger("faust").exception("crashed")
    assert logs[0]["exc_info"][0] is ValueError
