"""Quix Streams with a tumbling window of an hour, and nothing but a count in it: `quix_windows.py BOOTSTRAP TOPIC N`.

Histograms would come on top: each event reads its window's state, and writes it anew.
"""

import sys
import tempfile
import time

from meter import Meter
from quixstreams import Application

bootstrap, topic, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = Application(
    broker_address=bootstrap, consumer_group=f"quix-{time.time_ns()}", auto_offset_reset="earliest", state_dir=tempfile.mkdtemp(),
    loglevel="ERROR",
)  # fmt: skip
meter = Meter(n)


def event_time(value, headers, timestamp, timestamp_type):
    return value["time"]


def saw(_):
    if meter.saw(1):
        meter.end()


source = app.topic(topic, value_deserializer="json", timestamp_extractor=event_time)
events = app.dataframe(source)
events.tumbling_window(duration_ms=3_600_000, grace_ms=120_000).count().current().update(saw)
app.run()
