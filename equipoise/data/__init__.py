"""Files and published data sets, as graphs."""

from equipoise.data.loader import Loader
from equipoise.data.read import Report, label_keys, read
from equipoise.data.sources.rmd17 import Rmd17, read_rmd17, rmd17
from equipoise.data.split import Split, split
from equipoise.data.statistics import Statistics, statistics

__all__ = [
    "Loader",
    "Report",
    "Rmd17",
    "Split",
    "Statistics",
    "label_keys",
    "read",
    "read_rmd17",
    "rmd17",
    "split",
    "statistics",
]
