"""Labels from a calculator: energies and forces of structures, or along dynamics started from them."""

from equipoise.data.label.dask_pool import Dask
from equipoise.data.label.method import Method, MissingPackage
from equipoise.data.label.pool import Engine, PoolError, Processes
from equipoise.data.label.record import Summary
from equipoise.data.label.request import Langevin, Request
from equipoise.data.label.run import Interrupted, TooManyFailures, label
from equipoise.data.label.starts import read_structures
from equipoise.data.label.store import StoreError

__all__ = [
    "Dask",
    "Engine",
    "Interrupted",
    "Langevin",
    "Method",
    "MissingPackage",
    "PoolError",
    "Processes",
    "Request",
    "StoreError",
    "Summary",
    "TooManyFailures",
    "label",
    "read_structures",
]
