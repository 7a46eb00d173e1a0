"""Initial momenta, and how many degrees of freedom a temperature is shared among."""

import ase
import numpy as np
from ase import units

# A motion of the whole counts as none if its energy is this small beside what a degree of
# freedom has. Velocities with eight digits, and float32 forces, leave 1e-8 or less.
STILL = 1e-3


def thermal_momenta(
    atoms: ase.Atoms, temperature_k: float, rng: np.random.Generator, *, at_rest: bool = True
) -> np.ndarray:
    r"""Momenta at exactly `temperature_k`, at rest as a whole: [atoms, 3], ASE units.

    Drawn from the Maxwell-Boltzmann distribution, $p \sim \mathcal N(0, m k_B T)$; then
    the total momentum is taken out, and for an open system the angular momentum; then
    all are scaled so that $2 E_{kin} = n k_B T$ with the n degrees of freedom left. A
    single draw for a small molecule is otherwise off by sqrt(2/n): 30 % for ethanol.
    Atoms with constraints are drawn within those and not brought to rest; nor are any
    with `at_rest=False`, for a thermostat that sets the whole in motion anyway.

    Not a sample of the canonical ensemble, whose kinetic energy fluctuates: it is a
    start.
    """
    mover = atoms.copy()
    mover.set_momenta(
        rng.standard_normal((len(atoms), 3))
        * np.sqrt(atoms.get_masses() * units.kB * temperature_k)[:, None]
    )
    if at_rest and not atoms.constraints and len(atoms) > 1:
        momenta = mover.get_momenta()
        masses = atoms.get_masses()[:, None]
        momenta = momenta - masses * momenta.sum(axis=0) / masses.sum()
        if not atoms.pbc.any():
            arms = atoms.positions - atoms.get_center_of_mass()
            turning = np.linalg.pinv(_inertia(atoms), rcond=1e-10, hermitian=True)
            omega = turning @ np.cross(arms, momenta).sum(axis=0)
            momenta = momenta - masses * np.cross(omega, arms)
        mover.set_momenta(momenta)
    degrees = degrees_of_freedom(mover) if at_rest else degrees_of_all(mover)
    kinetic = mover.get_kinetic_energy()
    if kinetic == 0 or degrees == 0:
        return mover.get_momenta()
    scale = np.sqrt(degrees * units.kB * temperature_k / (2 * kinetic))
    return mover.get_momenta() * scale


def degrees_of_all(atoms: ase.Atoms) -> int:
    """3 per atom less those that constraints fix: all that a thermostat acting on every atom excites."""
    return int(atoms.get_number_of_degrees_of_freedom())


def degrees_of_freedom(atoms: ase.Atoms) -> int:
    """How many quadratic terms the kinetic energy has while momenta are conserved.

    3 per atom less those that constraints fix; less 3 if the atoms are at rest as a
    whole; less 3 (2 for a linear molecule) if an open system does not rotate. This is
    for dynamics that conserve momenta.
    """
    degrees = degrees_of_all(atoms)
    if atoms.constraints or len(atoms) < 2:
        return degrees
    momenta = atoms.get_momenta()
    small = STILL * atoms.get_kinetic_energy() / degrees
    drift = momenta.sum(axis=0)
    if drift @ drift / (2 * atoms.get_masses().sum()) > small:
        return degrees
    degrees -= 3
    if atoms.pbc.any():
        return degrees
    inertia = _inertia(atoms)
    turn = np.cross(atoms.positions - atoms.get_center_of_mass(), momenta).sum(axis=0)
    if turn @ np.linalg.pinv(inertia, rcond=1e-10, hermitian=True) @ turn / 2 <= small:
        degrees -= int(np.linalg.matrix_rank(inertia, rtol=1e-10))
    return degrees


def temperature(kinetic_energy: float, degrees: int) -> float:
    """2 E_kin / (n kB) in K; 0 where nothing can move."""
    return float(2 * kinetic_energy / (degrees * units.kB)) if degrees else 0.0


def _inertia(atoms: ase.Atoms) -> np.ndarray:
    arms = atoms.positions - atoms.get_center_of_mass()
    masses = atoms.get_masses()
    square = np.einsum("a,ax,ax->", masses, arms, arms)
    return square * np.eye(3) - np.einsum("a,ax,ay->xy", masses, arms, arms)
