"""Normalisation that looks at one row at a time, so that no atom feels another through it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant.layout import degree_average


class EquivariantNorm(nn.Module):
    r"""y_lmc = w_lc x_lmc / √(mean_l mean_{m,c} x_lmc² + ε), plus a bias on l = 0.

    One size per row, to which every degree contributes equally, and one learned weight per degree and channel. Dividing each
    degree by its own size would be wrong in a fixed-point map: where a degree vanishes by symmetry (an isolated atom, a linear
    molecule, an inversion centre) it would be amplified by 1/√ε at every pass, the symmetric state would be unstable, and
    rounding noise would grow into a broken symmetry. Here the gain of a vanishing degree is set by the others.

    Source: the joint form of Liao et al., EquiformerV2 (2024), "rms_norm_sh".

    Args:
      lmax: highest degree.
      channels: multiplicity of each degree.
      epsilon: > 0; only matters for rows that are nearly zero altogether.
    """

    def __init__(self, lmax: int, channels: int, *, epsilon: float = 1e-3):
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"epsilon must be > 0, received {epsilon}")
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        average = degree_average(lmax)
        balance = average.sum(1, keepdim=True) / (lmax + 1)
        self.register_buffer("balance", balance, persistent=False)
        self.register_buffer("expand", (average > 0).double(), persistent=False)
        scalar = torch.zeros(len(average), 1, dtype=torch.float64)
        scalar[0] = 1
        self.register_buffer("scalar", scalar, persistent=False)

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K C"]:
        """Normalise; rows are independent."""
        power = x.square().mean(-1) @ self.balance.to(x.dtype)  # [rows, 1]
        scale = torch.rsqrt(power + self.epsilon).unsqueeze(-1)
        # A product with ones and zeros spreads weights over m and a bias over nothing but l = 0;
        # indexing and padding take several times longer on arrays this small.
        weight, bias = self.expand.to(x.dtype) @ self.weight, self.scalar.to(x.dtype) * self.bias
        return torch.addcmul(bias, x * scale, weight)
