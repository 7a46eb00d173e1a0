"""From invariant features of an atom to its energy."""

from jaxtyping import Float
from torch import Tensor, nn


class EnergyHead(nn.Module):
    """e_i = w · SiLU(W h_i + b): a dimensionless energy per atom. No bias at the end: references carry constants."""

    def __init__(self, channels: int):
        super().__init__()
        self.hidden = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, 1, bias=False)

    def forward(self, features: Float[Tensor, "atoms C"]) -> Float[Tensor, " atoms"]:
        """One number per atom."""
        return self.out(nn.functional.silu(self.hidden(features))).squeeze(-1)
