"""The original EquiformerV2 as a backbone with its own heads."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equipoise.backbones.backbone import Backbone
from equipoise.backbones.equiformer_v2_original.attention import Attention
from equipoise.backbones.equiformer_v2_original.block import Block
from equipoise.backbones.equiformer_v2_original.config import EquiformerV2OriginalConfig
from equipoise.backbones.equiformer_v2_original.feed_forward import FeedForward
from equipoise.backbones.equiformer_v2_original.frames import check_frames, quaternion_of
from equipoise.backbones.equiformer_v2_original.grid import SphereGrid, truncation_scale
from equipoise.backbones.equiformer_v2_original.initialise import initialise, normalise_weights
from equipoise.backbones.equiformer_v2_original.injection import OriginalInjection
from equipoise.backbones.equiformer_v2_original.neighbours import nearest
from equipoise.backbones.equiformer_v2_original.norms import make_norm
from equipoise.backbones.equiformer_v2_original.radial import ElementPair, Gaussians, Radial
from equipoise.equivariant import SphericalSpace, Wigner, edge_quaternion, edge_rows
from equipoise.graph import Graph


class Context(NamedTuple):
    """What every pass needs and no pass changes."""

    wigner: Float[Tensor, "edges M K"]  # to the frame of each edge
    radial: Float[Tensor, "edges W"]  # message weights of all blocks, then of the force head
    degree: Float[Tensor, "edges lmax+1 C"]  # weights of the edge-degree embedding
    element: Int[Tensor, " atoms"]  # atomic numbers
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    owner: Int[Tensor, " atoms"]
    atoms: Int[Tensor, " structures"]  # number of atoms of each structure


class OriginalPrediction(NamedTuple):
    """What the heads say, in units of the training set's normalisation."""

    energy: Float[Tensor, " structures"] | None
    forces: Float[Tensor, "atoms 3"] | None


