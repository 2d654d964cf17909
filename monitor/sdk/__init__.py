"""For producers of events."""
