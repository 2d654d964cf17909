"""Our own reading without what comes after it: `own_decode.py BOOTSTRAP TOPIC N JOB FEATURES`; runs with the project's interpreter.

The worker's Faust app, with its settings and its batches, and an agent of its own: consume does nothing with a batch, decode has the
worker's format read it in the worker's pieces, columns takes the columns of the reference's layout besides.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import faust
from meter import Meter

from benchmarks.traffic import PARTITIONS, Traffic, profile_of
from monitor.config.settings import Config
from monitor.formats.native import NativeFormat
from monitor.runtime.app import build_app
from monitor.runtime.garbage import spare_events
from monitor.stages.ingest.partition import pieces


def main(bootstrap, topic, n, job, features):
    logging.disable(logging.WARNING)
    config = Config.model_validate({"app": f"own-{time.time_ns()}", "kafka": {"bootstrap_servers": bootstrap}})
    app = build_app(config, Path(tempfile.mkdtemp()), [topic])
    app.on_assigned = app.on_resumed = lambda *_: None
    app.before_revoke = app.on_loop = nothing
    app.start_offset = from_the_start
    layout = profile_of(Traffic(n, features=features))[0].layout
    wire, meter = NativeFormat(), Meter(n)

    async def read(stream):
        async for event in stream.noack().events():
            records = event.value
            for piece in pieces(records, 1, in_tables=wire.in_tables) if job != "consume" else ():
                batch = wire.decode(piece)
                if job == "columns" or batch.offsets[0] == 0:  # a reader knows what to decode from the first batch on
                    wire.read(layout, batch.keys, batch.payloads, batch.offsets)
            event.ack()
            if meter.saw(len(records)):
                meter.end()

    app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw", partitions=PARTITIONS))(read)
    spare_events()
    faust.Worker(app, loglevel="critical", quiet=True, redirect_stdouts=False).execute_from_commandline()


async def nothing():
    return None


async def from_the_start(_):
    return 0


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
