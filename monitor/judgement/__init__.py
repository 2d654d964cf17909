"""What rules make of measurements: of a closed window, of a look into an open one, of a report of performance."""
