"""QM9: 130,831 organic molecules of up to nine C, N, O and F atoms at their minima, with fifteen properties."""

import csv
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from equipoise.data.download import Remote
from equipoise.data.sources.arrays import ArrayStructures
from equipoise.data.sources.npz import npz_names, read_npz
from equipoise.data.sources.record import Parts, Query, Source, Variant
from equipoise.data.units import energy_unit

HARTREE = energy_unit("Hartree")

# Target -> (column of the raw files, name in qm9pack, factor to what is read, its unit). The order is that of the raw files.
PROPERTIES = {
    "A": (0, "RotA_GHz", 1.0, "GHz"),
    "B": (1, "RotB_GHz", 1.0, "GHz"),
    "C": (2, "RotC_GHz", 1.0, "GHz"),
    "mu": (3, "Dipole_debye", 1.0, "D"),
    "alpha": (4, "Polarizability_bohr3", 1.0, "bohr³"),
    "homo": (5, "HOMO_au", HARTREE, "eV"),
    "lumo": (6, "LUMO_au", HARTREE, "eV"),
    "gap": (7, "HOMO_LUMO_gap_au", HARTREE, "eV"),
    "r2": (8, "R2_bohr2", 1.0, "bohr²"),
    "zpve": (9, "ZPVE_au", HARTREE, "eV"),
    "U0": (10, "InternalEnergy_0K_au", HARTREE, "eV"),
    "U": (11, "InternalEnergy_298K_au", HARTREE, "eV"),
    "H": (12, "Enthalphy_298K_au", HARTREE, "eV"),  # spelled so there
    "G": (13, "GibbsFreeEnergy_298K_au", HARTREE, "eV"),
    "Cv": (14, "Heatcapacity_Cv_cal_mol_K", 1.0, "cal/mol/K"),
}
MEANING = {
    "U0": "internal energy at 0 K, eV: the one a force field learns",
    "U": "internal energy at 298.15 K, eV",
    "H": "enthalpy at 298.15 K, eV",
    "G": "free energy at 298.15 K, eV",
    "zpve": "zero-point vibrational energy, eV",
    "homo": "energy of the highest occupied orbital, eV",
    "lumo": "energy of the lowest unoccupied orbital, eV",
    "gap": "their difference, eV",
    "mu": "dipole moment, D",
    "alpha": "isotropic polarisability, bohr³",
    "r2": "electronic spatial extent, bohr²",
    "Cv": "heat capacity at 298.15 K, cal/mol/K",
    "A": "rotational constant, GHz",
    "B": "rotational constant, GHz",
    "C": "rotational constant, GHz",
}

_TAR = "dsgdb9nsd.xyz.tar.bz2"
_EXCLUDED = "uncharacterized.txt"
_READY = "qm9_arrays.npz"
_HEADER = 9
_ALL, _SOUND = 133_885, 130_831  # molecules in the archive, and without those on the list
_FLAT = ("index", "offsets", "Z", "R")


def read_qm9(path: Path, *, cutoff: float, target: str = "U0") -> ArrayStructures:
    """All molecules that are not on the list of uncharacterised ones, with one property as their energy label.

    Three layouts are understood: the archive of figshare, ``dsgdb9nsd.xyz.tar.bz2`` with ``uncharacterized.txt`` beside it; the
    tables of the package qm9pack, ``qm9_part1.csv`` and so on, which leave these molecules out; and flat arrays in one ``.npz``.
    The first two take a minute to read, so their arrays are kept beside them as ``qm9_arrays.npz``.

    When this is the wrong tool: a potential gives a sum over atoms. Of the properties, energies, ``alpha``, ``r2``, ``zpve`` and
    ``Cv`` grow with the molecule; orbital energies, ``mu`` and the rotational constants do not, and will be learned badly.

    Args:
      path: the folder, or one file of it.
      cutoff: Å, of the graphs.
      target: one of ``PROPERTIES``.

    Raises:
      FileNotFoundError: nothing of the kind is there.
      ValueError: an unknown target; damaged files; the list of uncharacterised molecules is missing.
    """
    if target not in PROPERTIES:
        raise ValueError(f"QM9 has the targets {', '.join(MEANING)}, received {target!r}")
    _, column, factor, _ = PROPERTIES[target]
    arrays = read_npz(_arrays_in(path), (*_FLAT, column))
    return ArrayStructures(
        origin=f"{path} ({target})",
        cutoff=cutoff,
        positions=arrays["R"],
        species=arrays["Z"],
        offsets=arrays["offsets"],
        energy=arrays[column].astype(np.float64) * factor,
        names={"energy": target},
    )


def _arrays_in(path: Path) -> Path:
    if path.is_file() and path.suffix == ".npz":
        return path
    folder = path if path.is_dir() else path.parent
    ready = folder / _READY
    if ready.is_file():
        return ready
    if (folder / _TAR).is_file():
        _write(ready, _from_tar(folder / _TAR, _excluded(folder / _EXCLUDED)))
        return ready
    tables = sorted(folder.glob("qm9_part*.csv"))
    if tables:
        _write(ready, _from_tables(tables))
        return ready
    flat = [each for each in sorted(folder.glob("*.npz")) if {*_FLAT} <= {*npz_names(each)}]
    if len(flat) == 1:
        return flat[0]
    raise FileNotFoundError(
        f"there is no {_TAR}, no qm9_part*.csv and no single .npz with {', '.join(_FLAT)} in {folder}. `equipoise data download "
        f"qm9` fetches the first"
    )


