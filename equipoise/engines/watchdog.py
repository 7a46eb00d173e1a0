"""When a simulation has left the road: say so at once, not after a night."""

import math
from dataclasses import dataclass

import ase
import numpy as np
import torch
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from equipoise.graph import Graph

BONDED, NEAREST = 1.3, 0.4  # sums of covalent radii


class SimulationStopped(RuntimeError):
    """A watchdog stopped a simulation; its last good state is saved.

    **Attributes**

    - `step`: the last good step.
    - `reason`: what went wrong after it.
    """

    def __init__(self, message: str, *, step: int, reason: str) -> None:
        super().__init__(message)
        self.step = step
        self.reason = reason


class SimulationInterrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal: everything is saved, the message says how to go on."""


def bonds_of(atoms: ase.Atoms) -> np.ndarray:
    """Pairs of atoms nearer than 1.3 sums of their covalent radii, [bonds, 2]."""
    cutoffs = BONDED * covalent_radii[atoms.numbers]
    first, second = neighbor_list("ij", atoms, list(cutoffs))
    return np.stack([first, second], axis=1)[first < second]


@dataclass(frozen=True)
class Watchdog:
    """Bounds outside which a trajectory is not worth continuing.

    **Arguments**

    - `max_temperature_k`: K. None: ten times the target, at least 3000 K.
    - `max_gap`: Angstrom; the distance of an atom to its nearest neighbour must stay
      below. None: the cutoff of the potential, beyond which an atom feels nothing.
      `float("inf")` switches this off, for gases.
    - `max_stretch`: how long a bond of the start may become, in sums of covalent radii.
      None: 2 for molecules, inf for periodic structures, where neighbours may part (ions,
      metals, liquids that react). Two atoms nearer than 0.4 sums are always too near.
    """

    max_temperature_k: float | None = None
    max_gap: float | None = None
    max_stretch: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_temperature_k", "max_gap", "max_stretch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be larger than 0, received {value}")

    def complaint(
        self,
        atoms: ase.Atoms,
        graph: Graph,
        *,
        energy: float,
        temperature_k: float,
        target_k: float,
        bonds: np.ndarray | None = None,
    ) -> str | None:
        """What is wrong with `atoms`, whose edges are `graph`'s; None if nothing is. `bonds`: see `bonds_of`."""
        if not np.isfinite(energy):
            return f"the potential energy is {energy}"
        for name, values in (
            ("positions", atoms.positions),
            ("momenta", atoms.get_momenta()),
        ):
            if not np.isfinite(values).all():
                atom = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                return f"{name} of atom {atom} are {values[atom].tolist()}"
        bound = self.max_temperature_k
        bound = max(10 * target_k, 3000.0) if bound is None else bound
        if temperature_k > bound:
            return (
                f"the temperature of {temperature_k:.0f} K is above the bound of {bound:.0f} K "
                f"(max_temperature_k, on the command line --max-temperature)"
            )
        distances = graph.edge_vectors().norm(dim=1)
        return (
            self._collision(atoms, graph, distances)
            or self._broken(atoms, bonds)
            or self._stray(atoms, graph, distances)
        )

    def _collision(self, atoms: ase.Atoms, graph: Graph, distances: torch.Tensor) -> str | None:
        radii = torch.as_tensor(covalent_radii[atoms.numbers]).to(distances)
        near = distances / (radii[graph.senders] + radii[graph.receivers])
        if not len(near) or float(near.min()) >= NEAREST:
            return None
        edge = int(near.argmin())
        pair = _named(atoms, int(graph.senders[edge]), int(graph.receivers[edge]))
        return (
            f"{pair} are {float(distances[edge]):.2f} Angstrom apart, nearer than atoms ever come"
        )

    def _broken(self, atoms: ase.Atoms, bonds: np.ndarray | None) -> str | None:
        bound = self.max_stretch
        bound = (math.inf if atoms.pbc.any() else 2.0) if bound is None else bound
        if bonds is None or not len(bonds) or bound == math.inf:
            return None
        first, second = bonds.T
        apart = atoms.positions[second] - atoms.positions[first]
        if atoms.pbc.any():
            apart = find_mic(apart, atoms.cell, atoms.pbc)[0]
        radii = covalent_radii[atoms.numbers]
        stretch = np.linalg.norm(apart, axis=1) / (radii[first] + radii[second])
        worst = int(stretch.argmax())
        if stretch[worst] <= bound:
            return None
        return (
            f"the bond of {_named(atoms, *bonds[worst].tolist())} is {np.linalg.norm(apart[worst]):.2f} Angstrom long, more than "
            f"{bound:g} sums of covalent radii (max_stretch, on the command line --max-stretch; inf where bonds may break)"
        )

    def _stray(self, atoms: ase.Atoms, graph: Graph, distances: torch.Tensor) -> str | None:
        bound = graph.cutoff if self.max_gap is None else self.max_gap
        if len(atoms) < 2 or bound == float("inf"):
            return None
        nearest = torch.full_like(graph.positions[:, 0], torch.inf).scatter_reduce(
            0, graph.receivers, distances, "amin"
        )
        # Atoms without any edge: what they are from their nearest is beyond the cutoff, and
        # so may the bound be.
        for lone in torch.nonzero(torch.isinf(nearest)).flatten().tolist():
            others = [index for index in range(len(atoms)) if index != lone]
            nearest[lone] = float(atoms.get_distances(lone, others, mic=True).min())
        gap, atom = nearest.max(dim=0)
        if float(gap) < bound:
            return None
        return (
            f"atom {int(atom)} ({atoms.symbols[int(atom)]}) is {float(gap):.2f} Angstrom from its "
            f"nearest neighbour, not below the bound of {bound:g} Angstrom (max_gap, on the "
            f"command line --max-gap)"
        )


def _named(atoms: ase.Atoms, *pair: int) -> str:
    return " and ".join(f"atom {int(atom)} ({atoms.symbols[int(atom)]})" for atom in pair)
