"""Which ensemble a simulation samples: ASE's integrators, and what they remember beside positions and momenta."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import ase
import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import (
    IsotropicMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)
from ase.md.verlet import VelocityVerlet

# What of the bath each of them feels; the temperature is also that of the initial velocities.
FEELS = {
    "nve": (),
    "langevin": ("friction_per_ps",),
    "bussi": ("thermostat_fs",),
    "nose-hoover": ("thermostat_fs",),
    "npt": ("thermostat_fs", "pressure_bar", "barostat_fs"),
}
ENSEMBLES = tuple(FEELS)
CHAIN = 3  # thermostats on thermostats, as is usual


class Bath(NamedTuple):
    """The surroundings: temperature in K, the thermostat's friction in 1/ps (Langevin) or time in fs (others), the pressure
    in bar and the barostat's time in fs (constant pressure)."""

    temperature_k: float
    friction_per_ps: float
    thermostat_fs: float
    pressure_bar: float
    barostat_fs: float


def check_ensemble(ensemble: str, atoms: ase.Atoms, bath: Bath) -> None:
    """Refuse what an ensemble cannot be sampled for, and say what to do instead.

    Raises:
      ValueError: an unknown ensemble; no temperature, constraints, or no periodic cell where they are needed or forbidden.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble must be one of {', '.join(ENSEMBLES)}, received {ensemble!r}")
    if ensemble in ("bussi", "nose-hoover", "npt") and bath.temperature_k == 0:
        raise ValueError(
            f"ensemble {ensemble!r} needs a temperature above 0 K; to cool a structure down, relax it or use 'langevin'"
        )
    if ensemble in ("nose-hoover", "npt") and atoms.constraints:
        raise ValueError(
            f"ensemble {ensemble!r} knows no constraints, received {len(atoms.constraints)}; use 'langevin' or 'bussi'"
        )
    if ensemble == "npt" and not atoms.pbc.all():
        raise ValueError(
            f"constant pressure needs a cell that is periodic in three directions, received pbc {atoms.pbc.tolist()}; use "
            "'langevin' or 'nose-hoover'"
        )


def integrator(
    ensemble: str,
    atoms: ase.Atoms,
    *,
    timestep_fs: float,
    bath: Bath,
    degrees: int,
    rng: np.random.Generator,
) -> MolecularDynamics:
    """ASE's integrator for an ensemble.

    Thermostats that scale velocities keep a structure at rest as a whole, so its kinetic energy is shared by fewer than three
    degrees of freedom per atom. ASE counts three: nine atoms at 300 K would be simulated at 390 K. They get the right number here.

    Args:
      ensemble: one of `ENSEMBLES`.
      atoms: what is moved, momenta and calculator included.
      timestep_fs: fs.
      bath: see `Bath`.
      degrees: of freedom that the kinetic energy has.
      rng: for those that draw random numbers.
    """
    step, temperature = timestep_fs * units.fs, bath.temperature_k
    time = bath.thermostat_fs * units.fs
    if ensemble == "nve":
        return VelocityVerlet(atoms, step)
    if ensemble == "langevin":
        return Langevin(
            atoms,
            step,
            temperature_K=temperature,
            friction=bath.friction_per_ps / (1000 * units.fs),
            fixcm=False,  # ASE's correction does not sample the right distribution
            rng=rng,
        )
    if ensemble == "bussi":
        made = Bussi(atoms, step, temperature_K=temperature, taut=time, rng=rng)
        made.ndof = degrees
        made.target_kinetic_energy = 0.5 * degrees * units.kB * temperature
        return made
    if ensemble == "nose-hoover":
        made = NoseHooverChainNVT(atoms, step, temperature_K=temperature, tdamp=time, tchain=CHAIN)
    else:
        made = IsotropicMTKNPT(
            atoms,
            step,
            temperature_K=temperature,
            pressure_au=bath.pressure_bar * units.bar,
            tdamp=time,
            pdamp=bath.barostat_fs * units.fs,
            tchain=CHAIN,
            pchain=CHAIN,
        )
    made._thermostat = NoseHooverChainThermostat(
        num_atoms_global=degrees / 3,
        masses=made.masses,
        temperature_K=temperature,
        tdamp=time,
        tchain=CHAIN,
    )
    return made


# Attributes that change from step to step, in ASE 3.29. None of them is public, so the tests of exact restarts watch them.
_THERMOSTAT = ("_eta", "_p_eta")
_BAROSTAT = ("_xi", "_p_xi")
_CELL = ("_eps", "_p_eps", "_cell0", "_volume0")


def memory_of(made: MolecularDynamics) -> dict[str, np.ndarray]:
    """What an integrator remembers beside the atoms, by name; empty for most."""
    return {name: np.array(getattr(owner, name)) for owner, name in _remembered(made)}


def recall(made: MolecularDynamics, memory: Mapping[str, np.ndarray]) -> None:
    """Give back what `memory_of` found, to an integrator that was just made of the same atoms."""
    for owner, name in _remembered(made):
        value = memory[name]
        setattr(owner, name, float(value) if value.ndim == 0 else value.copy())


def _remembered(made: MolecularDynamics) -> list[tuple[object, str]]:
    if isinstance(made, Bussi):
        return [(made, "transferred_energy")]
    found: list[tuple[object, str]] = []
    if isinstance(made, (NoseHooverChainNVT, IsotropicMTKNPT)):
        found += [(made._thermostat, name) for name in _THERMOSTAT]
    if isinstance(made, IsotropicMTKNPT):
        found += [(made._barostat, name) for name in _BAROSTAT] + [(made, name) for name in _CELL]
    return found


def conserved_energy(made: MolecularDynamics) -> float:
    """eV: what the exact dynamics would conserve; NaN for Langevin, which conserves nothing."""
    if isinstance(made, Langevin):
        return math.nan
    if isinstance(made, (NoseHooverChainNVT, IsotropicMTKNPT)):
        return made.get_conserved_energy()
    given = made.transferred_energy if isinstance(made, Bussi) else 0.0
    return float(made.atoms.get_total_energy() - given)
