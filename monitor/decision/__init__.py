"""Which measurements are bad: one module per scheme."""
