"""Programs that read the same topics, or judge the same windows; each runs with an interpreter that has what it imports."""
