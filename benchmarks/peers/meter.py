"""What a program that reads a topic reports: rate and CPU time per event, after a warm-up. Needs the standard library only."""

import json
import os
import sys
import time


class Meter:
    """Counts events; measured is from `warm_up` of the n events on to the last, the process's CPU time of all threads.

    Without a warm-up from now on: what a client fetches ahead is then in it.
    """

    def __init__(self, n, warm_up=0.1):
        self.n, self._from, self.seen = n, warm_up * n, 0
        self._began = None if warm_up else (0, time.perf_counter(), cpu_seconds())

    def saw(self, k):
        """Note k more events; True once all were seen."""
        self.seen += k
        if self._began is None and self.seen >= self._from:
            self._began = (self.seen, time.perf_counter(), cpu_seconds())
        return self.seen >= self.n

    def report(self):
        """Print events per second and CPU µs per event as the last line."""
        n, wall, cpu = self._began
        n = self.seen - n
        took, spent = time.perf_counter() - wall, cpu_seconds() - cpu
        print(json.dumps({"events_per_second": n / took, "cpu_us_per_event": 1e6 * spent / n}), flush=True)

    def end(self):
        """Report, and end the process where it stands."""
        self.report()
        sys.stdout.flush()
        os._exit(0)


def cpu_seconds():
    times = os.times()
    return times.user + times.system
