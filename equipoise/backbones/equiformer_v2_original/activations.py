"""The non-linearities of the original, on coefficients in any order that begins with l = 0."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.backbones.equiformer_v2_original.grid import SphereGrid


class S2Activation(nn.Module):
    """SiLU of the function on the sphere, sampled. Equivariant up to aliasing only, also under a roll of the edge frame."""

    def __init__(self, grid: SphereGrid):
        super().__init__()
        self.grid = grid

    def forward(self, x: Float[Tensor, "rows M C"], gate: Tensor | None) -> Tensor:
        """Coefficients of the result. ``gate`` is None."""
        return self.grid.project(nn.functional.silu(self.grid.sample(x)))


class SeparableS2Activation(nn.Module):
    """l > 0 as :class:`S2Activation`; l = 0 is SiLU of a separate scalar, in which nothing is sampled."""

    def __init__(self, grid: SphereGrid):
        super().__init__()
        self.grid = grid

    def forward(
        self, x: Float[Tensor, "rows M C"], gate: Float[Tensor, "rows C"]
    ) -> Float[Tensor, "rows M C"]:
        y = self.grid.project(nn.functional.silu(self.grid.sample(x)))
        return torch.cat([nn.functional.silu(gate).unsqueeze(1), y[:, 1:]], dim=1)


class GateActivation(nn.Module):
    """y_0 = SiLU(x_0); y_lm = σ(g_l) x_lm with one gate per degree l > 0 and channel. Exactly equivariant.

    Args:
      rows: (l, m) of each coefficient.
    """

    def __init__(self, rows: tuple[tuple[int, int], ...]):
        super().__init__()
        index = torch.tensor([degree - 1 for degree, _ in rows[1:]])
        self.register_buffer("index", index, persistent=False)

    def forward(
        self, x: Float[Tensor, "rows M C"], gate: Float[Tensor, "rows LC"]
    ) -> Float[Tensor, "rows M C"]:
        gate = gate.sigmoid().unflatten(1, (-1, x.shape[2])).index_select(1, self.index)
        return torch.cat([nn.functional.silu(x[:, :1]), x[:, 1:] * gate], dim=1)


def make_activation(
    kind: str, rows: tuple[tuple[int, int], ...], grid: SphereGrid, lmax: int, channels: int
) -> tuple[nn.Module, int]:
    """The activation and the number of invariant gates that it wants per row."""
    if kind == "gate":
        return GateActivation(rows), lmax * channels
    if kind == "separable_s2":
        return SeparableS2Activation(grid), channels
    return S2Activation(grid), 0
