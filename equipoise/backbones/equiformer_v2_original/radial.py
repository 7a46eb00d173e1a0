"""What a message weighs, from the distance and the two elements of its edge."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Gaussians(nn.Module):
    """exp(-½ ((d - μ_k) / 2Δ)²) with μ_k from 0 to the cutoff in steps of Δ. No envelope: messages jump to 0 at the cutoff.

    Args:
      count: number of functions, 600 in the original.
      cutoff: Å.
    """

    def __init__(self, count: int, cutoff: float):
        super().__init__()
        self.width = 2 * cutoff / (count - 1)
        centres = torch.linspace(0, cutoff, count, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges count"]:
        """Values in the dtype of ``distance`` (Å)."""
        x = (distance.unsqueeze(1) - self.centres.to(distance.dtype)) / self.width
        return (-0.5 * x.square()).exp()


class ElementPair(nn.Module):
    """Embeddings of the elements at both ends of an edge, side by side."""

    def __init__(self, elements: int, channels: int):
        super().__init__()
        self.source = nn.Embedding(elements, channels)
        self.target = nn.Embedding(elements, channels)
        for table in (self.source, self.target):
            nn.init.uniform_(table.weight, -0.001, 0.001)

    def forward(
        self, source: Int[Tensor, " edges"], target: Int[Tensor, " edges"]
    ) -> Float[Tensor, "edges two_e"]:
        return torch.cat([self.source(source), self.target(target)], dim=1)


class Radial(nn.Module):
    """Linear, LayerNorm, SiLU, twice; then Linear. Of distance functions, and of elements unless others supply these.

    Args:
      gaussians: distance functions.
      extra: width of element embeddings that come from outside (0: none).
      channels: hidden width.
      out: number of weights.
      elements: rows of own element tables; None: no own tables.
    """

    def __init__(
        self, gaussians: int, channels: int, out: int, *, extra: int = 0, elements: int | None
    ):
        super().__init__()
        self.pair = None if elements is None else ElementPair(elements, channels)
        width = gaussians + extra + (0 if elements is None else 2 * channels)
        layers = [nn.Linear(width, channels), nn.LayerNorm(channels), nn.SiLU()]
        layers += [nn.Linear(channels, channels), nn.LayerNorm(channels), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(channels, out))

    def forward(
        self,
        basis: Float[Tensor, "edges count"],
        source: Int[Tensor, " edges"],
        target: Int[Tensor, " edges"],
    ) -> Float[Tensor, "edges out"]:
        """Weights of each edge; ``source`` and ``target`` are atomic numbers."""
        if self.pair is not None:
            basis = torch.cat([basis, self.pair(source, target)], dim=1)
        return self.net(basis)
