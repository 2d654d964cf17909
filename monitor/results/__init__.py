"""The wire form of what a window was found to be: its events, the facts of its stream, its performance."""
