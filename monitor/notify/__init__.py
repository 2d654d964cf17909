"""Who is told of alerts: `monitor notify`, readers of the alerts topic with consumer groups of their own.

What to send and when (`each_alert`, `what_fires`, `labels`, `matching`, `breaker`, `progress`) is pure; `route`, `outbound`, `receivers`,
`silences`, `acknowledged` and `notifier` are the shell around it.
"""
