"""Pure state machines over one partition of a topic."""
