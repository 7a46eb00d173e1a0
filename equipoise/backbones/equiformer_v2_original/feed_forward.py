"""The network at each atom."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.backbones.equiformer_v2_original.activations import make_activation
from equipoise.backbones.equiformer_v2_original.config import EquiformerV2OriginalConfig
from equipoise.backbones.equiformer_v2_original.grid import SphereGrid
from equipoise.equivariant import SO3Linear


class GridMLP(nn.Module):
    """Three linear maps with SiLU between them at every point of the sphere. Equivariant up to aliasing only.

    Args:
      separate: take l = 0 from a network of invariants instead, given as ``gate``.
    """

    def __init__(self, grid: SphereGrid, channels: int, *, separate: bool):
        super().__init__()
        self.grid, self.separate = grid, separate
        self.layers = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(3))

    def forward(self, x: Float[Tensor, "rows K C"], gate: Tensor | None) -> Tensor:
        first, second, third = self.layers
        silu = nn.functional.silu
        y = self.grid.project(third(silu(second(silu(first(self.grid.sample(x)))))))
        return torch.cat([silu(gate).unsqueeze(1), y[:, 1:]], dim=1) if self.separate else y


class FeedForward(nn.Module):
    """out = W₂ act(W₁ z, G z_0 + b): linear maps per degree around a non-linearity of all degrees.

    Source: Liao et al., EquiformerV2 (2024), section 4.3.

    Args:
      config: settings.
      channels, out_channels: channels of input and output.
      grid: of all coefficients of a node.
    """

    def __init__(
        self,
        config: EquiformerV2OriginalConfig,
        channels: int,
        out_channels: int,
        *,
        grid: SphereGrid,
        rows: tuple[tuple[int, int], ...],
    ):
        super().__init__()
        kind, width = config.ffn_activation, config.ffn
        self.invariant_first = kind.startswith("separable")
        self.first = SO3Linear(config.lmax, channels, width)
        if kind.endswith("grid_mlp"):
            self.activation = GridMLP(grid, width, separate=self.invariant_first)
            gates = width if self.invariant_first else 0
        else:
            self.activation, gates = make_activation(kind, rows, grid, config.lmax, width)
        self.gate = nn.Linear(channels, gates) if gates else None
        self.second = SO3Linear(config.lmax, width, out_channels)

    def forward(self, z: Float[Tensor, "atoms K C"]) -> Float[Tensor, "atoms K O"]:
        gate = None if self.gate is None else self.gate(z[:, 0])
        return self.second(self.activation(self.first(z), gate))

    def scalars(self, z: Float[Tensor, "atoms K C"]) -> Float[Tensor, "atoms O"]:
        """The l = 0 part of :meth:`forward`.

        With a separable activation it does not depend on the other degrees at all, and neither on ``first`` nor on the network
        on the grid, which are then not evaluated.
        """
        if not self.invariant_first or self.gate is None:
            return self.forward(z)[:, 0]
        hidden = nn.functional.silu(self.gate(z[:, 0]))
        y = hidden @ self.second.weight[0]
        return y if self.second.bias is None else y + self.second.bias
