"""What a file says beside the labels that are read from it, and its reader should know.

A label of another method, under an unexpected name, or of another convention is no error. It is a training set with fewer labels
than its owner believes, or with others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import ase
import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from equipoise.graph.ase import KINDS, calculator_results, label_names

LOOKED_AT = 200  # structures of a file that is not read as a whole
FREE = 1e-3  # eV, between energy and free energy


@dataclass(frozen=True)
class Said:
    """What one structure says under which name.

    Attributes:
      values: of the structure.
      vectors: names of what there is with three components for each atom.
    """

    values: Mapping[str, Any]
    vectors: frozenset[str]

    @classmethod
    def of(cls, number: int, values: Mapping[str, Any]) -> "Said":
        """Of everything that is said of a structure of ``number`` atoms."""
        # The stress of three atoms has the shape of their forces.
        vectors = {
            k for k, v in values.items() if np.shape(v) == (number, 3) and not _stress_like(k)
        }
        return cls({k: v for k, v in values.items() if k not in vectors}, frozenset(vectors))

    @classmethod
    def by_atoms(cls, atoms: ase.Atoms) -> "Said":
        every = {**atoms.info, **atoms.arrays, **calculator_results(atoms)}
        return cls.of(len(atoms), {str(name): value for name, value in every.items()})

    @classmethod
    def by_comment(cls, line: str) -> "Said":
        """The comment line of a frame of extxyz."""
        values = key_val_str_to_dict(line)
        columns = str(values.pop("Properties", "")).split(":")
        widths = dict(zip(columns[::3], columns[2::3], strict=False))
        return cls(values, frozenset(name for name, width in widths.items() if width == "3"))

    def has(self, kind: str, name: str) -> bool:
        return name in self.vectors if kind == "forces" else self.values.get(name) is not None


def spread(number: int) -> list[int]:
    """Those of ``number`` structures that are looked at, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, LOOKED_AT)).astype(int)).tolist()


def _stress_like(name: str) -> bool:
    return "stress" in name.lower() or "virial" in name.lower()


def remarks(
    said: Sequence[Said], keys: dict[str, str | None], *, references: bool, where: str
) -> list[str]:
    """One sentence for each thing that is there and not read, where one may expect that it is.

    Args:
      said: by the structures, or by some of them.
      keys: kind of label -> the name that somebody gave.
      references: whether there are REF_ labels, so that plain ones are not read.
      where: what to call the file.
    """
    names = label_names(keys, references)
    found = [*_forces(said, names), *_stress(said, names), *_free_energy(said, names, keys)]
    if references:
        found += _plain(said, names, keys)
    return [f"{where} {text}" for text in found]


def _plain(
    said: Sequence[Said], names: dict[str, str | None], keys: dict[str, str | None]
) -> Iterator[str]:
    passed = {
        kind: sum(each.has(kind, kind) and not each.has(kind, str(names[kind])) for each in said)
        for kind in KINDS
        if keys.get(kind) is None and names[kind] is not None
    }
    if any(passed.values()):
        counts = ", ".join(
            f"{kind} but no REF_{kind} in {number}" for kind, number in passed.items() if number
        )
        keys_to_give = " and ".join(f"{kind}_key {kind}" for kind in KINDS if passed.get(kind))
        yield (
            f"has {counts} of the {len(said)} structures looked at. In a file with REF_ labels plain ones are those of another "
            f"method, and are not read; if they are meant, give {keys_to_give}"
        )


def _forces(said: Sequence[Said], names: dict[str, str | None]) -> Iterator[str]:
    there = {name for each in said for name in each.vectors if "force" in name.lower()}
    there -= {"forces"} if names["forces"] == "REF_forces" else set()  # see _plain
    if there and names["forces"] not in there:
        yield (
            f"has energies but no forces under a known name; is it one of {', '.join(sorted(there))}? Give forces_key to read it"
        )


def _stress(said: Sequence[Said], names: dict[str, str | None]) -> Iterator[str]:
    there = {
        name
        for each in said
        for name, value in each.values.items()
        if _stress_like(name) and np.size(value) in (6, 9)
    }
    if names["stress"] in there:
        return
    there -= {"stress"} if names["stress"] == "REF_stress" else set()
    virials = {name for name in there if "virial" in name.lower()}
    if virials:
        yield (
            f"has {', '.join(sorted(virials))} but no stress that is read. Virials are not, since their sign differs from code to "
            f"code; where W is in eV with ASE's sign reversed, write stress = -W / volume into the file to train on it"
        )
    elif there:
        yield (
            f"has {', '.join(sorted(there))}, which is not read: energy or forces have other names, and a stress of the same "
            f"method is wanted. If it is, give stress_key"
            if names["stress"] is None
            else f"has no stress under a known name; is it one of {', '.join(sorted(there))}? Give stress_key to read it"
        )


def _free_energy(
    said: Sequence[Said], names: dict[str, str | None], keys: dict[str, str | None]
) -> Iterator[str]:
    if names["energy"] != "energy" or keys.get("energy"):
        return
    pairs = [(each.values.get("energy"), each.values.get("free_energy")) for each in said]
    # What is no number is refused by whoever reads it.
    numbers = [pair for pair in pairs if all(isinstance(each, Real) for each in pair)]
    differences = [abs(free - energy) for energy, free in numbers]
    if max(differences, default=0.0) > FREE:
        yield (
            f"has a free_energy that differs from energy, by up to {1000 * max(differences):.3g} meV: electronic smearing. energy "
            f"is read; forces are the gradient of free_energy, so give energy_key free_energy to learn what they belong to"
        )
