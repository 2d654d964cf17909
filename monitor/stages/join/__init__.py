"""The join: one partition of `outcomes` → what became known of each pane, cut by cut."""
