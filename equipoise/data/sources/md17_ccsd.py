"""Coupled-cluster MD17: five molecules, CCSD or CCSD(T), with official training and test files."""

from equipoise.data.download import Remote
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.sources.trajectory import read_trajectory

# molecule -> (name of its files, level of theory, frames in all)
_FILES = {
    "aspirin": ("aspirin_ccsd", "CCSD/cc-pVDZ (Psi4)", 1500),
    "benzene": ("benzene_ccsd_t", "CCSD(T)/cc-pVDZ (Psi4)", 1500),
    "ethanol": ("ethanol_ccsd_t", "CCSD(T)/cc-pVTZ (Psi4)", 2000),
    "malonaldehyde": ("malonaldehyde_ccsd_t", "CCSD(T)/cc-pVDZ (Psi4)", 1500),
    "toluene": ("toluene_ccsd_t", "CCSD(T)/cc-pVDZ (Psi4)", 1501),
}


def _read(query: Query) -> Parts:
    stem = _FILES[query.variant.name][0]
    train = SOURCE.find(query, f"{stem}-train.npz")
    try:
        test = SOURCE.find(query, f"{stem}-test.npz")
    except FileNotFoundError:  # then some of the training structures have to do
        test = None
    read = {"cutoff": query.cutoff, "unit": "kcal/mol"}
    return Parts(
        train=read_trajectory(train, **read),
        test=None if test in (None, train) else read_trajectory(test, **read),
    )


SOURCE = Source(
    name="md17-ccsd",
    title="coupled-cluster MD17",
    theory="CCSD(T)/cc-pVDZ (Psi4)",
    units="kcal/mol, kcal/mol/Å; a file that says otherwise (e_unit) is believed",
    labels="energy, forces",
    periodic=False,
    licence="unknown; free for research at sgdml.org",
    citation="S. Chmiela, H. E. Sauceda, K.-R. Müller, A. Tkatchenko, Nat. Commun. 9, 3887 (2018)",
    homepage="http://www.sgdml.org/#datasets",
    subset="a molecule",
    variants=tuple(
        Variant(
            name=name,
            structures=frames,
            theory=theory,
            files=(
                Remote(
                    url=f"https://sgdml.org/secure_proxy.php?file=data/npz/{stem}.zip",
                    name=f"{stem}.zip",
                    unpack=True,
                    mirrors=(f"http://www.quantum-machine.org/gdml/data/npz/{stem}.zip",),
                ),
            ),
        )
        for name, (stem, theory, frames) in _FILES.items()
    ),
    splits="official: 1000 training structures, the others to test (500; ethanol 1000; toluene 501). Without the test file, test "
    "structures are taken from the training file.",
    notes="Geometries are from MD17. Molecules of different theory or basis set cannot be trained on together.",
    read=_read,
)
