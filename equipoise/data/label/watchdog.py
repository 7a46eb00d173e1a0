"""When a trajectory has left the road."""

import ase
import numpy as np
from ase import units

from equipoise.graph import NeighbourList

# No two atoms of a molecule come this close (H2: 0.74 Å); below it, a method gives numbers and no chemistry.
TOO_CLOSE = 0.3  # Å


def hot(atoms: ase.Atoms, bound_k: float) -> str | None:
    """What is wrong with the temperature or the momenta; None if nothing is."""
    momenta = atoms.get_momenta()
    if not (np.isfinite(momenta).all() and np.isfinite(atoms.positions).all()):
        return "positions or momenta are no longer finite"
    # Not from the degrees of freedom that conservation laws would leave: the thermostat acts on all.
    degrees = atoms.get_number_of_degrees_of_freedom()
    temperature = 2 * atoms.get_kinetic_energy() / (degrees * units.kB) if degrees else 0.0
    if temperature > bound_k:
        return (
            f"the temperature of {temperature:.0f} K is above the bound of {bound_k:.0f} K "
            f"(max_temperature_k, on the command line --max-temperature)"
        )
    return None


def broken(atoms: ase.Atoms, max_gap: float) -> str | None:
    """Whether an atom has run away from all others, or into one; None if not."""
    if len(atoms) < 2:
        return None
    reach = max_gap if np.isfinite(max_gap) else TOO_CLOSE
    try:
        edges = NeighbourList(reach).update(atoms.positions, atoms.cell.array, atoms.pbc)
    except ValueError as error:  # two atoms in one place
        return str(error)
    senders, receivers = edges.senders.numpy(), edges.receivers.numpy()
    vectors = atoms.positions[receivers] - atoms.positions[senders]
    vectors += edges.shifts.numpy() @ atoms.cell.array
    distances = np.linalg.norm(vectors, axis=1)
    if len(distances) and distances.min() < TOO_CLOSE:
        at = int(distances.argmin())
        return (
            f"atoms {senders[at]} ({atoms.symbols[senders[at]]}) and {receivers[at]} "
            f"({atoms.symbols[receivers[at]]}) are {distances[at]:.2f} Å apart"
        )
    lone = np.setdiff1d(np.arange(len(atoms)), receivers)
    if np.isfinite(max_gap) and len(lone):
        return (
            f"atom {lone[0]} ({atoms.symbols[lone[0]]}) has no neighbour within {max_gap:g} Å "
            f"(max_gap, on the command line --max-gap)"
        )
    return None
