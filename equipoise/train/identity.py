"""Which structures a model learns from: whether they are still the same, and whether others are among them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise.data import MappedStructures, Structure, Structures, Subset
from equipoise.data.structures import KINDS, each_structure
from equipoise.data.survey import geometry_key
from equipoise.graph import Graph

MANY = 100_000  # structures that are not in memory: of more, not all are read for this
SAMPLE = 1000  # of those


@dataclass(frozen=True)
class Identity:
    """What the structures of a data set are told by.

    Attributes:
      fingerprint: equal for the same structures with the same labels in the same order. Of a large set on the disk: that of the
        checksums in the header of a mapped folder, else of evenly spread structures.
      geometries: one key per structure, wherever it stands and whatever its labels; None for a large set on the disk.
    """

    fingerprint: str
    geometries: list[bytes] | None

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> "Identity":
        total = hashlib.blake2b(f"{len(graphs)};".encode(), digest_size=16)
        if isinstance(graphs, Structures) and len(graphs) > MANY:
            total.update(_gist(graphs))
            return cls(total.hexdigest(), None)
        geometries = []
        for structure in each_structure(graphs):
            geometries.append(geometry_key(structure))
            total.update(geometries[-1] + _labels(structure))
        return cls(total.hexdigest(), geometries)

    def shared(self, other: "Identity") -> int:
        """How many of these structures are among the others; 0 if that is not known."""
        known = set(other.geometries or ())
        return sum(key in known for key in self.geometries or ())


def _gist(graphs: Structures) -> bytes:
    rows, source = b"", graphs
    if isinstance(graphs, Subset):
        rows, source = graphs.rows.tobytes(), graphs.graphs
    if isinstance(source, MappedStructures):
        arrays = sorted(source.header["arrays"].items())
        # Edges are counted anew for another cutoff.
        return rows + repr([(name, a["sha256"]) for name, a in arrays if name != "edges"]).encode()
    some = np.linspace(0, len(graphs) - 1, SAMPLE).astype(int).tolist()
    structures = (graphs.structure(index) for index in some)
    return rows + b"".join(geometry_key(each) + _labels(each) for each in structures)


def _labels(structure: Structure) -> bytes:
    """To 1e-6 eV, eV/Å, eV/Å³: a conversion of units may be rounded otherwise on another machine."""
    total = hashlib.blake2b(digest_size=16)
    for kind in KINDS:
        if structure.knows(kind):
            values = np.round(np.asarray(getattr(structure, kind), dtype=np.float64), 6) + 0.0
            total.update(kind.encode() + np.where(np.isnan(values), np.nan, values).tobytes())
    return total.digest()
