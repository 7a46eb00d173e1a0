"""OC20 S2EF: adsorbates on catalyst surfaces, energies and forces along their relaxations.

The training and validation sets are published as text, which is what is read here. The LMDB files that other programs make of them
hold pickled Python objects; these are never loaded.
"""

import sys
from pathlib import Path

import numpy as np

from equipoise.data.download import Remote
from equipoise.data.sources.extxyz_frames import ExtxyzFrames, read_text
from equipoise.data.sources.record import Parts, Query, Source, Variant

_URL = "https://dl.fbaipublicfiles.com/opencatalystproject/data"

# subset -> (stem of its files, frames, md5 of the archive, size of archive and contents for people)
_SETS = {
    "200K": ("s2ef_train_200K", 200_000, "f8d0909c2623a393148435dede7d3a46", "344 MB, 1.7 GB unpacked"),
    "2M": ("s2ef_train_2M", 2_000_000, "953474cb93f0b08cdc523399f03f7c36", "3.4 GB, 17 GB unpacked"),
    "20M": ("s2ef_train_20M", 20_000_000, "863bc983245ffc0285305a1850e19cf7", "34 GB, 165 GB unpacked"),
    "all": ("s2ef_train_all", 133_934_018, "12a7087bfd189a06ccbec9bc7add2bcd", "225 GB, 1.1 TB unpacked"),
    "val_id": ("s2ef_val_id", 999_866, "f57f7f5c1302637940f2cc858e789410", "1.7 GB, 8.3 GB unpacked"),
    "val_ood_ads": ("s2ef_val_ood_ads", 999_838, "431ab0d7557a4639605ba8b67793f053", "1.7 GB, 8.2 GB unpacked"),
    "val_ood_cat": ("s2ef_val_ood_cat", 999_809, "532d6cd1fe541a0ddb0aa0f99962b7db", "1.7 GB, 8.3 GB unpacked"),
    "val_ood_both": ("s2ef_val_ood_both", 999_944, "5731862978d80502bbf7017d68c2c729", "1.9 GB, 9.5 GB unpacked"),
    "md": ("s2ef_md", None, "9fed845aaab8fb4bf85e3a8db57796e0", "42 GB, 306 GB unpacked"),
    "rattled": ("s2ef_rattled", None, "40431149b27b64ce1fb40cac4e2e064b", "29 GB, 136 GB unpacked"),
}  # fmt: skip
# Frames to choose the best weights with: enough for whole relaxations, and no more than an evaluation takes in its stride.
_VALIDATION, _VALIDATION_200K = 10_000, 2_000
TARGETS = {
    "adsorption": "energy less that of the bare surface and the adsorbate in the gas: the one that benchmarks use",
    "total": "energy as VASP gives it",
}


def read_s2ef(
    folder: Path, *, cutoff: float, target: str = "adsorption"
) -> tuple[ExtxyzFrames, list[str]]:
    """The frames of a folder of ``N.extxyz`` and ``N.txt`` files, each plain or with ``.xz`` behind it.

    Args:
      folder: holds the files; each line of a .txt is "system,frame,reference energy" for one frame of its .extxyz.
      cutoff: Å, of the graphs.
      target: one of ``TARGETS``.

    Returns:
      the frames, with the forces on atoms that were held as missing labels; and for each the system it belongs to.

    Raises:
      ValueError: there are no such pairs of files, or one is damaged; ``folder`` holds pickled LMDB files instead.
    """
    if target not in TARGETS:
        raise ValueError(f"OC20 has the targets {' and '.join(TARGETS)}, received {target!r}")
    paths = sorted({*folder.glob("*.extxyz"), *folder.glob("*.extxyz.xz")}, key=_number)
    # Unpacked by hand, both may be there.
    paths = [
        path
        for path in paths
        if path.suffix == ".xz" or not path.with_name(path.name + ".xz").exists()
    ]
    if not paths:
        refuse_pickled_lmdb(folder)
        raise ValueError(f"there are no .extxyz or .extxyz.xz files in {folder}")
    counts, systems, references = [], [], []
    for path in paths:
        stem = path.name.removesuffix(".xz").removesuffix(".extxyz")
        beside = [path.with_name(f"{stem}.txt"), path.with_name(f"{stem}.txt.xz")]
        table = next((each for each in beside if each.is_file()), None)
        if table is None:
            raise ValueError(f"{path} needs {beside[0].name} or {beside[1].name} beside it")
        lines = read_text(table).decode("utf-8").split()
        try:
            rows = [line.split(",") for line in lines]
            systems += [
                sys.intern(row[0]) for row in rows
            ]  # one word for all frames of a relaxation
            references.append(np.array([float(row[2]) for row in rows]))
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{table} must hold lines of system,frame,reference energy: {error}"
            ) from error
        counts.append(len(lines))
    frames = ExtxyzFrames(
        paths,
        counts,
        cutoff=cutoff,
        offsets=np.concatenate(references) if target == "adsorption" else None,
        free_atoms_only=True,
    )
    return frames, systems


