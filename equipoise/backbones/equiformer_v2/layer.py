"""One block: attention over neighbours, then a product on the sphere at each atom."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.edge_sum import edge_sum
from equipoise.backbones.equiformer_v2.config import EquiformerV2Config
from equipoise.equivariant import (
    EquivariantNorm,
    SO2Linear,
    SO3Linear,
    SphereProduct,
    edge_gate,
    split_orders,
)


class Edges(NamedTuple):
    """The edges as one layer sees them.

    Attributes:
      senders, receivers: atoms.
      tensors: wigner, radial and envelope of each edge, or what ``geometry`` makes them of.
      geometry: None, or the function that does, chunk after chunk and pass after pass: for systems so large that the geometry of
        all edges at once, 3 kB each, would not fit into the memory.
    """

    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    tensors: tuple[Tensor, ...]
    geometry: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None


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
        self.degrees = lmax, mmax
        self.kinds = [lmax + 1 - m for m in range(mmax + 1)]
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

    def forward(self, z: Float[Tensor, "atoms K C"], edges: Edges) -> Float[Tensor, "atoms K C"]:
        """One sum over neighbours."""
        ends = self.ends(z).unflatten(2, (2, -1)).movedim(2, 0)
        # Rows that lie together, once per atom: the edges gather them many times.
        source, target = ends.contiguous()
        # The sums of weighted messages and of weights together; their quotient is the soft-max, chunk by chunk.
        weight, message = edge_sum(
            partial(self._messages, edges.geometry),
            edges.receivers,
            len(z),
            [(source, edges.senders), (target, edges.receivers)],
            edges.tensors,
            recompute=edges.geometry is not None,
        )
        message = message.unflatten(2, (self.heads, self.width)) / (1 + weight)[:, None, :, None]
        return self.out(message.flatten(2))

    def _messages(
        self, geometry, source, target, *tensors
    ) -> tuple[Float[Tensor, "edges heads"], Float[Tensor, "edges K hidden"]]:
        """u e^s of each edge, and u² e^s Dᵀ m."""
        wigner, radial, envelope = tensors if geometry is None else geometry(*tensors)
        message = source + target
        parts = split_orders(torch.bmm(wigner, message), *self.degrees)
        # Weights of one |m| serve its cosine and its sine part.
        weights = radial.split(self.kinds, dim=1)
        weights = [weights[0], *[w for weight in weights[1:] for w in (weight, weight)]]
        parts = [part * weight for part, weight in zip(parts, weights, strict=True)]
        parts, extra = self.first(parts)
        gate, features = extra.chunk(2, dim=1)
        parts, _ = self.second(edge_gate(parts, gate))
        weight = envelope.unsqueeze(1) * self._score(features).exp()
        spread = (weight * envelope.unsqueeze(1)).repeat_interleave(self.width, dim=1).unsqueeze(1)
        message = torch.cat([part * spread for part in parts], dim=1)
        return weight, torch.bmm(wigner.transpose(1, 2), message)

    def _score(self, features: Float[Tensor, "edges hidden"]) -> Float[Tensor, "edges heads"]:
        features = self.score_norm(features.unflatten(1, (self.heads, self.width)))
        # A smooth leaky ReLU: 0.2 x for x → -∞, x for x → ∞.
        features = 0.2 * features + 0.8 * features * features.sigmoid()
        # LayerNorm bounds the score; exp needs no running maximum (which would be one more pass over the edges).
        return (features * self.score).sum(-1).clamp(max=30.0)


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

    def forward(self, z: Float[Tensor, "atoms K C"], edges: Edges) -> Float[Tensor, "atoms K C"]:
        if self.post:
            z = self.norm_attention(z + self.attention(z, edges))
            return self.norm_ffn(z + self.ffn(z))
        z = z + self.attention(self.norm_attention(z), edges)
        return z + self.ffn(self.norm_ffn(z))
