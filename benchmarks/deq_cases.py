"""Fixed-point problems for benchmarks of solvers: each with a contraction that is known, and a second one close by."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from equipoise.data import rmd17
from equipoise.deq import Anderson, Inner, spectral_radius
from equipoise.potentials import load


@dataclass(frozen=True)
class Case:
    """z = f(z, source) for two sources.

    Attributes:
      f: the map.
      sources: of the problem and of one near it.
      start: nothing, the start of a cold solve.
      rows: of each structure; all structures have as many.
      rho: contraction per pass at the first fixed point.
    """

    f: Callable[[Tensor, Any], Tensor]
    sources: tuple[Any, Any]
    start: Tensor
    rows: int
    rho: float = 0.0

    @property
    def structures(self) -> int:
        return len(self.start) // self.rows

    @property
    def inner(self) -> Inner:
        count = self.structures
        return Inner(torch.arange(count).repeat_interleave(self.rows), count)

    @torch.no_grad()
    def solved(self) -> Tensor:
        """The first fixed point."""
        solver = Anderson(tolerance=1e-11, max_passes=2000)
        return solver.solve(lambda z: self.f(z, self.sources[0]), self.start, Inner()).value

    def measured(self) -> "Case":
        """The same with its contraction."""
        noise = torch.Generator().manual_seed(0)
        f = lambda z: self.f(z, self.sources[0])  # noqa: E731
        rho = spectral_radius(f, self.solved(), steps=60, generator=noise)
        return replace(self, rho=rho.max().item())


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _scaled(build: Callable[[float], Case], rho: float) -> Case:
    """The case of contraction ρ, by bisection of the size of its weights."""
    low, high = 0.0, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        case = build(middle).measured()
        low, high = (middle, high) if case.rho < rho else (low, middle)
    return case


def tanh_network(rho: float, seed: int) -> Case:
    """tanh(z W + x), 16 samples of 64 numbers; every sample a structure, moved by 1 %."""
    generator = torch.Generator().manual_seed(seed)
    w, x = _normal(generator, 64, 64) / 8, _normal(generator, 16, 64)
    sources = x, x + 0.01 * _normal(generator, 16, 64)

    def build(size: float) -> Case:
        return Case(lambda z, x: torch.tanh(size * z @ w + x), sources, torch.zeros_like(x), 1)

    return _scaled(build, rho)


def graph_network(rho: float, seed: int) -> Case:
    """tanh(Σ_neighbours silu(z_i V + z_j W) + x), 24 nodes with 4 neighbours each, 16 features, moved by 1 %."""
    generator = torch.Generator().manual_seed(seed)
    receivers = torch.arange(24).repeat_interleave(4)
    senders = (receivers + torch.tensor([1, 3, 21, 23]).repeat(24)) % 24
    v, w = _normal(generator, 16, 16) / 4, _normal(generator, 16, 16) / 4
    x = _normal(generator, 24, 16)
    sources = x, x + 0.01 * _normal(generator, 24, 16)

    def build(size: float) -> Case:
        def f(z, x):
            messages = torch.nn.functional.silu(size * (z[receivers] @ v + z[senders] @ w))
            return torch.tanh(torch.zeros_like(z).index_add(0, receivers, messages) + x)

        return Case(f, sources, torch.zeros_like(x), 24)

    return _scaled(build, rho)


@torch.no_grad()
def _ethanol(seed: int, dtype: torch.dtype) -> Case:
    potential = load("rmd17-ethanol", dtype=dtype)
    graph = rmd17("ethanol", cutoff=potential.cutoff).test[seed]
    noise = 0.005 * _normal(torch.Generator().manual_seed(seed), graph.n_atoms, 3)
    sources = []
    for moved in (0 * noise, noise):
        vectors = graph.edge_vectors().double() + moved[graph.receivers] - moved[graph.senders]
        context = potential.backbone.encode(graph, vectors.to(dtype))
        source = potential.injection.source(potential.backbone.start(context))
        sources.append((source, context))
    start = torch.zeros_like(sources[0][0])
    return Case(lambda z, source: potential.cell(z, *source), tuple(sources), start, len(start))


def ethanol(seed: int, dtype: torch.dtype = torch.float64) -> Case:
    """The cell of the shipped potential at a test frame, and with every atom moved by 0.005 Å."""
    case = _ethanol(seed, dtype)
    return case if dtype == torch.float32 else case.measured()
