"""The EquiformerV2 backbone: embeddings, edge geometry, blocks, read-out."""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.backbone import Backbone
from equipoise.backbones.cutoff import Bessel, envelope
from equipoise.backbones.edge_sum import edge_sum
from equipoise.backbones.equiformer_v2.config import EquiformerV2Config
from equipoise.backbones.equiformer_v2.layer import Block, Edges
from equipoise.equivariant import SphericalSpace, Wigner, edge_quaternion, edge_rows
from equipoise.graph import Graph

# Edges above which nothing of theirs is stored (3 kB of geometry each, and 40 kB of intermediates where derivatives are wanted)
# but computed again at every pass, a thousand at a time.
MOST_STORED = 65536


class Context(NamedTuple):
    """What every pass needs and no pass changes. Of very many edges, ``wigner``, ``radial`` and ``envelope`` are empty."""

    embedding: Float[Tensor, "atoms K C"]
    wigner: Float[Tensor, "stored M K"]  # to the frame of each edge
    radial: Float[Tensor, "layers stored kinds hidden"]  # message weights, by |m| and degree
    envelope: Float[Tensor, " stored"]
    vectors: Float[Tensor, "edges 3"]  # Å
    pair: Int[Tensor, " edges"]  # index of the two elements
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
        # One radial weight per degree and |m|, shared by the cosine and the sine part. The weights of the radial network are
        # stored by degree, messages want them by |m|.
        kinds = sorted({(degree, abs(m)) for degree, m in edge_rows(config.lmax, config.mmax)})
        by_order = sorted(range(len(kinds)), key=lambda k: (kinds[k][1], kinds[k][0]))
        self.register_buffer("by_order", torch.tensor(by_order), persistent=False)
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
        """The geometry of the edges, and the embedding: element plus Σ_j r(d_ij) Y(n_ij)."""
        element = self.lookup[graph.species]
        pair = element[graph.senders] * self.atoms.num_embeddings + element[graph.receivers]
        embedding = nn.functional.pad(
            self.atoms(element).unsqueeze(1), (0, 0, 0, self.space.shape[0] - 1)
        )
        if not self.recomputes(graph):
            wigner, hidden, cut = self._frames(vectors, pair)
            radial = torch.stack([self._radial(hidden, i) for i in range(self.config.layers)])
            edges = self._degrees(wigner, hidden, cut)
            embedding = embedding.index_add(0, graph.receivers, edges)
        else:
            wigner, hidden, cut = self._frames(vectors[:0], pair[:0])
            radial = self._radial(hidden, 0).expand(self.config.layers, -1, -1, -1)
            (edges,) = edge_sum(
                lambda *some: (self._degrees(*self._frames(*some)),),
                graph.receivers,
                len(element),
                [],
                (vectors, pair),
                recompute=True,
            )
            embedding = embedding + edges
        return Context(
            embedding=embedding,
            wigner=wigner,
            radial=radial,
            envelope=cut,
            vectors=vectors,
            pair=pair,
            senders=graph.senders,
            receivers=graph.receivers,
        )

    def recomputes(self, graph: Graph) -> bool:
        return graph.n_edges > MOST_STORED and not self.training

    def _frames(
        self, vectors: Float[Tensor, "edges 3"], pair: Int[Tensor, " edges"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Wigner blocks, features of the radial network, and envelope."""
        distance = vectors.norm(dim=-1)
        unit = (vectors / distance.unsqueeze(-1)).to(self.atoms.weight.dtype)
        distance = distance.to(unit.dtype)
        cut = envelope(distance, self.config.cutoff)
        bessel = self.bessel(distance) * cut.unsqueeze(1)
        hidden = self.hidden(self.radial(bessel) + self.pairs(pair))
        return self.wigner(edge_quaternion(unit)), hidden, cut

    def _radial(
        self, hidden: Float[Tensor, "edges width"], layer: int
    ) -> Float[Tensor, "edges kinds hidden"]:
        """Message weights of one layer."""
        shape = self.config.layers, len(self.by_order), self.config.hidden
        weight = self.messages.weight.unflatten(0, shape)[layer].index_select(0, self.by_order)
        bias = self.messages.bias.unflatten(0, shape)[layer].index_select(0, self.by_order)
        weights = nn.functional.linear(hidden, weight.flatten(0, 1), bias.flatten())
        return weights.unflatten(1, shape[1:])

    def _degrees(self, wigner, hidden, cut) -> Float[Tensor, "edges K C"]:
        """r(d) Y(n) of each edge, which the m = 0 rows of the frame give for nothing."""
        shape = self.config.lmax + 1, self.config.channels
        weights = self.degrees(hidden).unflatten(1, shape) * (cut * self.scale)[:, None, None]
        return wigner[:, : shape[0]].transpose(1, 2) @ weights

    def start(self, context: Context) -> Float[Tensor, "atoms K C"]:
        """The embedding."""
        return context.embedding

    def update(self, z: Float[Tensor, "atoms K C"], context: Context) -> Float[Tensor, "atoms K C"]:
        stored = len(context.wigner) == len(context.vectors)
        for layer, block in enumerate(self.blocks):
            if stored:
                edges = context.wigner, context.radial[layer], context.envelope
                geometry = None
            else:
                edges = context.vectors, context.pair
                geometry = partial(self._geometry, layer)
            z = block(z, Edges(context.senders, context.receivers, edges, geometry))
        return z

    def _geometry(self, layer: int, vectors: Tensor, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a layer needs to know of some edges."""
        wigner, hidden, cut = self._frames(vectors, pair)
        return wigner, self._radial(hidden, layer), cut

    def readout(self, z: Float[Tensor, "atoms K C"], context: Context) -> Float[Tensor, "atoms C"]:
        return self.space.scalars(z)
