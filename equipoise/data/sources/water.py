"""Liquid water and ice: 64 molecules in a periodic box, from the example of DeePMD-kit."""

from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from equipoise.data.download import Remote
from equipoise.data.sources.arrays import ArrayStructures
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.sources.trajectory import read_trajectory

_URL = "https://raw.githubusercontent.com/deepmodeling/deepmd-kit/bc902daf747d93c5d7314338d287fd2dd0a7e32c/examples/water/data"
_BOX = "88376dc931e272a3569cabcab0f1ee4320168c73ee183ae60f7086b473fc719d"
# set -> sha256 of its coordinates, energies and forces
_SETS = {
    "data_0/set.000": (
        "58554d0ef240b54a242a8163e112d673872f5be5198c86c4eb8d5f39602ff645",
        "920c4628018c12a4d38c22aef7f41ca483a02747319a42dd4e4f703e2a9f70c8",
        "fae9be94125902c089720416a4cea521380a415709ead1f9134b7f64f46f1e58",
    ),
    "data_1/set.000": (
        "b9cf07c179a0f975a3b8607f439602e9a78b9bec3b02aa8afe812d716563f380",
        "d3b407e3b67f953fe496a62e1f7dc84d07a8bfcfb748bfaafbca435809012b93",
        "7a3099c380a57379574e5b854f43589e736b785d6f747c68d093a45b3f85b542",
    ),
    "data_1/set.001": (
        "f4581f0f4aedb910b8580157a9dca622c5cd3b71428f5924bdeed0192ab50dd2",
        "d4634357a81940e5aca110cd5285b3b72503f4ae13bbfffbe5791c145748a4bf",
        "19313e524e1900eaf721ec7be9f2a48b854301aefc884f6ca4815824aa4b6a77",
    ),
    "data_2/set.000": (
        "c9fd13c05992f98efe1d78ae0b70f0565820aceeaf0d25f17b02a0f29a0b84c8",
        "a38b8cd8e897ded6ac3a6d88559358c634575bede2ae930bc2557b1047059b49",
        "fda708ae95c73edca449709c2adfdf494acc6379323d92f865b1698c3830634f",
    ),
    "data_3/set.000": (
        "f9169bb378e0a4641c65171ccedd47d7b3ac115bc8e1ac8c72be1ce81959e793",
        "8e7289bd03566f737f998e26fcdc3e838482e7bb80356939567b3a920d23f1c8",
        "7abe876297cd5c989289760435c2258c3ad7be94bb6ed40640efbefb55b76a68",
    ),
}


def read_deepmd(folder: Path, *, cutoff: float) -> ArrayStructures:
    """The frames of a folder of DeePMD-kit: ``type.raw``, ``type_map.raw`` and ``set.*/{coord,box,energy,force}.npy``.

    Several such folders in one, with the same atoms, are read one after the other. Energies are in eV, forces in eV/Å.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the arrays do not fit each other, or are pickled objects; the folders hold different atoms.
    """
    sets = sorted({*folder.glob("set.*/coord.npy"), *folder.glob("*/set.*/coord.npy")})
    if not sets:
        raise FileNotFoundError(f"there is no set.*/coord.npy in {folder}")
    species = {tuple(_species(path.parent.parent)) for path in sets}
    if len(species) > 1:
        raise ValueError(f"the folders in {folder} must hold the same atoms; read them one by one")
    arrays = {
        name: np.concatenate([_load(path.with_name(f"{name}.npy")) for path in sets])
        for name in ("coord", "box", "energy", "force")
    }
    atoms = len(next(iter(species)))
    for name, size in (("coord", 3 * atoms), ("force", 3 * atoms), ("box", 9)):
        if arrays[name].ndim != 2 or arrays[name].shape[1] != size:
            raise ValueError(
                f"{name}.npy in {folder} must have {size} numbers per frame, received {arrays[name].shape}"
            )
    return ArrayStructures(
        origin=str(folder),
        cutoff=cutoff,
        positions=arrays["coord"].reshape(-1, atoms, 3),
        species=np.array(next(iter(species))),
        energy=arrays["energy"],
        forces=arrays["force"].reshape(-1, atoms, 3),
        cell=arrays["box"].reshape(-1, 3, 3),
        pbc=True,
        names={"energy": "energy", "forces": "force"},
    )


def _species(folder: Path) -> list[int]:
    try:
        symbols = (folder / "type_map.raw").read_text(encoding="utf-8").split()
        types = (folder / "type.raw").read_text(encoding="utf-8").split()
        return [atomic_numbers[symbols[int(kind)]] for kind in types]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"type.raw and type_map.raw of {folder} must name elements: {error}"
        ) from error


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged, or holds pickled objects: {error}") from error


def _read(query: Query) -> Parts:
    base = query.folder or SOURCE.folder()
    if base.is_dir() and any(base.glob("*/set.*/coord.npy")):
        return Parts(train=read_deepmd(base, cutoff=query.cutoff))
    path = SOURCE.find(query, "deepmd_water192.npz", "data_0/set.000/coord.npy")
    return Parts(train=read_trajectory(path, cutoff=query.cutoff, unit="eV"))


def _files() -> tuple[Remote, ...]:
    files = []
    for name, digests in _SETS.items():
        digest_of = dict(zip(("coord", "energy", "force"), digests, strict=True)) | {"box": _BOX}
        sizes = {"coord": 184_448, "force": 184_448, "energy": 448, "box": 3_008}
        files += [(f"{name}/{key}.npy", digest_of[key], sizes[key]) for key in sizes]
    kinds = {
        "type.raw": ("c0287bfae960bdddafa96841b59c29ac9b7548ddac0b5bebd30fb502563d0507", 384),
        "type_map.raw": ("2af2202bdb95741681b308b05c1dae7837141fe32b10d14db2a4c0ea9103e55b", 4),
    }
    folders = dict.fromkeys(name.split("/")[0] for name in _SETS)
    files += [(f"{folder}/{name}", *known) for folder in folders for name, known in kinds.items()]
    return tuple(
        Remote(url=f"{_URL}/{name}", name=name, digest=f"sha256:{sha256}", size=size)
        for name, sha256, size in files
    )


SOURCE = Source(
    name="water",
    title="liquid water and ice (DeePMD-kit example)",
    theory="PBE0+TS (as in the papers of DeePMD; the files do not say)",
    units="eV, eV/Å",
    labels="energy, forces",
    periodic=True,
    licence="unknown; the host repository is LGPL-3.0",
    citation="L. Zhang et al., Phys. Rev. Lett. 120, 143001 (2018)",
    homepage="https://github.com/deepmodeling/deepmd-kit",
    subset="all of it",
    variants=(Variant(name="all", structures=400, training=320),),
    default="all",
    splits="none official: random",
    notes="Numbers are float32: energies come in steps of 0.002 eV. Net forces reach 0.35 eV/Å.",
    files=_files(),
    read=_read,
)
