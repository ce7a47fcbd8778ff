"""Data: from simulators, data frames and other libraries' files, and measured data sets."""

from bayeswm.data.collect import collect
from bayeswm.data.dataframe import from_dataframe
from bayeswm.data.measured import measured
from bayeswm.data.minari import from_minari, to_minari
from bayeswm.data.registry import measured_file, source
from bayeswm.data.rows import from_rows
from bayeswm.data.simulate import simulate

__all__ = [
    "collect",
    "from_dataframe",
    "from_minari",
    "from_rows",
    "measured",
    "measured_file",
    "simulate",
    "source",
    "to_minari",
]
