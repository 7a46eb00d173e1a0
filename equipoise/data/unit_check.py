"""What the energies themselves say about the unit they are written in.

Wrong units do not crash: a network learns kcal/mol as readily as eV, and its forces are then 23 times too large. So a unit that a
file states, or leaves to be guessed, is held against the energies.
"""

from collections.abc import Iterable

import ase.units
import numpy as np

from equipoise.data.units import energy_unit

# Told apart by total energies; other units are too rare to be guessed at.
CANDIDATES = {"eV": 1.0, "kcal/mol": energy_unit("kcal/mol"), "Hartree": energy_unit("Hartree")}
# How far a total energy may be from the estimate, as a fraction: for heavier atoms, and more for the share of the lightest ones.
# Water is 0.4 % off, methane 1.8 %, H2 8.6 %. Narrow, because made-up energies are often of the size of some unit.
AGREEMENT, AGREEMENT_LIGHT = 0.03, 0.10
LIGHT = 4  # beryllium


def all_electron_energy(species: np.ndarray) -> float:
    r"""A rough total energy of atoms, in eV: E(Z) = -0.768745 Z^{7/3} + Z²/2 - 0.269900 Z^{5/3} Hartree, summed.

    Good to 1 % from B on and to 10 % for H. Bonds change it by less than 2 %. It knows nothing of pseudopotentials, which leave the
    core electrons out.

    Source: J. Schwinger, Phys. Rev. A 24, 2353 (1981), the statistical atom with its leading corrections.

    Args:
      species: [atoms] atomic numbers.
    """
    z = np.asarray(species, dtype=np.float64)
    atoms = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)
    return float(np.sum(atoms)) * ase.units.Hartree


def likely_units(pairs: Iterable[tuple[np.ndarray, float]]) -> set[str | None]:
    """The units in which total energies are written, as far as they are total energies of all electrons.

    These are known beforehand to a few per cent (:func:`all_electron_energy`), and the units in use lie a factor of 23 or more
    apart. Energies of pseudopotential codes, of semi-empirical methods, of formation or adsorption match no unit: then the answer
    holds None, which means nothing at all.

    Args:
      pairs: (atomic numbers, energy as written) of some structures.

    Returns:
      for all structures together, those of ``CANDIDATES`` that were found, and None if one of them matches none.
    """
    found: set[str | None] = set()
    for species, energy in pairs:
        estimate = all_electron_energy(species)
        light = all_electron_energy(species[species <= LIGHT]) / estimate
        allowed = AGREEMENT + light * (AGREEMENT_LIGHT - AGREEMENT)
        near = [
            unit for unit, ev in CANDIDATES.items() if abs(energy * ev / estimate - 1) < allowed
        ]
        found.add(near[0] if near else None)
    return found


def likely_unit(pairs: Iterable[tuple[np.ndarray, float]]) -> str | None:
    """The one unit of ``CANDIDATES`` that all structures agree on, else None; see :func:`likely_units`."""
    found = likely_units(pairs)
    return found.pop() if len(found) == 1 else None


def check_unit(stated: str, pairs: Iterable[tuple[np.ndarray, float]], *, where: str) -> None:
    """Refuse energies that cannot be in the unit that they are said to be in.

    Args:
      stated: the unit, by any of the names of :mod:`equipoise.data.units`.
      pairs: (atomic numbers, energy as written) of some structures.
      where: what to call the data in the message.

    Raises:
      ValueError: they are total energies in another unit, or some in one and some in another, by :func:`likely_units`.
    """
    found = likely_units(pairs)
    if len(found) > 1 and None not in found:
        raise ValueError(
            f"the energies of {where} must all be in one unit, but they are what these molecules have in "
            f"{' and in '.join(sorted(found))}; convert energies and forces of some of them"
        )
    likely = found.pop() if len(found) == 1 else None
    if likely is None or np.isclose(CANDIDATES[likely], energy_unit(stated)):
        return
    factor = CANDIDATES[likely] / energy_unit(stated)
    raise ValueError(
        f"the energies of {where} must be in {stated}, but they are what these molecules have in {likely}; say so, or convert "
        f"energies and forces (1 {likely} = {factor:.6g} {stated})"
    )
