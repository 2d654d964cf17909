"""How good a model is: what labels say (realised), what its own scores say before they come (estimated), and what rules are told of it.

Everything is made of `OutcomeCells`: counts and exact sums of rows, which a reference's `PerformanceSpec` lays out, so that outcomes of any
batches, partitions and label delays add up to the same numbers. No row is kept.
"""

from monitor.performance.cells import OutcomeCells
from monitor.performance.error_model import ErrorTrees
from monitor.performance.estimated import Estimated, estimated
from monitor.performance.intervals import Estimate
from monitor.performance.measure import Needed, measurements
from monitor.performance.realised import Lag, Realised, SelectionBias, realised
from monitor.performance.rows import Rows
from monitor.performance.spec import NO_CLASS, OTHER_CLASS, PerformanceSpec

__all__ = [
    "NO_CLASS",
    "OTHER_CLASS",
    "ErrorTrees",
    "Estimate",
    "Estimated",
    "Lag",
    "Needed",
    "OutcomeCells",
    "PerformanceSpec",
    "Realised",
    "Rows",
    "SelectionBias",
    "estimated",
    "measurements",
    "realised",
]