_Molecule = tuple[int, list[int], list[list[float]], list[float]]  # index, Z, R, properties


def _from_tar(path: Path, excluded: set[int]) -> Iterator[_Molecule]:
    there = sound = 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isreg() or not member.name.endswith(".xyz"):
                    continue
                text = archive.extractfile(member).read().decode("ascii")
                molecule = _parse(text, f"{path}: {member.name}")
                there += 1
                if molecule[0] not in excluded:
                    sound += 1
                    yield molecule
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if there == _ALL and sound != _SOUND:
        raise ValueError(
            f"{_SOUND:,} molecules of QM9 must be left without those of {_EXCLUDED}, received {sound:,}; fetch that file again"
        )


def _parse(text: str, where: str) -> _Molecule:
    """One raw file: number of atoms; "gdb", index and the properties; a line per atom; frequencies, SMILES and InChI."""
    try:
        lines = text.splitlines()
        words = lines[1].split()
        index = int(words[1])
        atoms = [line.split() for line in lines[2 : 2 + int(lines[0])]]
        # "1.2*^-5" is how the program that wrote these files writes 1.2e-5.
        positions = [[float(word.replace("*^", "e")) for word in each[1:4]] for each in atoms]
        species = [atomic_numbers[each[0]] for each in atoms]
        properties = [float(word.replace("*^", "e")) for word in words[2:17]]
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{where} is no file of QM9: {error}") from error
    broken = any(len(row) != 3 for row in positions)
    if broken or len(atoms) != int(lines[0]) or len(properties) != len(PROPERTIES):
        raise ValueError(
            f"{where} must have {lines[0]} atoms with three coordinates and {len(PROPERTIES)} properties, received {len(atoms)} "
            f"and {len(properties)}"
        )
    return index, species, positions, properties


def _excluded(path: Path) -> set[int]:
    """Indices of the molecules whose geometry did not survive a check of its consistency."""
    if not path.is_file():
        raise ValueError(
            f"there is no {path}: 3,054 molecules of QM9 are not what they should be, and that file says which; `equipoise data "
            f"download qm9` fetches it"
        )
    # Nine lines of text; then a table, whose rows begin with the number of the molecule; then text again.
    rows = path.read_text(encoding="utf-8").splitlines()[_HEADER:]
    numbers = [row.split()[0] for row in rows if row.split()]
    return {int(number) for number in itertools.takewhile(str.isdigit, numbers)}


def _from_tables(paths: list[Path]) -> Iterator[_Molecule]:
    csv.field_size_limit(1 << 20)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    symbols = json.loads(row["Elements"].replace("'", '"'))
                    yield (
                        int(row["Index"]),
                        [atomic_numbers[symbol] for symbol in symbols],
                        _triples(row["XYZ_Ang"], len(symbols)),
                        [float(row[column]) for _, column, _, _ in PROPERTIES.values()],
                    )
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{path}, line {number}, is no row of QM9: {error}") from error


def _triples(text: str, count: int) -> list[list[float]]:
    """ "[[0.1,0.,2.3],...]": no JSON, because "0." is no number there."""
    numbers = [float(word) for word in text.replace("[", "").replace("]", "").split(",")]
    return np.reshape(numbers, (count, 3)).tolist()


def _write(path: Path, molecules: Iterator[_Molecule]) -> None:
    index, species, positions, properties, offsets = [], [], [], [], [0]
    for number, z, r, values in molecules:
        index.append(number)
        species += z
        positions += r
        properties.append(values)
        offsets.append(len(species))
    if not index:
        raise ValueError(f"there is no molecule in the files of {path.parent}")
    columns = np.array(properties).T
    partial = path.with_suffix(f".{os.getpid()}.part.npz")
    try:
        np.savez_compressed(
            partial,
            index=np.array(index),
            offsets=np.array(offsets),
            Z=np.array(species, dtype=np.uint8),
            R=np.array(positions),
            **{name: columns[i] for i, name, _, _ in PROPERTIES.values()},
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(query: Query) -> Parts:
    folder = query.folder or SOURCE.folder()
    return Parts(train=read_qm9(folder, cutoff=query.cutoff, target=query.target))


SOURCE = Source(
    name="qm9",
    title="QM9",
    theory="B3LYP/6-31G(2df,p)",
    units="Hartree for energies; others by property",
    labels="energy (one of 15 properties)",
    periodic=False,
    licence="unknown here; on figshare, believed to be CC0",
    citation="R. Ramakrishnan et al., Sci. Data 1, 140022 (2014); L. Ruddigkeit et al., J. Chem. Inf. Model. 52, 2864 (2012)",
    homepage="https://doi.org/10.6084/m9.figshare.c.978904",
    subset="all of it",
    variants=(Variant(name="all", structures=130_831, training=120_000, validation=10_000),),
    default="all",
    splits="none official; 110,000 random molecules to train, 10,000 to choose the best weights and 10,831 to test are usual",
    notes="Without the 3,054 molecules that failed a check of their consistency. No forces: the molecules are at their minima.",
    files=(
        Remote(
            url="https://ndownloader.figshare.com/files/3195389",
            name=_TAR,
            digest="sha256:3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
            size=86_144_227,
        ),
        Remote(
            url="https://ndownloader.figshare.com/files/3195404",
            name=_EXCLUDED,
            digest="sha256:3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
            size=486_752,
        ),
    ),
    targets=MEANING,
    read=_read,
)
