"""A linear map per degree: the only linear maps that commute with rotation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SO3Linear(nn.Module):
    """y_lm = W_l x_lm, plus a bias on l = 0.

    Args:
      lmax: highest degree.
      in_channels, out_channels: multiplicity of each degree.
      bias: whether scalars get a bias.
      gain: the weights start normal with standard deviation gain / √in_channels.
    """

    def __init__(
        self,
        lmax: int,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
    ):
        super().__init__()
        self.sizes = [2 * degree + 1 for degree in range(lmax + 1)]
        self.weight = nn.Parameter(
            torch.randn(lmax + 1, in_channels, out_channels) * gain / in_channels**0.5
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K O"]:
        """Apply the map; rows are independent."""
        # One product per degree. A single batched one would need a copy of W_l for every m, and its
        # derivative would have to add the copies up again, at every pass.
        parts = zip(x.split(self.sizes, dim=1), self.weight, strict=True)
        first, *rest = [part.flatten(0, 1) @ weight for part, weight in parts]
        if self.bias is not None:
            first = first + self.bias
        parts = [
            y.unflatten(0, (len(x), size))
            for y, size in zip([first, *rest], self.sizes, strict=True)
        ]
        return torch.cat(parts, dim=1)
