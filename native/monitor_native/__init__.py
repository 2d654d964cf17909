"""The compiled part of the monitor: optional, and without a trace in what is counted."""

INTERFACE = 1
"""What the monitor may expect of the modules: raised with every change of their stubs."""
