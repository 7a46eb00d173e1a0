"""One block: attention over neighbours, then a product on the sphere at each atom."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.backbones.equiformer_v2.config import EquiformerV2Config
from equipoise.equivariant import EquivariantNorm, SO2Linear, SO3Linear, SphereProduct, edge_gate


class Attention(nn.Module):
    r"""Graph attention with SO(2) messages.

    m_e = SO2₂(gate(SO2₁(r_e ∘ D_e (W_s z_j + W_t z_i)))),   a_eh = u(d) e^{s_eh} / (1 + Σ_{e'→i} u(d') e^{s_e'h}),
    out_i = W Σ_{e→i} u(d) D_eᵀ (a_e m_e).

    The envelope u stands in the message and in the soft-max, and the soft-max has a constant 1 in its denominator: an atom that
    loses its last neighbour loses it smoothly. There is no cap on the number of neighbours.

    Source: Liao et al., EquiformerV2 (2024), section 4. Different here: source and target are projected on the atoms before the
    edge rotation (E/N times less work, the same maps), gate instead of a sampled S2 activation (exactly equivariant).
    """

    def __init__(self, config: EquiformerV2Config):
        super().__init__()
        lmax, mmax, hidden = config.lmax, config.mmax, config.hidden
        self.heads, self.width = config.heads, hidden // config.heads
        self.ends = SO3Linear(lmax, config.channels, 2 * hidden, gain=0.5**0.5)
        self.first = SO2Linear(
            lmax, mmax, hidden, hidden, extra_scalars=2 * hidden, reflection=config.reflection
        )
        self.second = SO2Linear(lmax, mmax, hidden, hidden, reflection=config.reflection)
        self.score_norm = nn.LayerNorm(hidden // config.heads)
        self.score = nn.Parameter(
            torch.randn(config.heads, hidden // config.heads) * (config.heads / hidden) ** 0.5
        )
        self.out = SO3Linear(lmax, hidden, config.channels)

    def forward(
        self, z, radial, envelope, wigner, senders, receivers
    ) -> Float[Tensor, "atoms K C"]:
        """Arguments as in the context of the network; ``radial`` is this layer's."""
        source, target = self.ends(z).chunk(2, dim=2)
        # index_select rather than indexing: its derivative is an index_add, several times faster than an index_put.
        message = wigner @ (source.index_select(0, senders) + target.index_select(0, receivers))
        message, extra = self.first(message * radial)
        gate, features = extra.chunk(2, dim=1)
        message, _ = self.second(edge_gate(message, gate))
        weight = self._weights(features, envelope, receivers, len(z)) * envelope.unsqueeze(1)
        message = message.unflatten(2, (self.heads, self.width)) * weight[:, None, :, None]
        message = wigner.transpose(1, 2) @ message.flatten(2)
        gathered = torch.zeros(len(z), *message.shape[1:], dtype=z.dtype, device=z.device)
        return self.out(gathered.index_add(0, receivers, message))

    def _weights(self, features, envelope, receivers, atoms: int) -> Float[Tensor, "edges heads"]:
        features = self.score_norm(features.unflatten(1, (self.heads, self.width)))
        # A smooth leaky ReLU: 0.2 x for x → -∞, x for x → ∞.
        features = 0.2 * features + 0.8 * features * features.sigmoid()
        score = (features * self.score).sum(-1)
        # LayerNorm bounds the score; exp needs no running maximum (which would be one more pass over the edges).
        weight = envelope.unsqueeze(1) * score.clamp(max=30.0).exp()
        total = torch.ones(atoms, self.heads, dtype=weight.dtype, device=weight.device)
        return weight / total.index_add(0, receivers, weight).index_select(0, receivers)


class FeedForward(nn.Module):
    """out = W₂ (σ(g(z_0)) ∘ (a ⊙ b) + s(z_0)), (a, b) = W₁ z: a product of functions on the sphere at each atom.

    ⊙ mixes all degrees (even-parity Clebsch–Gordan paths) and is exact; see :class:`equipoise.equivariant.SphereProduct`.
    """

    def __init__(self, config: EquiformerV2Config):
        super().__init__()
        self.factors = SO3Linear(config.lmax, config.channels, 2 * config.ffn)
        self.scalars = nn.Linear(config.channels, 2 * config.ffn)
        self.product = SphereProduct(config.lmax)
        self.out = SO3Linear(config.lmax, config.ffn, config.channels, gain=0.1)

    def forward(self, z: Float[Tensor, "atoms K C"]) -> Float[Tensor, "atoms K C"]:
        a, b = self.factors(z).chunk(2, dim=2)
        gate, scalar = self.scalars(z[:, 0]).chunk(2, dim=1)
        y = self.product(a, b) * gate.sigmoid().unsqueeze(1)
        scalars, rest = y.split([1, y.shape[1] - 1], dim=1)
        scalars = scalars + nn.functional.silu(scalar).unsqueeze(1)
        return self.out(torch.cat([scalars, rest], dim=1))


class Block(nn.Module):
    """Post-norm: h = norm(z + attention(z)), z' = norm(h + ffn(h)). Pre-norm: h = z + attention(norm z), z' = h + ffn(norm h)."""

    def __init__(self, config: EquiformerV2Config):
        super().__init__()
        self.post = config.norm == "post"
        self.attention = Attention(config)
        self.ffn = FeedForward(config)
        self.norm_attention = EquivariantNorm(config.lmax, config.channels)
        self.norm_ffn = EquivariantNorm(config.lmax, config.channels)

    def forward(self, z, *edges) -> Float[Tensor, "atoms K C"]:
        if self.post:
            z = self.norm_attention(z + self.attention(z, *edges))
            return self.norm_ffn(z + self.ffn(z))
        z = z + self.attention(self.norm_attention(z), *edges)
        return z + self.ffn(self.norm_ffn(z))
