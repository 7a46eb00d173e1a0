"""Non-linearities of edge-frame coefficients that commute with rotation to rounding error."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def edge_gate(parts: Sequence[Tensor], gate: Float[Tensor, "edges C"]) -> list[Tensor]:
    """y_0 = SiLU(x_0);  y_lm = σ(g) x_lm for l > 0, one invariant gate g per channel.

    Args:
      parts: coefficients by order, see :func:`equipoise.equivariant.split_orders`.
      gate: g.

    Returns:
      the same parts, gated.
    """
    axial, *rest = parts
    gate = gate.sigmoid().unsqueeze(1)
    scalars, others = axial.split([1, axial.shape[1] - 1], dim=1)
    axial = torch.cat([nn.functional.silu(scalars), others * gate], dim=1)
    return [axial, *[part * gate for part in rest]]
