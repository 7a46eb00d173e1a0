"""MD17: molecular dynamics of ten small molecules at 500 K, PBE+vdW-TS energies and forces, as sGDML writes them."""

from equipoise.data.download import Remote
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.sources.trajectory import read_trajectory

# molecule -> (file, frames)
_FILES = {
    "aspirin": ("md17_aspirin.npz", 211_762),
    "azobenzene": ("azobenzene_dft.npz", 99_999),
    "benzene": ("md17_benzene2017.npz", 627_983),
    "ethanol": ("md17_ethanol.npz", 555_092),
    "malonaldehyde": ("md17_malonaldehyde.npz", 993_237),
    "naphthalene": ("md17_naphthalene.npz", 326_250),
    "paracetamol": ("paracetamol_dft.npz", 106_490),
    "salicylic": ("md17_salicylic.npz", 320_231),
    "toluene": ("md17_toluene.npz", 442_790),
    "uracil": ("md17_uracil.npz", 133_770),
}


def _read(query: Query) -> Parts:
    name = query.variant.name
    path = SOURCE.find(
        query, _FILES[name][0], f"md17_{name}.npz", f"{name}.npz", f"{name}_dft.npz", f"md17_{name}_*.npz"
    )  # fmt: skip
    return Parts(train=read_trajectory(path, cutoff=query.cutoff, unit="kcal/mol"))


SOURCE = Source(
    name="md17",
    title="MD17",
    theory="PBE+vdW-TS (FHI-aims)",
    units="kcal/mol, kcal/mol/Å",
    labels="energy, forces",
    periodic=False,
    licence="unknown; free for research at sgdml.org",
    citation="S. Chmiela et al., Sci. Adv. 3, e1603015 (2017); K. T. Schütt et al., Nat. Commun. 8, 13890 (2017)",
    homepage="http://www.sgdml.org/#datasets",
    subset="a molecule",
    variants=tuple(
        Variant(
            name=name,
            structures=frames,
            training=1000,
            files=(
                Remote(
                    url=f"https://sgdml.org/secure_proxy.php?file=data/npz/{file}",
                    name=file,
                    mirrors=(f"http://www.quantum-machine.org/gdml/data/npz/{file}",),
                ),
            ),
        )
        for name, (file, frames) in _FILES.items()
    ),
    splits="none official; 1000 random frames, 50 of them to choose the best weights, and the rest to test is usual",
    notes="Frames are 0.5 fs apart: random splits test interpolation only. The labels are noisy (net forces up to 0.3 kcal/mol/Å "
    "in ethanol): rmd17 has the same geometries, recomputed. For the frames of an official rMD17 split with these labels, "
    "read rmd17 with target original; in Python, rmd17(...).train_frames are the numbers of its frames here.",
    read=_read,
)
