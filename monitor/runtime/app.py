"""The Faust app of a worker: its settings, and the credentials that librdkafka gets too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faust
import faust.streams

from monitor.bootstrap import PRODUCER_TIMEOUT_MS
from monitor.config.settings import Config, Kafka
from monitor.errors import ConfigError
from monitor.runtime import memory, topics
from monitor.runtime.batches import BatchScheduler
from monitor.runtime.broker import password
from monitor.runtime.extensions import BatchTransport, CheckpointTable, MonitorApp
from monitor.runtime.readiness import Readiness
from monitor.runtime.recovery import SafeTableManager

FAUST_VERSION = "0.15.3"
MAX_POLL_RECORDS = 20_000
"""Of all partitions, at once: with fewer the fetches of several are cut into more batches, of which each costs the same."""


def check_environment() -> None:
    """Raise ConfigError when what is installed is not what the overrides were written for."""
    problems = []
    if faust.__version__ != FAUST_VERSION:
        problems.append(f"faust-streaming {faust.__version__} is installed; this program needs {FAUST_VERSION} exactly")
    if getattr(faust.streams, "_CStreamIterator", None) is None:
        problems.append("faust-streaming is installed without its compiled parts (NO_CYTHON); install its wheel")
    if importlib.util.find_spec("cramjam") is None:
        problems.append("cramjam is not installed; compressed topics could not be read")
    if problems:
        raise ConfigError(problems)


def build_app(config: Config, folder: Path, sources: Iterable[str]) -> MonitorApp:
    """Return an app without tables and agents. sources: topics that stages read, `partials` too."""
    session_s = config.kafka.session_timeout / 1000
    app = MonitorApp(
        config.app,
        broker=[f"kafka://{server.strip()}" for server in config.kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(config.kafka),
        store="rocksdb://",
        datadir=str(folder),
        Table=CheckpointTable,
        TableManager=SafeTableManager,
        ConsumerScheduler=BatchScheduler,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        stream_wait_empty=False,  # waits for ever for what is not acknowledged
        stream_buffer_maxsize=memory.max_batches(config.state.memory),
        broker_max_poll_records=MAX_POLL_RECORDS,
        consumer_max_fetch_size=memory.FETCH_BYTES,
        broker_commit_interval=1.0,
        broker_commit_every=1_000_000,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=config.kafka.heartbeat_interval / 1000,
        broker_rebalance_timeout=max(session_s, 10.0),
        broker_request_timeout=max(30.0, session_s + 1),
        producer_request_timeout=PRODUCER_TIMEOUT_MS / 1000,  # 20 minutes by default
        producer_acks=-1,
        producer_linger=0.005,
        producer_max_batch_size=1 << 20,
        producer_max_request_size=topics.MAX_MESSAGE_BYTES,
        table_standby_replicas=0,  # 1 by default; a standby can miss records unseen
    )
    app.source_topics = frozenset(sources)
    app.readiness = Readiness()
    app.output_topics = frozenset(f"{config.app}.{kind}" for kind in ("results", "alerts", "references", "dead-letter"))
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    return app


def _credentials(kafka: Kafka) -> Any:
    """Return Faust's credentials for the same security settings that librdkafka gets."""
    if kafka.security_protocol == "plaintext":
        return None
    context = None
    if kafka.security_protocol.endswith("ssl"):
        from aiokafka.helpers import create_ssl_context  # noqa: PLC0415  (only where TLS is used)

        context = create_ssl_context(cafile=str(kafka.ssl_ca_location) if kafka.ssl_ca_location else None)
    if kafka.security_protocol == "ssl":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=password(kafka), mechanism=kafka.sasl_mechanism, ssl_context=context
    )
