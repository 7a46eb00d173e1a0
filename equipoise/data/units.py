"""Units by the names that files use for them, and what they are in eV and Å."""

import difflib

import ase.units

ENERGIES = {
    "ev": 1.0,
    "mev": 1e-3,
    "hartree": ase.units.Hartree,
    "ha": ase.units.Hartree,
    "rydberg": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kj/mol": ase.units.kJ / ase.units.mol,
}
LENGTHS = {
    "å": 1.0,
    "a": 1.0,
    "ang": 1.0,
    "angstrom": 1.0,
    "bohr": ase.units.Bohr,
    "nm": 10.0,
}


def energy_unit(name: str) -> float:
    """One such unit of energy in eV.

    Raises:
      ValueError: an unknown unit.
    """
    return _find(name, ENERGIES, "energy")


def length_unit(name: str) -> float:
    """One such unit of length in Å.

    Raises:
      ValueError: an unknown unit.
    """
    return _find(name, LENGTHS, "length")


def force_unit(name: str) -> float:
    """One such unit of force, written as energy/length, in eV/Å.

    Raises:
      ValueError: an unknown unit.
    """
    energy, slash, length = name.rpartition("/")
    if not slash:
        raise ValueError(f"a force unit must be energy/length, such as eV/Å, received {name!r}")
    return energy_unit(energy) / length_unit(length)


def _find(name: str, units: dict[str, float], kind: str) -> float:
    plain = name.strip().lower().replace(" ", "")
    if plain not in units:
        close = difflib.get_close_matches(plain, units, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown unit of {kind} {name!r}; {hint}Known are {', '.join(units)}")
    return units[plain]