def refuse_pickled_lmdb(folder: Path) -> None:
    """Say what to do where somebody has the LMDB files.

    Raises:
      ValueError: the folder holds ``.lmdb`` files.
    """
    found = sorted(folder.glob("*.lmdb"))
    if found:
        raise ValueError(
            f"{found[0]} holds pickled Python objects, which can run any code when they are loaded, and is refused. Take the same "
            f"data as text (`equipoise data info oc20-s2ef`, `oc20-is2re`); or as an ASE database (.aselmdb), which `equipoise "
            f"data convert` reads; or write it as extxyz with the library that made it"
        )


def shard_folder(base: Path, stem: str) -> Path | None:
    """The folder that has the files of one set, as archives unpack it or given directly."""
    for folder in (base / stem / stem, base / stem, base):
        if any(folder.glob("*.extxyz*")) or any(folder.glob("*.lmdb")):
            return folder
    return None


def _number(path: Path) -> tuple[int, str]:
    stem = path.name.split(".")[0]
    return (int(stem), path.name) if stem.isdigit() else (-1, path.name)


def _read(query: Query) -> Parts:
    base, stem = query.folder or SOURCE.folder(), _SETS[query.variant.name][0]
    folder = shard_folder(base, stem)
    if folder is None:
        SOURCE.find(query, f"{stem}/*.extxyz*")  # raises
    train, systems = read_s2ef(folder, cutoff=query.cutoff, target=query.target)
    test = shard_folder(base / "s2ef_val_id", "s2ef_val_id")
    if test is None or query.variant.name.startswith("val"):
        return Parts(train=train, groups=systems)
    frames, _ = read_s2ef(test, cutoff=query.cutoff, target=query.target)
    return Parts(train=train, test=frames, groups=systems)


SOURCE = Source(
    name="oc20-s2ef",
    title="OC20 S2EF",
    theory="RPBE (VASP)",
    units="eV, eV/Å",
    labels="energy, forces on free atoms",
    periodic=True,
    licence="CC-BY-4.0",
    citation="L. Chanussot et al., ACS Catal. 11, 6059 (2021), arXiv:2010.09990",
    homepage="https://fair-chem.github.io/oc20",
    subset="a size of the training set, or a validation set",
    variants=tuple(
        Variant(
            name=name,
            structures=frames,
            validation=_VALIDATION_200K if name == "200K" else _VALIDATION,
            files=(
                Remote(
                    url=f"{_URL}/{stem}.tar", name=f"{stem}.tar", digest=f"md5:{md5}", unpack=True
                ),
            ),
            note=size,
        )
        for name, (stem, frames, md5, size) in _SETS.items()
    ),
    splits="each size contains the smaller ones. val_id tests, if it is downloaded as well; otherwise whole relaxations are left "
    "out of the training set. The official test set has no labels.",
    notes="Atoms below the surface were held: forces on them are missing labels, as in the official metrics. Frames are text: "
    "convert each part once (`equipoise data convert oc20-s2ef:200K --part train --to oc20-200k-train`, and so for validation and "
    "test) and train on the results. Archives are unpacked to .xz files, which are read as they are.",
    targets=TARGETS,
    read=_read,
)
