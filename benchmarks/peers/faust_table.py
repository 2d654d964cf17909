"""Stock Faust with a table per event, and nothing but a count in it: `faust_table.py BOOTSTRAP TOPIC N`; with the project's interpreter.

Histograms would come on top: a stock table writes a row to its store and to its changelog for each change.
"""

import sys
import time

import faust
from meter import Meter

bootstrap, topic, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = faust.App(
    f"stock-{time.time_ns()}", broker=f"kafka://{bootstrap}", store="memory://", web_enabled=False, topic_partitions=4,
    consumer_auto_offset_reset="earliest", table_standby_replicas=0, value_serializer="json",
)  # fmt: skip
source = app.topic(topic, partitions=4)
counts = app.Table("counts", default=int, partitions=4).tumbling(3600.0, key_index=False)
meter = Meter(n)


@app.agent(source)
async def count(stream):
    async for event in stream:
        counts[event["model"]] += 1
        if meter.saw(1):
            meter.end()


if __name__ == "__main__":
    faust.Worker(app, loglevel="critical", quiet=True, redirect_stdouts=False).execute_from_commandline()
