"""Functions of distance that end smoothly at the cutoff."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def envelope(
    distance: Float[Tensor, " edges"], cutoff: float, *, order: int = 5
) -> Float[Tensor, " edges"]:
    """Polynomial that falls from 1 to 0 at the cutoff with vanishing first and second derivative; 0 beyond.

    u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), x = d / cutoff.

    Source: Gasteiger et al., DimeNet (2020), eq. 8.
    """
    p = float(order)
    x = (distance / cutoff).clamp(max=1.0)
    return 1 - x**order * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2)))


class Bessel(nn.Module):
    """√(2/c) sin(nπd/c) / d · scale, n = 1 … count: few, wide and smooth, orthogonal on the ball of the cutoff.

    Wide functions are part of the method: with 600 Gaussians of 0.017 Å the fixed point moves by 7 % between two MD steps
    and nothing can be reused; with these by a fraction of a per cent.

    Source: Gasteiger et al., DimeNet (2020), eq. 7.

    Args:
      count: number of functions.
      cutoff: Å.
    """

    def __init__(self, count: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer(
            "order", torch.arange(1, count + 1, dtype=torch.float64), persistent=False
        )

    def forward(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges count"]:
        """Values of order one; ``distance`` in Å must be > 0."""
        x = distance.unsqueeze(-1) / self.cutoff
        return math.sqrt(2) * torch.sin(self.order.to(x.dtype) * math.pi * x) / (x * math.pi)
