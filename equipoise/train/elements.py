"""Force errors by element: where in a structure a potential is wrong."""

from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction
from equipoise.train.metrics import MEV


@dataclass(frozen=True)
class ElementErrors:
    """Force errors on the atoms of one element."""

    element: str
    atoms: int  # with a label
    force_mae_mev: float  # meV/Å, over components
    force_rmse_mev: float  # meV/Å, over components


class ElementSums:
    """Numerators and counts of force errors, by atomic number; any number of structures in the same few kilobytes."""

    def __init__(self) -> None:
        self._sums = torch.zeros(len(chemical_symbols), 3, dtype=torch.float64)

    def add(self, prediction: Prediction, graph: Graph) -> None:
        """Count a batch; everything on the CPU."""
        if graph.forces is None or prediction.forces is None:
            return
        known = ~graph.forces.isnan()
        error = torch.where(known, prediction.forces.double() - graph.forces, 0.0)
        columns = (known.double().sum(1), error.abs().sum(1), error.square().sum(1))
        self._sums.index_add_(0, graph.species, torch.stack(columns, dim=1))

    def errors(self) -> tuple[ElementErrors, ...]:
        """Of the elements that have force labels, by atomic number."""
        return tuple(_errors(z, sums) for z, sums in enumerate(self._sums) if sums[0])


def _errors(number: int, sums: Tensor) -> ElementErrors:
    count, absolute, squared = sums.tolist()
    return ElementErrors(
        element=chemical_symbols[number],
        atoms=round(count / 3),
        force_mae_mev=MEV * absolute / count,
        force_rmse_mev=MEV * (squared / count) ** 0.5,
    )
