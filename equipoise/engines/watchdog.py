"""When a simulation has left the road: say so at once, not after a night."""

from dataclasses import dataclass

import ase
import numpy as np
import torch

from equipoise.graph import Graph


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


@dataclass(frozen=True)
class Watchdog:
    """Bounds outside which a trajectory is not worth continuing.

    **Arguments**

    - `max_temperature_k`: K. None: ten times the target, at least 3000 K.
    - `max_gap`: Angstrom; the distance of an atom to its nearest neighbour must stay
      below. None: the cutoff of the potential, beyond which an atom feels nothing.
      `float("inf")` switches this off, for gases.
    """

    max_temperature_k: float | None = None
    max_gap: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_temperature_k", "max_gap"):
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
    ) -> str | None:
        """What is wrong with `atoms`, whose edges are `graph`'s; None if nothing is."""
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
        return self._stray(atoms, graph)

    def _stray(self, atoms: ase.Atoms, graph: Graph) -> str | None:
        bound = graph.cutoff if self.max_gap is None else self.max_gap
        if len(atoms) < 2 or bound == float("inf"):
            return None
        distances = graph.edge_vectors().norm(dim=1)
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
