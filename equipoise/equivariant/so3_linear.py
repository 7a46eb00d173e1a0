"""A linear map per degree: the only linear maps that commute with rotation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.equivariant.layout import degrees


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
        self.weight = nn.Parameter(
            torch.randn(lmax + 1, in_channels, out_channels) * gain / in_channels**0.5
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("degree", torch.tensor(degrees(lmax)), persistent=False)

    def forward(self, x: Float[Tensor, "rows K C"]) -> Float[Tensor, "rows K O"]:
        """Apply the map; rows are independent."""
        # [K, rows, C] @ [K, C, O]: one batched product for all degrees.
        y = torch.bmm(x.transpose(0, 1), self.weight[self.degree]).transpose(0, 1)
        return y if self.bias is None else y + on_scalars(self.bias, y.shape[1])


def on_scalars(bias: Float[Tensor, " C"], rows: int) -> Float[Tensor, "K C"]:
    """A bias that only l = 0 sees, padded with zeros: adding it costs less than taking the coefficients apart."""
    return nn.functional.pad(bias.unsqueeze(0), (0, 0, 0, rows - 1))
