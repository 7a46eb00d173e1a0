"""The EquiformerV2 backbone: embeddings, edge geometry, blocks, read-out."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.backbone import Backbone
from equipoise.backbones.cutoff import Bessel, envelope
from equipoise.backbones.equiformer_v2.config import EquiformerV2Config
from equipoise.backbones.equiformer_v2.layer import Block
from equipoise.equivariant import SphericalSpace, Wigner, edge_quaternion, edge_rows
from equipoise.graph import Graph


class Context(NamedTuple):
    """What every pass needs and no pass changes."""

    wigner: Float[Tensor, "edges M K"]  # to the frame of each edge
    radial: Float[Tensor, "layers edges M hidden"]  # message weights
    degree: Float[
        Tensor, "edges lmax+1 C"
    ]  # weights of the edge-degree embedding, envelope included
    envelope: Float[Tensor, " edges"]
    element: Int[Tensor, " atoms"]  # index into the potential's elements
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]


class EquiformerV2(Backbone):
    """EquiformerV2 with smooth radial functions, exact frames and exactly equivariant activations.

    Conservative forces need an energy that is a smooth function of positions: no random roll, no neighbour cap, an envelope
    everywhere, and derivatives through the frames.

    Source: Liao, Wood, Das and Smidt, EquiformerV2 (2024), arXiv:2306.12059.

    Args:
      config: settings.
      elements: atomic numbers that the network knows.
      mean_neighbours: average number of edges per atom in the training set; scales sums over neighbours.
    """

    site = "node"

    def __init__(
        self, config: EquiformerV2Config, *, elements: tuple[int, ...], mean_neighbours: float
    ):
        super().__init__()
        self.config = config
        self.space = SphericalSpace(config.lmax, config.channels)
        self.scale = max(mean_neighbours, 1.0) ** -0.5
        count, width = len(elements), config.radial_hidden
        lookup = torch.full((119,), -1, dtype=torch.int64)
        lookup[list(elements)] = torch.arange(count)
        self.register_buffer("lookup", lookup, persistent=False)
        rows = edge_rows(config.lmax, config.mmax)
        # One radial weight per degree and |m|, shared by the cosine and the sine part.
        kinds = sorted({(degree, abs(m)) for degree, m in rows})
        self.register_buffer(
            "kind", torch.tensor([kinds.index((d, abs(m))) for d, m in rows]), persistent=False
        )
        self.bessel = Bessel(config.radial, config.cutoff)
        self.wigner = Wigner(config.lmax, config.mmax)
        self.atoms = nn.Embedding(count, config.channels)
        self.pairs = nn.Embedding(count * count, width)
        self.radial = nn.Linear(config.radial, width)
        self.hidden = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.messages = nn.Linear(width, config.layers * len(kinds) * config.hidden)
        self.degrees = nn.Linear(width, (config.lmax + 1) * config.channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        for linear in (self.radial, self.hidden[1], self.messages, self.degrees):
            # Weights of order one for each edge; torch's default shrinks them threefold at every layer.
            nn.init.normal_(linear.weight, std=(2.0 / linear.in_features) ** 0.5)

    def encode(self, graph: Graph, vectors: Float[Tensor, "edges 3"]) -> Context:
        config, dtype = self.config, self.atoms.weight.dtype
        distance = vectors.norm(dim=-1)
        unit = (vectors / distance.unsqueeze(-1)).to(dtype)
        distance = distance.to(dtype)
        element = self.lookup[graph.species]
        pair = element[graph.senders] * self.atoms.num_embeddings + element[graph.receivers]
        cut = envelope(distance, config.cutoff)
        hidden = self.hidden(
            self.radial(self.bessel(distance) * cut.unsqueeze(1)) + self.pairs(pair)
        )
        weights = (
            self.messages(hidden).unflatten(1, (config.layers, -1, config.hidden)).transpose(0, 1)
        )
        degree = (
            self.degrees(hidden).unflatten(1, (config.lmax + 1, config.channels))
            * cut[:, None, None]
        )
        return Context(
            wigner=self.wigner(edge_quaternion(unit)),
            radial=weights[:, :, self.kind],
            degree=degree,
            envelope=cut,
            element=element,
            senders=graph.senders,
            receivers=graph.receivers,
        )

    def start(self, context: Context) -> Float[Tensor, "atoms K C"]:
        """Element embedding plus Σ_j r(d_ij) Y(n_ij), which the m = 0 rows of the frame give for nothing."""
        axial = context.wigner[:, : self.config.lmax + 1].transpose(1, 2)
        edges = (axial @ context.degree) * self.scale
        z = torch.zeros(
            len(context.element), *self.space.shape, dtype=edges.dtype, device=edges.device
        )
        z = z.index_add(0, context.receivers, edges)
        return z + nn.functional.pad(
            self.atoms(context.element).unsqueeze(1), (0, 0, 0, z.shape[1] - 1)
        )

    def update(self, z: Float[Tensor, "atoms K C"], context: Context) -> Float[Tensor, "atoms K C"]:
        for block, radial in zip(self.blocks, context.radial, strict=True):
            z = block(
                z, radial, context.envelope, context.wigner, context.senders, context.receivers
            )
        return z

    def readout(self, z: Float[Tensor, "atoms K C"], context: Context) -> Float[Tensor, "atoms C"]:
        return self.space.scalars(z)
