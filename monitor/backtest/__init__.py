"""What another policy would have told: published results, judged anew by the code that judges live, and held beside known incidents."""

from monitor.backtest.compared import Difference, KnownIncident, Score, differences, score
from monitor.backtest.judged import Backtest, backtest, backtest_reports
from monitor.backtest.records import JudgedLook, JudgedWindow, Report, read_looks, read_reports, read_results

__all__ = [
    "Backtest",
    "Difference",
    "JudgedLook",
    "JudgedWindow",
    "KnownIncident",
    "Report",
    "Score",
    "backtest",
    "backtest_reports",
    "differences",
    "read_looks",
    "read_reports",
    "read_results",
    "score",
]
