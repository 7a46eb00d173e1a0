"""A potential whose errors are known beforehand, for tests of what is made of errors."""

import torch
from torch import Tensor, nn

from equipoise.deq import Solution
from equipoise.graph import Graph
from equipoise.potentials import Prediction, Statistics

STATISTICS = Statistics(
    elements=(1, 8),
    reference_energies=(-1.0, -5.0),
    force_rms=1.0,
    mean_neighbours=1.0,
    mean_atoms=2.0,
)


class Constant(nn.Module):
    """Says 1 eV too much, forces 0.5 eV/Å and stresses 0.25 eV/Å³ too large, and fails on every oxygen."""

    statistics = STATISTICS
    device = torch.device("cpu")
    conservative = True

    def forward(self, graph: Graph, *, unconverged: str, stress: bool = False) -> Prediction:
        assert unconverged == "accept" and not self.training and torch.is_grad_enabled()
        ones = torch.ones(graph.n_structures, dtype=torch.int64)
        failed = torch.zeros_like(ones).index_add_(0, graph.owner, (graph.species == 8).long())
        return Prediction(
            energy=_known(graph.energy, (graph.n_structures,)) + 1.0,
            forces=_known(graph.forces, (graph.n_atoms, 3)) + 0.5,
            stress=_known(graph.stress, (graph.n_structures, 6)) + 0.25 if stress else None,
            atomic_energies=torch.zeros(graph.n_atoms, dtype=torch.float64),
            equilibrium=Solution(
                value=torch.zeros(graph.n_atoms, 1),
                passes=4 * ones,
                residual=1e-3 * ones,
                result=failed.clamp(max=1),
                adjoint_passes=2 * ones,
                adjoint_result=0 * ones,
            ),
        )

    def contraction(self, graph: Graph) -> Tensor:
        return torch.full((graph.n_structures,), 0.5, dtype=torch.float64)


def _known(label: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    zeros = torch.zeros(shape, dtype=torch.float64)
    return zeros if label is None else torch.nan_to_num(label)
