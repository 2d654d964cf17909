"""The compiled part of the monitor: optional, and without a trace in what is counted."""
