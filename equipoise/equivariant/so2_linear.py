"""Linear maps in the frame of an edge, where rotation symmetry is reduced to turns about one axis."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant.layout import check_degrees


class SO2Linear(nn.Module):
    """Mix degrees and channels of equal order m in an edge frame.

    m = 0: y₀ = W₀ x₀ (+ bias on l = 0 and the extra scalars);
    m > 0: y₊ = W_m x₊ - V_m x₋,  y₋ = W_m x₋ + V_m x₊.

    With ``reflection=True`` V_m is left out. The map then also commutes with the mirror planes that contain the edge, and a
    network built from it gives mirror images the same energy (O(3) instead of SO(3)) at half the arithmetic.

    Source: Passaro and Zitnick, eSCN (2023), section 4.

    Args:
      lmax, mmax: highest degree and order; features have the edge-frame order of :mod:`equipoise.equivariant.layout`.
      in_channels, out_channels: channels of each coefficient.
      extra_scalars: further invariant outputs (gates, attention features).
      reflection: keep mirror symmetry (see above).
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        in_channels: int,
        out_channels: int,
        *,
        extra_scalars: int = 0,
        reflection: bool = True,
    ):
        super().__init__()
        check_degrees(lmax, mmax)
        self.lmax, self.mmax = lmax, mmax
        self.out_channels, self.extra_scalars, self.reflection = (
            out_channels,
            extra_scalars,
            reflection,
        )
        width = lmax + 1
        self.axial = nn.Parameter(
            torch.randn(width * in_channels, extra_scalars + width * out_channels)
            / (width * in_channels) ** 0.5
        )
        self.bias = nn.Parameter(torch.zeros(extra_scalars + out_channels))
        copies = 1 if reflection else 2
        self.orders = nn.ParameterList(
            torch.randn(n * in_channels, copies * n * out_channels)
            / (copies * n * in_channels) ** 0.5
            for n in range(lmax, lmax - mmax, -1)
        )

    def forward(
        self, x: Float[Tensor, "edges M C"]
    ) -> tuple[Float[Tensor, "edges M O"], Float[Tensor, "edges extra"]]:
        """Return the mapped coefficients and the extra scalars (width 0 if none were asked for)."""
        edges, width = x.shape[0], self.lmax + 1
        orders = [2 * (width - m) for m in range(1, self.mmax + 1)]
        axial, *blocks = x.split([width, *orders], dim=1)
        axial = axial.flatten(1) @ self.axial
        # The bias belongs to the extra scalars and to l = 0: the first columns.
        first, axial = axial.split([len(self.bias), axial.shape[1] - len(self.bias)], dim=1)
        first = first + self.bias
        extra, scalars = first.split([self.extra_scalars, self.out_channels], dim=1)
        parts = [scalars.unsqueeze(1), axial.unflatten(1, (self.lmax, self.out_channels))]
        for n, block, weight in zip(orders, blocks, self.orders, strict=True):
            block = block.unflatten(1, (2, n // 2)).flatten(2) @ weight
            if not self.reflection:
                real, imaginary = block.chunk(2, dim=2)
                cosine, sine = real.unbind(1)
                swapped = imaginary.unbind(1)
                block = torch.stack([cosine - swapped[1], sine + swapped[0]], dim=1)
            parts.append(block.view(edges, n, self.out_channels))
        return torch.cat(parts, dim=1), extra
