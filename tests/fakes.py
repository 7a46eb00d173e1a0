"""A potential small enough to train in a blink: a pair energy learned from distances."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from equipoise.deq import Solution
from equipoise.graph import Graph
from equipoise.potentials import PotentialConfig, Prediction, Statistics


class FakePotential(nn.Module):
    """Behaves as a `Potential` does towards training and engines, without a network to solve.

    `before_call` is called with the number of the call; tests raise signals and errors there.
    `poison(n)` True makes call number n return NaN; `unconverged(n)` makes it claim that the
    first structure did not converge.
    """

    def __init__(self, config: PotentialConfig, statistics: Statistics, *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.statistics = config, statistics
        self.cutoff, self.elements = config.backbone.cutoff, statistics.elements
        self.before_call: Callable[[int], None] = lambda call: None
        self.poison: Callable[[int], bool] = lambda call: False
        self.unconverged: Callable[[int], bool] = lambda call: False
        self.calls = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 1))
        self.register_buffer("centres", torch.linspace(0.5, self.cutoff, 8))
        self.register_buffer("seen", torch.zeros(()))  # a buffer that changes

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].weight.dtype

    @property
    def device(self) -> torch.device:
        return self.layers[0].weight.device

    def contraction(self, graph: Graph) -> Tensor:
        return torch.full((graph.n_structures,), 0.5, dtype=torch.float64)

    def forward(
        self,
        graph: Graph,
        *,
        start: Solution | None = None,
        forces: bool = True,
        stress: bool = False,
        penalty: float | None = None,
        unrolled: int | None = None,
        unconverged: str = "error",
    ) -> Prediction:
        call, self.calls = self.calls, self.calls + 1
        self.before_call(call)
        if self.training:
            self.seen += 1
        positions = graph.positions.detach().requires_grad_()
        r = torch.linalg.vector_norm(graph.edge_vectors(positions), dim=1, keepdim=True)
        features = torch.exp(-((r - self.centres) ** 2)) * (1 - r / self.cutoff) ** 2
        pair = self.layers(features.to(self.dtype)).double().squeeze(1)
        table = dict(zip(self.elements, self.statistics.reference_energies, strict=True))
        atomic = torch.tensor([table[int(z)] for z in graph.species], dtype=torch.float64)
        atomic = atomic.index_add(0, graph.receivers, pair)
        energy = torch.zeros(graph.n_structures, dtype=torch.float64)
        energy = energy.index_add(0, graph.owner, atomic)
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=self.training)
        if self.poison(call):
            energy = energy * torch.nan
        if not self.training:
            energy, slope, atomic = energy.detach(), slope.detach(), atomic.detach()
        return Prediction(
            energy=energy,
            forces=-slope,
            stress=None,
            atomic_energies=atomic,
            equilibrium=self._solution(graph, failed=self.unconverged(call)),
            penalty=None if penalty is None else self._penalty(),
        )

    def _penalty(self) -> Tensor:
        # Random, as the real one: a resumed run must draw the same numbers.
        weight = self.layers[0].weight
        return (weight * torch.randn(weight.shape)).sum().square()

    def _solution(self, graph: Graph, *, failed: bool) -> Solution:
        ones = torch.ones(graph.n_structures, dtype=torch.int64)
        result = torch.zeros_like(ones)
        result[0] = int(failed)
        return Solution(
            value=torch.zeros(graph.n_atoms, 1),
            passes=3 * ones,
            residual=1e-4 * ones,
            result=result,
            adjoint_passes=2 * ones,
            adjoint_residual=1e-4 * ones,
            adjoint_result=0 * ones,
        )


def build_fake(config: PotentialConfig, statistics: Statistics, *, seed: int = 0) -> FakePotential:
    """Stands in for `equipoise.potentials.build`."""
    return FakePotential(config, statistics, seed=seed)


def save_fake(potential: FakePotential, path: Path, *, extra: dict | None = None) -> None:
    """Stands in for `equipoise.potentials.save`."""
    header = {"statistics": asdict(potential.statistics), "extra": extra}
    tensors = {name: t.clone() for name, t in potential.state_dict().items()}
    safetensors.torch.save_file(tensors, path, metadata={"fake": json.dumps(header)})
