"""Graph attention with SO(2) messages, as in the original."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.equiformer_v2_original.activations import make_activation
from equipoise.backbones.equiformer_v2_original.config import EquiformerV2OriginalConfig
from equipoise.backbones.equiformer_v2_original.grid import SphereGrid, truncation_scale
from equipoise.backbones.equiformer_v2_original.radial import Radial
from equipoise.backbones.equiformer_v2_original.so2 import SO2Convolution, radial_count
from equipoise.equivariant import SO3Linear, edge_rows


class Attention(nn.Module):
    r"""m_e = SO2₂(act(SO2₁(r_e ∘ D_e [z_j, z_i]))),  a_eh = softmax_{e→i}(w_h · σ'(LN(f_eh))),  out_i = W Σ_{e→i} D_eᵀ S (a_e m_e).

    S enlarges degrees above mmax by √((2l+1)/(2mmax+1)). There is no envelope: messages and soft-max jump at the cutoff.

    Source: Liao et al., EquiformerV2 (2024), section 4 and appendix A.

    Args:
      config: settings.
      channels: channels of the input.
      out_channels: channels of the output.
      shared: width of element embeddings that the radial network is given from outside.
      drop: rate at which attention weights are dropped in training mode, anew in every call; a fixed-point map needs one mask
        for a whole solve.
    """

    def __init__(
        self,
        config: EquiformerV2OriginalConfig,
        channels: int,
        out_channels: int,
        *,
        shared: int,
        drop: float,
        grid: SphereGrid,
    ):
        super().__init__()
        lmax, mmax, hidden = config.lmax, config.mmax, config.hidden
        self.heads, self.values = config.heads, config.value_channels
        self.alpha_channels, self.drop = config.alpha_channels, drop
        self.share_m = config.share_m_radial
        rows = edge_rows(lmax, mmax)
        count = lmax + 1 if self.share_m else radial_count(lmax, mmax)
        self.radial_shape = (count, 2 * channels)
        self.radial = Radial(
            config.gaussians,
            config.edge_channels,
            count * 2 * channels,
            extra=shared,
            elements=config.elements if config.edge_elements == "block" else None,
        )
        self.activation, self.gates = make_activation(
            config.attention_activation, rows, grid, lmax, hidden
        )
        features = self.heads * self.alpha_channels
        self.first = SO2Convolution(lmax, mmax, 2 * channels, hidden, extra=features + self.gates)
        width = self.heads * self.values
        self.second = SO2Convolution(lmax, mmax, hidden, width)
        self.score_norm = nn.LayerNorm(self.alpha_channels) if config.renormalise else nn.Identity()
        self.score = nn.Parameter(torch.empty(self.heads, self.alpha_channels))
        nn.init.uniform_(self.score, -(self.alpha_channels**-0.5), self.alpha_channels**-0.5)
        self.out = SO3Linear(lmax, width, out_channels)
        scale = truncation_scale(lmax, mmax, rows)
        self.register_buffer("enlarge", scale.unsqueeze(1), persistent=False)
        degree = torch.tensor([degree for degree, _ in rows])
        self.register_buffer("degree", degree, persistent=False)

    def forward(
        self,
        z: Float[Tensor, "atoms K C"],
        radial: Float[Tensor, "edges R twoC"],
        wigner: Float[Tensor, "edges M K"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
    ) -> Float[Tensor, "atoms K O"]:
        """``radial`` are the weights that :attr:`radial` gives, in the shape :attr:`radial_shape`."""
        message = torch.cat([z.index_select(0, senders), z.index_select(0, receivers)], dim=2)
        message = wigner @ message
        if self.share_m:
            # Weights that depend on l alone commute with the rotation.
            message, extra = self.first(message * radial.index_select(1, self.degree))
        else:
            message, extra = self.first(message, radial)
        features, gate = extra.split([extra.shape[1] - self.gates, self.gates], dim=1)
        message, _ = self.second(self.activation(message, gate if self.gates else None))
        weight = softmax(self._scores(features), receivers, len(z))
        weight = nn.functional.dropout(weight, self.drop, self.training)
        message = message.unflatten(2, (self.heads, self.values)) * weight[:, None, :, None]
        message = message.flatten(2) * self.enlarge.to(z.dtype)
        message = wigner.mT @ message
        gathered = z.new_zeros(len(z), *message.shape[1:])
        return self.out(gathered.index_add(0, receivers, message))

    def _scores(self, features: Float[Tensor, "edges HA"]) -> Float[Tensor, "edges heads"]:
        features = self.score_norm(features.unflatten(1, (self.heads, self.alpha_channels)))
        # The smooth leaky ReLU of slope 0.2: 0.6 x + 0.4 x (2 σ(x) - 1).
        features = 0.2 * features + 0.8 * features * features.sigmoid()
        return (features * self.score).sum(2)


def softmax(
    score: Float[Tensor, "edges heads"], receivers: Int[Tensor, " edges"], atoms: int
) -> Float[Tensor, "edges heads"]:
    """exp(s_e) / (Σ_{e'→i} exp(s_e') + 1e-16), shifted by the largest score of each receiver."""
    index = receivers.unsqueeze(1).expand_as(score)
    largest = torch.zeros(atoms, score.shape[1], dtype=score.dtype, device=score.device)
    largest = largest.scatter_reduce(0, index, score.detach(), "amax", include_self=False)
    weight = (score - largest.index_select(0, receivers)).exp()
    total = torch.zeros_like(largest).index_add(0, receivers, weight) + 1e-16
    return weight / total.index_select(0, receivers)
