"""OC20 IS2RE: from the initial structure of an adsorbate on a surface to the energy of the relaxed one.

Read from the relaxations, which are published as text; the LMDB files of the task hold pickled Python objects and are never loaded.
"""

from dataclasses import replace
from pathlib import Path

from equipoise.data.download import Remote
from equipoise.data.sources.extxyz_frames import ExtxyzFrames
from equipoise.data.sources.oc20_s2ef import TARGETS, refuse_pickled_lmdb
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.structures import Structure, Structures
from equipoise.graph import NeighbourList

_URL = "https://dl.fbaipublicfiles.com/opencatalystproject/data"

# subset -> (path of the archive, structures, md5, sizes for people)
_SETS = {
    "train": ("is2res_train_trajectories", 460_328, "9e3ed4d1e497bfdce4472ee70455edef", "109 GB, 841 GB unpacked"),
    "val_id": ("is2res_val_id_trajectories", 24_943, "fcb71363018fb1e7127db2500e39e11a", "5.9 GB, 46 GB unpacked"),
    "val_ood_ads": ("is2res_val_ood_ads_trajectories", 24_961, "5ced8ea84584aa229d31e693e0fb090f", "5.7 GB, 44 GB unpacked"),
    "val_ood_cat": ("is2res_val_ood_cat_trajectories", 24_963, "88dcc02fd8c174a72d2c416878fc44ff", "6.0 GB, 46 GB unpacked"),
    "val_ood_both": ("is2res_val_ood_both_trajectories", 24_987, "bc74b6474a13542cc56eaa97bd51adfc", "4.4 GB, 35 GB unpacked"),
    "adsorbate-O": ("per_adsorbate_is2res/0", None, "d4151542856b4b6405f276808f75358a", "1.0 GB"),
    "adsorbate-H": ("per_adsorbate_is2res/1", None, "3697f04faf04251a23da8b88a78209f7", "0.9 GB"),
    "adsorbate-OH": ("per_adsorbate_is2res/2", None, "a21081f3f55eb0c98a91021bbe3dac44", "1.6 GB"),
    "adsorbate-C": ("per_adsorbate_is2res/4", None, "e4fe9890764fcf59e01e3ceab089b978", "1.1 GB"),
    "adsorbate-CH": ("per_adsorbate_is2res/6", None, "ec9aa2c4c4bd4419359438ba7fbb881d", "1.4 GB"),
    "adsorbate-N": ("per_adsorbate_is2res/77", None, "bfb6e03d4a687987ff68976f0793cc46", "1.1 GB"),
    "adsorbate-NH": ("per_adsorbate_is2res/74", None, "7979b9e7ab557d6979b33e352486f0ef", "1.4 GB"),
    "adsorbate-NO": ("per_adsorbate_is2res/76", None, "482ee306a5ae2eee78cac40d10059ebc", "1.4 GB"),
}  # fmt: skip


class Relaxations(Structures):
    """The first frame of each relaxation, labelled with the energy of its last one. No forces: those of the first belong to it.

    Args:
      table: ``system.txt``, lines of "system,reference energy".
      cutoff: Å, of the edges.
      target: "adsorption" (less the reference energy) or "total".

    Raises:
      FileNotFoundError: a relaxation of the table is not there.
      ValueError: the table cannot be read.
    """

    def __init__(self, table: Path, *, cutoff: float, target: str = "adsorption") -> None:
        if target not in TARGETS:
            raise ValueError(f"OC20 has the targets {' and '.join(TARGETS)}, received {target!r}")
        self.table, self.cutoff, self.target = table, NeighbourList(cutoff).cutoff, target
        try:
            rows = [line.split(",") for line in table.read_text(encoding="utf-8").split()]
            self.references = [float(row[1]) for row in rows]
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{table} must hold lines of system,reference energy: {error}"
            ) from error
        there = {path.name.split(".")[0]: path for path in sorted(table.parent.rglob("*.extxyz*"))}
        missing = [row[0] for row in rows if row[0] not in there]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(rows)} relaxations of {table} are not there, such as {missing[0]}.extxyz.xz; unpack "
                f"the archive again"
            )
        self.paths = [there[row[0]] for row in rows]

    def __len__(self) -> int:
        return len(self.paths)

    def __str__(self) -> str:
        return str(self.table.parent)

    def structure(self, index: int) -> Structure:
        path = self.paths[index]
        frames = ExtxyzFrames.of(path, cutoff=self.cutoff)
        last = frames.structure(len(frames) - 1)
        if last.energy is None:
            raise ValueError(f"the last frame of {path} has no energy")
        reference = self.references[index] if self.target == "adsorption" else 0.0
        return replace(
            frames.structure(0), energy=last.energy - reference, forces=None, stress=None
        )

    def labels(self) -> dict[str, str]:
        return {"energy": f"{self.target} energy of the relaxed structure"}


def _read(query: Query) -> Parts:
    base = query.folder or SOURCE.folder()
    stem = Path(_SETS[query.variant.name][0]).name
    for folder in (base / stem, base):
        refuse_pickled_lmdb(folder)
        if (folder / "system.txt").is_file():
            table = folder / "system.txt"
            return Parts(train=Relaxations(table, cutoff=query.cutoff, target=query.target))
    SOURCE.find(query, f"{stem}/system.txt")  # raises
    raise AssertionError


SOURCE = Source(
    name="oc20-is2re",
    title="OC20 IS2RE",
    theory="RPBE (VASP)",
    units="eV",
    labels="energy of the relaxed structure",
    periodic=True,
    licence="CC-BY-4.0",
    citation="L. Chanussot et al., ACS Catal. 11, 6059 (2021), arXiv:2010.09990",
    homepage="https://fair-chem.github.io/oc20",
    subset="a set of the task, or all relaxations of one adsorbate",
    variants=tuple(
        Variant(
            name=name,
            structures=number,
            files=(
                Remote(
                    url=f"{_URL}/{path}.tar",
                    name=f"{Path(path).name}.tar",
                    digest=f"md5:{md5}",
                    unpack=True,
                ),
            ),
            note=size,
        )
        for name, (path, number, md5, size) in _SETS.items()
    ),
    splits="official training and validation sets; the test set has no labels. The sets of one adsorbate mix training and "
    "validation structures and have no division.",
    notes="The graph is the initial structure, its energy that of the relaxed one: no force field learns that, an energy model "
    "does. Every structure is a file: convert them once (`equipoise data convert oc20-is2re:val_id --to is2re`).",
    targets=TARGETS,
    read=_read,
)
