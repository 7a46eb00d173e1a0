"""Linear maps in the frame of an edge, where rotation symmetry is reduced to turns about one axis."""

from collections.abc import Sequence

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
      lmax, mmax: highest degree and order.
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
        self, parts: Sequence[Float[Tensor, "edges _ C"]]
    ) -> tuple[list[Tensor], Float[Tensor, "edges extra"]]:
        """Return the mapped coefficients, by order like ``parts`` (see :func:`split_orders`), and the extra scalars."""
        axial, *rest = parts
        # The bias belongs to the extra scalars and to l = 0: the first columns.
        bias = nn.functional.pad(self.bias, (0, self.axial.shape[1] - len(self.bias)))
        axial = torch.addmm(bias, axial.flatten(1), self.axial)
        extra, axial = axial.split([self.extra_scalars, axial.shape[1] - self.extra_scalars], dim=1)
        mapped = [axial]
        for cosine, sine, weight in zip(rest[::2], rest[1::2], self.orders, strict=True):
            # Two products of views: one of both parts would need a copy that puts them below each other.
            cosine, sine = cosine.flatten(1) @ weight, sine.flatten(1) @ weight
            if not self.reflection:
                (cosine, turned_cosine), (sine, turned_sine) = (
                    cosine.chunk(2, dim=1),
                    sine.chunk(2, dim=1),
                )
                cosine, sine = cosine - turned_sine, sine + turned_cosine
            mapped += [cosine, sine]
        return [part.unflatten(1, (-1, self.out_channels)) for part in mapped], extra
