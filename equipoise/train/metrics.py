"""Errors in the units people compare: meV and meV/Angstrom."""

import math
from dataclasses import dataclass

from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction

MEV = 1000.0  # meV per eV


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square errors; NaN where there was no label."""

    energy_mae_mev: float  # meV per structure
    energy_rmse_mev: float  # meV per structure
    energy_mae_mev_per_atom: float  # meV/atom
    force_mae_mev: float  # meV/Angstrom, over components
    force_rmse_mev: float  # meV/Angstrom, over components


@dataclass
class Tally:
    """Running sums over batches, from which `errors` makes means.

    Plain numbers on purpose: a training run stores its tally in the resumable state, so that
    the log of a resumed run has the rows of the uninterrupted one.
    """

    structures: int = 0  # seen
    energies: int = 0  # with an energy label
    energy_absolute: float = 0.0  # eV
    energy_squared: float = 0.0  # eV^2
    energy_per_atom: float = 0.0  # eV/atom
    components: int = 0  # of forces, with a label
    force_absolute: float = 0.0  # eV/Angstrom
    force_squared: float = 0.0  # eV^2/Angstrom^2
    passes: int = 0  # forward
    adjoint_passes: int = 0
    unconverged: int = 0  # structures whose fixed point was not reached

    def add(self, prediction: Prediction, graph: Graph) -> None:
        """Count one batch: what it cost and how wrong it is."""
        self.add_solves(prediction)
        self.add_errors(prediction.energy, prediction.forces, graph)

    def add_solves(self, prediction: Prediction) -> None:
        """Count structures, passes, and solves that did not converge."""
        self.structures += len(prediction.energy)
        solution = prediction.equilibrium
        if solution is None:
            return
        self.passes += int(solution.passes.sum())
        if solution.adjoint_passes is not None:
            self.adjoint_passes += int(solution.adjoint_passes.sum())
        failed = solution.result != 0
        if solution.adjoint_result is not None:
            failed = failed | (solution.adjoint_result != 0)
        self.unconverged += int(failed.sum())

    def add_errors(self, energy: Tensor, forces: Tensor, graph: Graph) -> None:
        """Count energies (eV, [structures]) and forces (eV/Angstrom, [atoms, 3])."""
        energy, forces = energy.detach(), forces.detach()
        if graph.energy is not None:
            known = ~graph.energy.isnan()
            error = (energy - graph.energy)[known]
            self.energies += error.numel()
            self.energy_absolute += float(error.abs().sum())
            self.energy_squared += float(error.square().sum())
            self.energy_per_atom += float((error.abs() / graph.counts[known]).sum())
        if graph.forces is not None:
            error = (forces - graph.forces)[~graph.forces.isnan()]
            self.components += error.numel()
            self.force_absolute += float(error.abs().sum())
            self.force_squared += float(error.square().sum())

    def errors(self) -> Errors:
        return Errors(
            energy_mae_mev=MEV * _ratio(self.energy_absolute, self.energies),
            energy_rmse_mev=MEV * math.sqrt(_ratio(self.energy_squared, self.energies)),
            energy_mae_mev_per_atom=MEV * _ratio(self.energy_per_atom, self.energies),
            force_mae_mev=MEV * _ratio(self.force_absolute, self.components),
            force_rmse_mev=MEV * math.sqrt(_ratio(self.force_squared, self.components)),
        )

    @property
    def mean_passes(self) -> float:
        """Forward passes per structure."""
        return _ratio(self.passes, self.structures)

    @property
    def mean_adjoint_passes(self) -> float:
        """Adjoint passes per structure."""
        return _ratio(self.adjoint_passes, self.structures)


def _ratio(total: float, count: int) -> float:
    return total / count if count else math.nan
