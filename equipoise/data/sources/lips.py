"""LiPS: the superionic conductor Li6.75P3S11 at 520 K, 83 atoms in a periodic box."""

from equipoise.data.download import Remote
from equipoise.data.sources.extxyz_frames import ExtxyzFrames
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.sources.trajectory import read_trajectory


def _read(query: Query) -> Parts:
    path = SOURCE.find(query, "lips.xyz", "lips*.npz")
    if path.suffix == ".npz":
        return Parts(train=read_trajectory(path, cutoff=query.cutoff, unit="eV"))
    return Parts(train=ExtxyzFrames.of(path, cutoff=query.cutoff))


SOURCE = Source(
    name="lips",
    title="LiPS",
    theory="PBE (VASP, AIMD at 520 K)",
    units="eV, eV/Å",
    labels="energy, forces",
    periodic=True,
    licence="CC-BY-4.0 (as remembered of Materials Cloud 2022.45; look before you publish)",
    citation="S. Batzner et al., Nat. Commun. 13, 2453 (2022)",
    homepage="https://archive.materialscloud.org/record/2022.45",
    subset="all of it",
    variants=(Variant(name="all", structures=25_000, training=1000),),
    default="all",
    splits="none official: random; 1000 training structures are common",
    notes="Frames are those of a trajectory: random splits test interpolation only.",
    files=(
        Remote(
            url="https://archive.materialscloud.org/record/file?filename=lips.xyz&record_id=1302",
            name="lips.xyz",
        ),
    ),
    read=_read,
)
