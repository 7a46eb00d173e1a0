"""The explicit network: the backbone's untied layers applied once. The baseline of every comparison."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials.config import PotentialConfig, Statistics
from equipoise.potentials.derivatives import edge_gradient
from equipoise.potentials.potential import Evaluation, Potential


class Functions(NamedTuple):
    """What a prediction is made of; it can be compiled."""

    network: Callable[[Graph, Tensor], tuple[Tensor, Tensor, tuple[Tensor, ...]]]


class Stacked(Potential):
    """e = head(update(u)): as many passes as ``config.backbone.layers``, each with its own weights."""

    def __init__(self, config: PotentialConfig, statistics: Statistics):
        super().__init__(config, statistics)
        self.to(getattr(torch, config.dtype))

    @property
    def _eager(self) -> Functions:
        return Functions(self._network)

    def _network(
        self, graph: Graph, vectors: Float[Tensor, "edges 3"]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Energies of the atoms, state and context."""
        context = self.backbone.encode(graph, vectors)
        z = self.backbone.update(self.backbone.start(context), context)
        return self._atomic(z, context), z, context

    def _evaluate(self, graph, vectors, *, start, gradient, direct, penalty, unrolled, joint):
        if unrolled is not None or penalty is not None:
            raise ValueError(
                f"an explicit network has no fixed point, received unrolled={unrolled} and penalty={penalty}; leave them out"
            )
        functions = self.compiled or self._eager
        with torch.set_grad_enabled(gradient or self.training):
            atomic, z, context = functions.network(graph, vectors)
            slope = edge_gradient(atomic, vectors, create_graph=self.training) if gradient else None
            forces = self._direct(z, context) if direct else None
        return Evaluation(
            atomic=atomic if self.training else atomic.detach(), gradient=slope, direct=forces
        )
