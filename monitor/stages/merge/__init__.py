"""Stage 2: one partition of `partials` → sealed panes, final windows, reports of performance, alerts."""
