"""Acetylacetone: training at 300 or 600 K, tests at both, along a dihedral and along a hydrogen transfer."""

from equipoise.data.download import Remote
from equipoise.data.read import read
from equipoise.data.sources.record import Parts, Query, Source, Variant

_URL = "https://raw.githubusercontent.com/davkovacs/BOTNet-datasets/29e6d467317e4b5967b7ea5cbee54de953fa0d45/dataset_acac"
_TESTS = ("MD_300K", "MD_600K", "dihedral", "H_transfer")
# file -> (sha256, bytes)
_FILES = {
    "train_300K.xyz": ("8f5706d6902360555a5be59395612d2afc3489a75688388a58e7275fdad68af3", 880_100),
    "train_600K.xyz": ("180c2538508f7810a623c279426f44953ee7cfb2af77e48ea3986ff97645a71c", 880_112),
    "test_MD_300K.xyz": ("2291f3186a3cc6a5e05e92952c84a9237ca53f862d78fd3316a769360719ec43", 1_144_100),
    "test_MD_600K.xyz": ("d5a5bba154ec43f915eb7529f86ec3af60e6f911743859daba030181a0378ff7", 1_144_153),
    "test_dihedral.xyz": ("0c2246a593579de5a4450698d5f4ba5802b095824b7f211aa5889339967c6809", 43_974),
    "test_H_transfer.xyz": ("ea4d76c79cf4cfccd2f93eaf755172b0b648886c4907eb0f82dff07a77530743", 14_306),
    "isolated_atoms.xyz": ("b74f321b453374621b447d65c60979f70df1b7182c8ee0215388b2c574f33823", 455),
}  # fmt: skip


def _read(query: Query) -> Parts:
    train, _, test = query.variant.name.partition("/")
    paths = [
        SOURCE.find(query, name)
        for name in (f"train_{train}.xyz", f"test_{test or f'MD_{train}'}.xyz")
    ]
    graphs = [read(path, cutoff=query.cutoff) for path in paths]
    return Parts(train=graphs[0], test=graphs[1])


SOURCE = Source(
    name="acac",
    title="acetylacetone",
    theory="PBE-D3/def2-SVP (ORCA)",
    units="eV, eV/Å",
    labels="energy, forces (the dihedral scan and the hydrogen transfer: energy)",
    periodic=False,
    licence="MIT",
    citation="I. Batatia et al., arXiv:2205.06643 (2022)",
    homepage="https://github.com/davkovacs/BOTNet-datasets",
    subset="temperature of the training set, or TRAINING/TEST",
    variants=tuple(
        Variant(name=name, structures=500)
        for train in ("300K", "600K")
        for name in (train, *(f"{train}/{test}" for test in _TESTS))
    ),
    default="300K",
    splits="official: 500 training structures from each temperature; tests MD_300K and MD_600K (650 each), dihedral (45), "
    "H_transfer (15). 300K alone means 300K/MD_300K.",
    notes="Energies of the isolated atoms are in isolated_atoms.xyz.",
    files=tuple(
        Remote(url=f"{_URL}/{name}", name=name, digest=f"sha256:{sha256}", size=size)
        for name, (sha256, size) in _FILES.items()
    ),
    read=_read,
)
