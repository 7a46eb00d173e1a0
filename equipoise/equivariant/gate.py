"""Non-linearities of edge-frame coefficients that commute with rotation to rounding error."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def edge_gate(
    x: Float[Tensor, "edges M C"], gate: Float[Tensor, "edges C"]
) -> Float[Tensor, "edges M C"]:
    """y_0 = SiLU(x_0);  y_lm = σ(g) x_lm for l > 0, one invariant gate g per channel (edge-frame order)."""
    scalars, rest = x.split([1, x.shape[1] - 1], dim=1)
    return torch.cat([nn.functional.silu(scalars), rest * gate.sigmoid().unsqueeze(1)], dim=1)
