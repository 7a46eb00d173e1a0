"""Two potentials for testing engines: a fake, and the real one at its smallest.

The fake costs nothing, is smooth and conservative, and has an equilibrium: Morse bonds
between all atoms within the cutoff, plus a small term read out of the fixed point of
z = tanh(z) / 2 + u(x), solved by plain iteration from the start that is given. So the
number of passes depends on the start, energy and forces depend on z to the last bit, and
the forces need the adjoint: everything that an engine has to get right.
"""

import os
import signal

import torch

from equipoise.backbones import EquiformerV2Config
from equipoise.deq import Anderson
from equipoise.deq.solution import Result, Solution
from equipoise.graph import Graph
from equipoise.potentials import (
    Potential,
    PotentialConfig,
    Prediction,
    Start,
    Statistics,
    UnconvergedError,
    build,
)

FEATURES = 3


class FakePotential(Potential):
    """E = sum over pairs of Morse(r) w(r) + 0.05 sum over atoms of sum(z*)."""

    def __init__(
        self,
        *,
        cutoff: float = 4.0,
        elements: tuple[int, ...] = (1, 6, 8, 13),
        depth: float = 0.5,
        length: float = 1.5,
        tolerance: float = 1e-9,
        max_passes: int = 200,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config = ("fake", cutoff, elements, depth, length, tolerance)
        self.weight = torch.nn.Parameter(torch.full((), depth, dtype=torch.float64))
        self._cutoff, self._elements = cutoff, elements
        self.depth, self.length = depth, length
        self.tolerance, self.max_passes = tolerance, max_passes
        self.calls = 0
        self.starts: list[Solution | None] = []
        self.policies: list[str] = []
        # What to do at which call (1, 2, ...): an exception to raise, "sigint",
        # "sigkill", "nan" or "unconverged".
        self.script: dict[int, object] = {}

    cutoff = property(lambda self: self._cutoff)
    elements = property(lambda self: self._elements)
    dtype = property(lambda self: torch.float64)
    device = property(lambda self: self.weight.device)
    _eager = property(lambda self: ())

    def _evaluate(self, *args, **options):
        raise NotImplementedError("forward does everything here")

    def forward(
        self,
        graph: Graph,
        *,
        start: Start | None = None,
        forces: bool = True,
        stress: bool = False,
        penalty: float | None = None,
        unconverged: str = "error",
    ) -> Prediction:
        self.calls += 1
        self.starts.append(start)
        self.policies.append(unconverged)
        action = self.script.get(self.calls)
        if isinstance(action, BaseException):
            raise action
        if action in ("sigint", "sigkill"):
            os.kill(os.getpid(), getattr(signal, str(action).upper()))
        positions = graph.positions.clone().requires_grad_()
        strain = torch.zeros(graph.n_structures, 3, 3, dtype=torch.float64, requires_grad=True)
        symmetric = (strain + strain.mT) / 2
        moved = positions + torch.einsum("ax,axy->ay", positions, symmetric[graph.owner])
        cell = graph.cell + graph.cell @ symmetric
        pairs, source = self._pairs(graph, graph.edge_vectors(moved, cell))
        start = self.starts[-1] = start(source.detach()) if callable(start) else start
        solution = self._solve(source.detach(), start, stuck=action == "unconverged")
        if not solution.converged and unconverged == "error":
            raise UnconvergedError("not converged", solution)
        atomic = pairs + 0.05 * solution.value.sum(dim=1)
        # The surrogate has the gradient of the true energy: the adjoint stands for dz*.
        surrogate = pairs.sum() + (solution.adjoint * source).sum()
        slope, strain_slope = torch.autograd.grad(surrogate, (positions, strain))
        energy = torch.zeros(graph.n_structures, dtype=torch.float64)
        energy = energy.index_add(0, graph.owner, atomic.detach())
        if action == "nan":
            energy = energy * torch.nan
        voigt = strain_slope[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return Prediction(
            energy=energy,
            forces=-slope if forces else None,
            stress=voigt / graph.volume[:, None] if stress else None,
            atomic_energies=atomic.detach(),
            equilibrium=solution,
        )

    def _pairs(self, graph: Graph, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances = vectors.norm(dim=1)
        window = (1 - (distances / self._cutoff) ** 2).clamp(min=0) ** 3
        well = (1 - torch.exp(-2 * (distances - self.length))) ** 2 - 1
        zero = torch.zeros(graph.n_atoms, dtype=torch.float64)
        pairs = zero.index_add(0, graph.receivers, self.depth / 2 * well * window)
        waves = torch.stack(
            [torch.cos((k + 1) * distances) * window for k in range(FEATURES)], dim=1
        )
        source = torch.zeros(graph.n_atoms, FEATURES, dtype=torch.float64)
        return pairs, source.index_add(0, graph.receivers, waves)

    def _solve(self, source: torch.Tensor, start: Solution | None, *, stuck: bool) -> Solution:
        z = torch.zeros_like(source) if start is None else start.value
        z, passes, residual, first = self._iterate(lambda z: torch.tanh(z) / 2 + source, z)
        slope = (1 - torch.tanh(z) ** 2) / 2
        dual = torch.zeros_like(z) if start is None or start.adjoint is None else start.adjoint
        dual, dual_passes, _, _ = self._iterate(lambda a: slope * a + 0.05, dual)
        good = residual <= self.tolerance and not stuck
        result = torch.tensor([int(Result.CONVERGED if good else Result.MAX_PASSES)])
        return Solution(
            value=z,
            passes=torch.tensor([passes]),
            residual=torch.tensor([residual]),
            result=result,
            first_residual=torch.tensor([first]),
            adjoint=dual,
            adjoint_passes=torch.tensor([dual_passes]),
            adjoint_residual=torch.zeros(1),
            adjoint_result=torch.zeros(1, dtype=torch.int64),
            descriptor=source,
        )

    def _iterate(self, f, z: torch.Tensor) -> tuple[torch.Tensor, int, float, float]:
        passes, residual, first = 0, float("inf"), float("inf")
        while residual > self.tolerance and passes < self.max_passes:
            mapped = f(z)
            residual = float((mapped - z).norm() / mapped.norm().clamp(min=1e-12))
            first = residual if passes == 0 else first
            z, passes = mapped, passes + 1
        return z, passes, residual, first


def tiny_potential(kind: str = "equilibrium", tolerance: float = 1e-9) -> Potential:
    """The real thing, as small and untrained as it gets."""
    solver = Anderson(tolerance=tolerance, max_passes=200)
    backbone = EquiformerV2Config(
        channels=4, heads=2, hidden=8, ffn=8, radial=4, radial_hidden=8, cutoff=4.0
    )
    config = PotentialConfig(
        kind=kind, backbone=backbone, solver=solver, adjoint=solver, dtype="float64"
    )
    statistics = Statistics((1, 6, 8, 13), (-13.6, -1000.0, -2000.0, -50.0), 1.0, 8.0, 9.0)
    potential = build(config, statistics, seed=3)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.mul_(0.7)  # an untrained map need not contract: help it
    return potential
