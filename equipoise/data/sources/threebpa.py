"""3BPA: a flexible drug-like molecule at 300, 600 and 1200 K, for extrapolation in temperature."""

from equipoise.data.download import Remote
from equipoise.data.read import read
from equipoise.data.sources.record import Parts, Query, Source, Variant

_URL = "https://raw.githubusercontent.com/davkovacs/BOTNet-datasets/29e6d467317e4b5967b7ea5cbee54de953fa0d45/dataset_3BPA"
_TESTS = ("300K", "600K", "1200K", "dih")


def _file(name: str, sha256: str | None = None, size: int | None = None) -> Remote:
    digest = None if sha256 is None else f"sha256:{sha256}"
    return Remote(url=f"{_URL}/{name}", name=name, digest=digest, size=size)


def _read(query: Query) -> Parts:
    train, _, test = query.variant.name.partition("/")
    names = [f"train_{train}.xyz", f"test_{test or '300K'}.xyz"]
    path = SOURCE.find(query, names[0])
    try:
        tested = SOURCE.find(query, names[1])
    except FileNotFoundError:
        tested = None
        if test:
            raise
    return Parts(
        train=read(path, cutoff=query.cutoff),
        test=None if tested in (None, path) else read(tested, cutoff=query.cutoff),
    )


SOURCE = Source(
    name="3bpa",
    title="3BPA",
    theory="wB97X/6-31G(d) (ORCA)",
    units="eV, eV/Å",
    labels="energy, forces",
    periodic=False,
    licence="MIT",
    citation="D. P. Kovács et al., J. Chem. Theory Comput. 17, 7696 (2021)",
    homepage="https://github.com/davkovacs/BOTNet-datasets",
    subset="temperature of the training set, or TRAINING/TEST",
    variants=tuple(
        Variant(name=name, structures=500)
        for train in ("300K", "mixedT")
        for name in (train, *(f"{train}/{test}" for test in _TESTS))
    ),
    default="300K",
    splits="official: 500 training structures from 300 K, or from 300, 600 and 1200 K (mixedT); test sets at 300, 600 and 1200 K "
    "and a dihedral scan (dih). 300K alone means 300K/300K.",
    notes="Energies of the isolated atoms are in iso_atoms.xyz. Without a test file, test structures are taken from the training "
    "set.",
    files=(
        _file(
            "train_300K.xyz",
            "d109971fab90e2231ad931a83eb704c8d940f5c7d7a8de27fe3b84ea18634c0a",
            1_504_880,
        ),
        _file(
            "train_mixedT.xyz",
            "bc108532964b2ed259eaaabf82e5dfaffa5bda9ac384fc2afabcce192a49250b",
            1_504_818,
        ),
        _file(
            "iso_atoms.xyz", "e12a2465a2612bf38fd5dabdf64d4b57fc58ce9610a858c54ea1142d517c053f", 504
        ),
        *(_file(f"test_{test}.xyz") for test in _TESTS),
    ),
    read=_read,
)
