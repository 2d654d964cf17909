"""Files of rows: CSV, CSV.gz, Parquet and NDJSON, read in batches of bounded memory; and rows as the events of a replay."""

from monitor.files.events import EventFile
from monitor.files.labels import LabelFile
from monitor.files.rows import ColumnOptions, Columns
from monitor.files.tables import Table, open_table
from monitor.files.times import times_ms

__all__ = ["ColumnOptions", "Columns", "EventFile", "LabelFile", "Table", "open_table", "times_ms"]
