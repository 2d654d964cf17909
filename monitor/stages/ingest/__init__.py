"""Stage 1: one partition of a source topic → partial profiles per pane, outcomes, a watermark, dead letters."""
