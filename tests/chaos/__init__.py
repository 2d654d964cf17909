"""Faults on Apache Kafka: workers and brokers are killed, paused, cut off and started again while every event is written down.

    ledger      what the broker acknowledged, written by the producer
    oracle      what must come of the log, in plain loops that share no code with the monitor
    experiment  the phases warm-up, fault, recovery and final read, and what happens to workers and brokers in them
    checker     everything published, and the state, held against the oracle
    scenarios   which faults, on which traffic, how many

`python -m tests.chaos SCENARIO… [--full] [--seed N] [--json FILE]`; the seed decides the traffic and the faults.
"""
