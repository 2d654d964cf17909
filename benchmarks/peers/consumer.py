"""A hand-written librdkafka consumer, and what is done with each event: `consumer.py BOOTSTRAP TOPIC N JOB`.

consume: nothing. loads: `orjson.loads`. whylogs_rows, whylogs_frame: a whylogs profile, by the row or by frames of 10,000 rows.
river_adwin, river_histogram: one of each number, by event, and a count of each category's values.
"""

import sys
from collections import Counter

import confluent_kafka as ck
from meter import Meter

PARTITIONS, FRAME = 4, 10_000


def consume():
    return lambda values: None


def loads():
    import orjson

    def job(values):
        for value in values:
            try:
                orjson.loads(value)
            except orjson.JSONDecodeError:
                continue

    return job


def whylogs_rows():
    import orjson
    from whylogs.core import DatasetProfile

    profile = DatasetProfile()

    def job(values):
        for value in values:
            profile.track(row=orjson.loads(value)["features"])

    return job


def whylogs_frame():
    import orjson
    import pandas as pd
    from whylogs.core import DatasetProfile

    profile, rows = DatasetProfile(), []

    def job(values):
        rows.extend(orjson.loads(value)["features"] for value in values)
        while len(rows) >= FRAME:
            profile.track(pandas=pd.DataFrame(rows[:FRAME]))
            del rows[:FRAME]

    return job


def river(of_number):
    import orjson

    numbers, counts = {}, {}

    def job(values):
        for value in values:
            for name, x in orjson.loads(value)["features"].items():
                if type(x) is str:
                    counts.setdefault(name, Counter())[x] += 1
                else:
                    if name not in numbers:
                        numbers[name] = of_number()
                    numbers[name].update(x)

    return job


def river_adwin():
    from river import drift

    return river(drift.ADWIN)


def river_histogram():
    from river import sketch

    return river(lambda: sketch.Histogram(max_bins=128))


def main(bootstrap, topic, n, job):
    work = globals()[job]()
    consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": job, "enable.auto.commit": False})
    meter = Meter(n, warm_up=0)
    consumer.assign([ck.TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    done = False
    while not done:
        values = [message.value() for message in consumer.consume(5_000, 1.0)]
        work(values)
        done = meter.saw(len(values))
    meter.report()
    consumer.close()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
