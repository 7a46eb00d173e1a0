"""One block: attention, then a feed-forward network, each with a residual connection."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.equiformer_v2_original.attention import Attention
from equipoise.backbones.equiformer_v2_original.config import EquiformerV2OriginalConfig
from equipoise.backbones.equiformer_v2_original.feed_forward import FeedForward
from equipoise.backbones.equiformer_v2_original.grid import SphereGrid
from equipoise.backbones.equiformer_v2_original.norms import make_norm
from equipoise.equivariant import SO3Linear


class Block(nn.Module):
    """Where the norms stand decides what the block is.

    "pre":  a = z + Att(n₁ z),      out = S a + FFN(n₂ a);
    "post": a = n₁(z + Att z),      out = n₃(S a + FFN a);
    "pp":   a = n₁(z + Att(n₁ z)),  out = n₃(S a + FFN(n₂ a)), with one and the same n₁.

    S is the identity, or a linear map where the block has to change the number of channels. Iterated to a fixed point, "pre"
    needs an injection that bounds the state; without one it has none.

    In training mode branches are dropped with rate ``path_drop`` per structure, and channels of an atom with rate
    ``projection_drop``, anew in every call: an implicit layer must use one mask per solve, or there is no map to solve.
    """

    def __init__(
        self,
        config: EquiformerV2OriginalConfig,
        channels: int,
        *,
        shared: int,
        edge_grid: SphereGrid,
        node_grid: SphereGrid,
        rows: tuple[tuple[int, int], ...],
    ):
        super().__init__()
        out = config.channels
        self.before, self.after = config.placement != "post", config.placement != "pre"
        self.path_drop, self.projection_drop = config.path_drop, config.projection_drop

        def norm(width: int) -> nn.Module:
            return make_norm(
                config.norm, config.lmax, width, scale=config.norm_scale, affine=config.norm_affine
            )

        self.attention = Attention(
            config, channels, channels, shared=shared, drop=config.alpha_drop, grid=edge_grid
        )
        self.ffn = FeedForward(config, channels, out, grid=node_grid, rows=rows)
        self.shortcut = SO3Linear(config.lmax, channels, out) if channels != out else None
        self.norm_attention = norm(channels)
        self.norm_ffn = norm(channels) if self.before else None
        self.norm_out = norm(out) if self.after else None
        self.norm_end = norm(out) if config.norm_block_end else None

    def forward(
        self,
        z: Float[Tensor, "atoms K C"],
        radial: Float[Tensor, "edges R twoC"],
        wigner: Float[Tensor, "edges M K"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        owner: Int[Tensor, " atoms"],
        structures: int,
    ) -> Float[Tensor, "atoms K O"]:
        """Arguments as in the context of the network; ``radial`` is this block's."""
        y = self.norm_attention(z) if self.before else z
        y = self.attention(y, radial, wigner, senders, receivers)
        z = z + self._drop(y, owner, structures)
        if self.after:
            z = self.norm_attention(z)
        y = self.ffn(z if self.norm_ffn is None else self.norm_ffn(z))
        z = z if self.shortcut is None else self.shortcut(z)
        z = z + self._drop(y, owner, structures)
        for norm in (self.norm_out, self.norm_end):
            z = z if norm is None else norm(z)
        return z

    def _drop(self, y: Tensor, owner: Tensor, structures: int) -> Tensor:
        if not self.training:
            return y
        if self.path_drop:
            y = y * _mask(y, structures, 1, self.path_drop)[owner]
        if self.projection_drop:
            y = y * _mask(y, len(y), y.shape[2], self.projection_drop)
        return y


def _mask(like: Tensor, rows: int, channels: int, rate: float) -> Tensor:
    kept = torch.rand(rows, 1, channels, dtype=like.dtype, device=like.device) >= rate
    return kept.to(like.dtype) / (1 - rate)