class EquiformerV2Original(Backbone):
    r"""EquiformerV2 as published, for loading its weights and for fair comparison.

    For anything else use :class:`equipoise.backbones.EquiformerV2`. Known violations, which are the original's:

    - Sampled activations are equivariant up to aliasing only, so predictions depend on how the structure is oriented and on the
      roll of the edge frames. Untrained, on a grid of 14 x 14 points: forces to 5e-5 and energies to 8e-8 of the largest; with
      ``grid=None`` and "separable_s2" throughout, forces to 15 %. Trained weights differ:
      :func:`equipoise.backbones.equiformer_v2_original.violations` measures it. Gates ("gate") are exact.
    - A mirror image has another energy: messages mix cosine and sine parts, and features carry no parity.
    - Nothing is smooth at the cutoff, and a cap on neighbours jumps as well: no long molecular dynamics with it.
    - Forces of the head are no derivatives of the energy.

    Different from the published code: the roll is a deterministic function of the edge, not random, and derivatives flow
    through the frames, so that derivatives of the energy are right. Dropout acts in training mode only and draws anew in every
    call. An implicit layer must use one mask for a whole solve, or there is no map to solve: leave the rates at 0 there.

    Source: Liao, Wood, Das and Smidt, EquiformerV2 (2024), arXiv:2306.12059.

    Args:
      config: settings.
    """

    site = "node"

    def __init__(self, config: EquiformerV2OriginalConfig):
        super().__init__()
        self.config = config
        lmax, mmax, channels = config.lmax, config.mmax, config.channels
        self.space = SphericalSpace(lmax, channels)
        edge = edge_rows(lmax, mmax)
        node = tuple((degree, m) for degree in range(lmax + 1) for m in range(-degree, degree + 1))
        self.edge_grid = edge_grid = SphereGrid(lmax, mmax, edge, config.grid)
        self.node_grid = node_grid = SphereGrid(lmax, lmax, node, config.grid)
        shared = 2 * config.edge_channels if config.edge_elements == "shared" else 0
        self.gaussians = Gaussians(config.gaussians, config.cutoff)
        self.wigner = Wigner(lmax, mmax)
        self.elements = nn.Embedding(config.elements, channels)
        self.pair = ElementPair(config.elements, config.edge_channels) if shared else None
        self.degree = Radial(
            config.gaussians,
            config.edge_channels,
            (lmax + 1) * channels,
            extra=shared,
            elements=config.elements if config.edge_elements == "block" else None,
        )
        scale = truncation_scale(lmax, mmax, edge[: lmax + 1]) / config.average_degree
        self.register_buffer("degree_scale", scale.unsqueeze(1), persistent=False)
        self.norm_start = (
            make_norm(config.norm, lmax, channels, scale="component") if config.norm_start else None
        )
        self.injection = None
        if config.injection is not None:
            self.injection = OriginalInjection(
                config.injection, config.injection_norm, components=len(node), channels=channels
            )
        self.blocks = nn.ModuleList(
            Block(
                config,
                2 * channels if i == 0 and config.injection == "cat" else channels,
                shared=shared,
                edge_grid=edge_grid,
                node_grid=node_grid,
                rows=node,
            )
            for i in range(config.layers)
        )
        self.norm = make_norm(config.norm, lmax, channels, scale="component")
        self.energy = self.force = None
        if config.energy_head:
            self.energy = FeedForward(config, channels, 1, grid=node_grid, rows=node)
        if config.force_head:
            drop = config.head_alpha_drop
            self.force = Attention(config, channels, 1, shared=shared, drop=drop, grid=edge_grid)
        initialise(self, config.initialisation)
        if config.weight_norm:
            normalise_weights(self.blocks)

    def encode(
        self,
        graph: Graph,
        vectors: Float[Tensor, "edges 3"],
        *,
        frames: Float[Tensor, "edges 3 3"] | None = None,
    ) -> Context:
        """Everything that does not depend on z.

        Args:
          graph, vectors: as in :class:`equipoise.backbones.Backbone`.
          frames: rotation matrices R with R n = (0, 1, 0), n from receiver to sender, instead of our own; taken as constants.

        Raises:
          ValueError: for an element without a row in the tables, or frames that do not fit the edges.
        """
        config, dtype = self.config, self.elements.weight.dtype
        self._check_elements(graph.species)
        senders, receivers = graph.senders, graph.receivers
        # The original measures edges from the receiver.
        vectors = -vectors
        distance = vectors.norm(dim=1)
        unit = vectors / distance.unsqueeze(1)
        if frames is None:
            quaternion = edge_quaternion(unit)
        else:
            quaternion = quaternion_of(check_frames(frames, unit.to(frames.dtype))).to(unit.dtype)
        if config.max_neighbours is not None:
            kept = nearest(distance.detach(), receivers, graph.n_atoms, config.max_neighbours)
            senders, receivers, distance, quaternion = (
                x.index_select(0, kept) for x in (senders, receivers, distance, quaternion)
            )
        basis = self.gaussians(distance).to(dtype)
        source, target = graph.species[senders], graph.species[receivers]
        if self.pair is not None:
            basis = torch.cat([basis, self.pair(source, target)], dim=1)
        radial = [module.radial(basis, source, target) for module in self._attentions()]
        degree = self.degree(basis, source, target).unflatten(1, (-1, config.channels))
        return Context(
            wigner=self.wigner(quaternion).to(dtype),
            radial=torch.cat(radial, dim=1),
            degree=degree * self.degree_scale.to(dtype),
            element=graph.species,
            senders=senders,
            receivers=receivers,
            owner=graph.owner,
            atoms=torch.bincount(graph.owner, minlength=graph.n_structures),
        )

    def start(self, context: Context) -> Float[Tensor, "atoms K C"]:
        """Element embedding plus Σ_j r(d_ij) Y(n_ij) / ⟨degree⟩."""
        axial = context.wigner[:, : self.config.lmax + 1].mT @ context.degree
        z = torch.zeros(
            len(context.element), *self.space.shape, dtype=axial.dtype, device=axial.device
        )
        z = z.index_add(0, context.receivers, axial)
        scalars = self.elements(context.element).unsqueeze(1)
        z = z + nn.functional.pad(scalars, (0, 0, 0, z.shape[1] - 1))
        return z if self.norm_start is None else self.norm_start(z)

    def update(self, z: Float[Tensor, "atoms K D"], context: Context) -> Float[Tensor, "atoms K C"]:
        """All blocks, once. With injection "cat" z has 2C channels, z and u side by side; see :meth:`step`."""
        edges = self.edges(context)
        # One more set of weights may follow, that of the force head.
        for block, radial in zip(self.blocks, self.split_radial(context), strict=False):
            z = block(z, radial, *edges)
        return z

    def edges(self, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What a block takes after the state and its radial weights."""
        return (
            context.wigner,
            context.senders,
            context.receivers,
            context.owner,
            len(context.atoms),
        )

    def split_radial(self, context: Context) -> list[Tensor]:
        """The radial weights of each block, then of the force head, [edges, R, 2C]."""
        shapes = [attention.radial_shape for attention in self._attentions()]
        parts = context.radial.split([rows * width for rows, width in shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def step(
        self, z: Float[Tensor, "atoms K C"], source: Float[Tensor, "atoms K C"], context: Context
    ) -> Float[Tensor, "atoms K C"]:
        """The map of the implicit layer, update(inject(z, source)); ``source`` is :meth:`start`.

        Raises:
          ValueError: without an injection.
        """
        if self.injection is None:
            raise ValueError("step needs config.injection, received None; use update instead")
        return self.update(self.injection(z, source, structures=len(context.atoms)), context)

    def readout(self, z: Float[Tensor, "atoms K C"], context: Context) -> Float[Tensor, "atoms C"]:
        """The scalars after the final norm: what the energy head sees of them."""
        return self.space.scalars(self.norm(z))

    def atomic_energies(self, z: Float[Tensor, "atoms K C"]) -> Float[Tensor, " atoms"]:
        """The energy head, before the division by the average number of atoms."""
        if self.energy is None:
            raise ValueError("there is no energy head; build with energy_head=True")
        return self.energy.scalars(self.norm(z)).squeeze(1)

    def direct_forces(
        self, z: Float[Tensor, "atoms K C"], context: Context
    ) -> Float[Tensor, "atoms 3"]:
        """The force head."""
        if self.force is None:
            raise ValueError("there is no force head; build with force_head=True")
        radial = self.split_radial(context)[-1]
        edges = (context.wigner, context.senders, context.receivers)
        return self.force(self.norm(z), radial, *edges)[:, 1:4, 0]

    def decode(self, z: Float[Tensor, "atoms K C"], context: Context) -> OriginalPrediction:
        """Both heads. Energies are sums over atoms divided by ``average_atoms``."""
        energy = forces = None
        if self.energy is not None:
            atomic = self.atomic_energies(z)
            total = torch.zeros(len(context.atoms), dtype=z.dtype, device=z.device)
            energy = total.index_add(0, context.owner, atomic) / self.config.average_atoms
        if self.force is not None:
            forces = self.direct_forces(z, context)
        return OriginalPrediction(energy, forces)

    def forward(
        self, graph: Graph, *, frames: Float[Tensor, "edges 3 3"] | None = None
    ) -> OriginalPrediction:
        """The explicit network: start, update once, decode.

        Raises:
          ValueError: for a configuration with an injection, which has to be solved for its fixed point.
        """
        if self.injection is not None:
            raise ValueError(
                f"an implicit layer (injection={self.config.injection!r}) has no explicit pass; solve z = step(z, start, context)"
            )
        context = self.encode(graph, graph.edge_vectors(), frames=frames)
        return self.decode(self.update(self.start(context), context), context)

    def _attentions(self) -> list[Attention]:
        attentions = [block.attention for block in self.blocks]
        return attentions if self.force is None else [*attentions, self.force]

    def _check_elements(self, species: Int[Tensor, " atoms"]) -> None:
        heaviest = int(species.max()) if len(species) else 0
        if heaviest >= self.config.elements:
            raise ValueError(
                f"atomic numbers must be < elements={self.config.elements}, received {heaviest}"
            )
