"""First on the path, this hides the compiled part: what a worker is without it."""

raise ImportError("hidden, to measure without it")
