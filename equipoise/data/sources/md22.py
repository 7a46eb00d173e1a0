"""MD22: molecular dynamics of seven large molecules and complexes, 42 to 370 atoms, PBE+MBD."""

from equipoise.data.download import Remote
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.sources.trajectory import read_trajectory

# system -> (name in the file name, published training structures, frames, atoms, kind)
_SYSTEMS = {
    "Ac-Ala3-NHMe": ("Ac-Ala3-NHMe", 6000, 85_109, 42, "tetrapeptide"),
    "DHA": ("DHA", 8000, 69_753, 56, "docosahexaenoic acid"),
    "stachyose": ("stachyose", 8000, 27_272, 87, "tetrasaccharide"),
    "AT-AT": ("AT-AT", 3000, 20_001, 60, "DNA base pairs"),
    "AT-AT-CG-CG": ("AT-AT-CG-CG", 2000, 10_153, 118, "DNA base pairs"),
    "buckyball-catcher": ("buckyball-catcher", 600, 6_102, 148, "host and guest"),
    "double-walled-nanotube": ("double-walled_nanotube", 800, 5_032, 370, "nanotubes"),
}


def _read(query: Query) -> Parts:
    stem = _SYSTEMS[query.variant.name][0]
    path = SOURCE.find(query, f"md22_{stem}.npz", f"{stem}.npz")
    return Parts(train=read_trajectory(path, cutoff=query.cutoff, unit="kcal/mol"))


SOURCE = Source(
    name="md22",
    title="MD22",
    theory="PBE+MBD (FHI-aims)",
    units="kcal/mol, kcal/mol/Å",
    labels="energy, forces",
    periodic=False,
    licence="unknown; free for research at sgdml.org",
    citation="S. Chmiela et al., Sci. Adv. 9, eadf0873 (2023)",
    homepage="http://www.sgdml.org/#datasets",
    subset="a molecule or complex",
    variants=tuple(
        Variant(
            name=name,
            structures=frames,
            training=training,
            files=(
                Remote(
                    url=f"https://sgdml.org/secure_proxy.php?file=repo/datasets/md22_{stem}.npz",
                    name=f"md22_{stem}.npz",
                    mirrors=(f"http://www.quantum-machine.org/gdml/repo/datasets/md22_{stem}.npz",),
                ),
            ),
            note=f"{kind}, {atoms} atoms",
        )
        for name, (stem, training, frames, atoms, kind) in _SYSTEMS.items()
    ),
    splits="published numbers of training structures (with those that choose the best weights), drawn at random; the rest tests",
    notes="Frames are those of a trajectory: random splits test interpolation only.",
    read=_read,
)
