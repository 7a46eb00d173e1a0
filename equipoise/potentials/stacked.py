"""The explicit network: the backbone's untied layers applied once. The baseline of every comparison."""

import torch

from equipoise.potentials.config import PotentialConfig, Statistics
from equipoise.potentials.derivatives import edge_gradient
from equipoise.potentials.potential import Evaluation, Potential


class Stacked(Potential):
    """e = head(update(u)): as many passes as ``config.backbone.layers``, each with its own weights."""

    def __init__(self, config: PotentialConfig, statistics: Statistics):
        super().__init__(config, statistics)
        self.to(getattr(torch, config.dtype))

    def _evaluate(self, graph, vectors, *, start, gradient, direct, penalty, unrolled):
        with torch.set_grad_enabled(gradient or self.training):
            context = self.backbone.encode(graph, vectors)
            z = self.backbone.update(self.backbone.start(context), context)
            atomic = self._atomic(z, context)
            slope = (
                edge_gradient(atomic.sum(), vectors, create_graph=self.training)
                if gradient
                else None
            )
            forces = self._direct(z, context) if direct else None
        return Evaluation(
            atomic=atomic if self.training else atomic.detach(), gradient=slope, direct=forces
        )
