"""Files and published data sets, as graphs."""

from equipoise.data.ase_database import AseDatabase
from equipoise.data.download import DownloadError, Remote, cache_folder, download
from equipoise.data.hdf5 import Hdf5Structures
from equipoise.data.loader import Loader
from equipoise.data.mapped import MappedStructures
from equipoise.data.mapped_writer import write_mapped
from equipoise.data.provenance import check_energies, one_theory
from equipoise.data.read import label_keys, read
from equipoise.data.sources.division import Counts
from equipoise.data.sources.record import Source, Splits
from equipoise.data.sources.registry import (
    SOURCES,
    fetch_source,
    find_source,
    find_variants,
    read_source,
)
from equipoise.data.sources.rmd17 import Rmd17, read_rmd17, rmd17
from equipoise.data.sources.trajectory import read_trajectory
from equipoise.data.split import Split, blocks, formulas, split
from equipoise.data.statistics import Statistics, statistics
from equipoise.data.structures import Report, Structure, Structures, Subset, edge_counts
from equipoise.data.unpack import unpack

__all__ = [
    "AseDatabase",
    "Counts",
    "DownloadError",
    "Hdf5Structures",
    "Loader",
    "MappedStructures",
    "Remote",
    "Report",
    "Rmd17",
    "SOURCES",
    "Source",
    "Split",
    "Splits",
    "Statistics",
    "Structure",
    "Structures",
    "Subset",
    "blocks",
    "cache_folder",
    "check_energies",
    "download",
    "edge_counts",
    "fetch_source",
    "find_source",
    "find_variants",
    "formulas",
    "label_keys",
    "one_theory",
    "read",
    "read_rmd17",
    "read_source",
    "read_trajectory",
    "rmd17",
    "split",
    "statistics",
    "unpack",
    "write_mapped",
]
