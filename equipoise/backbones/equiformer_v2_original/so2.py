"""Linear maps in the frame of an edge, as the original has them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SO2Convolution(nn.Module):
    """Mix degrees and channels of equal |m|: y₀ = W₀ x₀ + b;  y₊ = W_m x₊ - V_m x₋,  y₋ = W_m x₋ + V_m x₊.

    Every m = 0 output has a bias, those with l > 0 too: in the frame of its edge a vector along the edge is an invariant.
    :class:`equipoise.equivariant.SO2Linear` is the same map with a bias on l = 0 only.

    Source: Passaro and Zitnick, eSCN (2023), section 4.

    Args:
      lmax, mmax: highest degree and order.
      in_channels, out_channels: channels of each coefficient.
      extra: further invariant outputs; they come first among the outputs of ``axial``.
    """

    def __init__(
        self, lmax: int, mmax: int, in_channels: int, out_channels: int, *, extra: int = 0
    ):
        super().__init__()
        self.lmax, self.extra, self.out_channels = lmax, extra, out_channels
        self.axial = nn.Linear((lmax + 1) * in_channels, extra + (lmax + 1) * out_channels)
        self.counts = [lmax + 1 - m for m in range(1, mmax + 1)]
        self.orders = nn.ModuleList(
            nn.Linear(n * in_channels, 2 * n * out_channels, bias=False) for n in self.counts
        )

    def forward(
        self, x: Float[Tensor, "edges M C"], radial: Float[Tensor, "edges R C"] | None = None
    ) -> tuple[Float[Tensor, "edges M O"], Float[Tensor, "edges extra"]]:
        """Return the mapped coefficients and the extra scalars.

        Args:
          x: coefficients in edge-frame order.
          radial: weights of the inputs, R = Σ_m (lmax + 1 - m): one for each l and |m|, shared by +m and -m.
        """
        width = self.lmax + 1
        axial, *blocks = x.split([width, *(2 * n for n in self.counts)], dim=1)
        weights = [None] * (1 + len(blocks))
        if radial is not None:
            weights = radial.split([width, *self.counts], dim=1)
            axial = axial * weights[0]
        extra, first = self.axial(axial.flatten(1)).split(
            [self.extra, width * self.out_channels], dim=1
        )
        parts = [first.unflatten(1, (width, self.out_channels))]
        for n, block, weight, linear in zip(
            self.counts, blocks, weights[1:], self.orders, strict=True
        ):
            block = block.unflatten(1, (2, n))
            if weight is not None:
                block = block * weight.unsqueeze(1)
            real, imaginary = linear(block.flatten(2)).chunk(2, dim=2)
            plus = real[:, 0] - imaginary[:, 1]
            minus = real[:, 1] + imaginary[:, 0]
            parts.append(torch.cat([plus, minus], 1).unflatten(1, (2 * n, self.out_channels)))
        return torch.cat(parts, dim=1), extra


def radial_count(lmax: int, mmax: int) -> int:
    """Pairs (l, |m|) with |m| <= min(l, mmax)."""
    return sum(lmax + 1 - m for m in range(mmax + 1))
