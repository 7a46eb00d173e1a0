"""By how much the original violates the symmetries it is meant to have."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.backbones.equiformer_v2_original.frames import rotation_of
from equipoise.backbones.equiformer_v2_original.network import (
    EquiformerV2Original,
    OriginalPrediction,
)
from equipoise.equivariant import edge_quaternion
from equipoise.graph import Graph


@dataclass(frozen=True)
class Violations:
    """Largest deviation over the largest value, of energies and of direct forces; NaN where there is no such head.

    Attributes:
      rotation_energy, rotation_forces: after random rotations of the structure.
      roll_energy, roll_forces: after random turns of each edge frame about its edge, which should be invisible. The part of the
        noise that the original adds at every call.
      inversion_energy, inversion_forces: between a structure and its mirror image. Of order one, and no matter of resolution:
        the features carry no parity.
    """

    rotation_energy: float
    rotation_forces: float
    roll_energy: float
    roll_forces: float
    inversion_energy: float
    inversion_forces: float


def violations(
    network: EquiformerV2Original, graph: Graph, *, trials: int = 4, seed: int = 0
) -> Violations:
    """Measure one pass from the start of ``network`` in evaluation mode on ``graph``.

    Measure in float64: in float32 rounding hides what a fine grid leaves. Untrained weights flatter; measure trained ones.

    Args:
      network, graph: what to measure.
      trials: random rotations and rolls each; the worst counts.
      seed: of these.
    """
    training = network.training
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    vectors = graph.edge_vectors()
    unit = -torch.nn.functional.normalize(vectors, dim=1)
    frames = rotation_of(edge_quaternion(unit))
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    turned, rolled = [], []
    with torch.no_grad():
        plain = _one_pass(network, graph, vectors)
        for _ in range(trials):
            quaternion = torch.randn(1, 4, generator=generator, dtype=torch.float64)
            turn = rotation_of(torch.nn.functional.normalize(quaternion, dim=1))[0].to(vectors)
            other = _one_pass(network, graph, vectors @ turn.T)
            turned.append(_compare(plain, other, turn))
            angle = 2 * math.pi * torch.rand(len(vectors), generator=generator, dtype=torch.float64)
            other = _one_pass(network, graph, vectors, _roll(angle.to(vectors)) @ frames)
            rolled.append(_compare(plain, other, identity))
        mirrored = _compare(plain, _one_pass(network, graph, -vectors), -identity)
    network.train(training)
    return Violations(*_worst(turned), *_worst(rolled), *mirrored)


def _one_pass(
    network: EquiformerV2Original,
    graph: Graph,
    vectors: Float[Tensor, "edges 3"],
    frames: Float[Tensor, "edges 3 3"] | None = None,
) -> OriginalPrediction:
    context = network.encode(graph, vectors, frames=frames)
    start = network.start(context)
    if network.injection is None:
        return network.decode(network.update(start, context), context)
    return network.decode(network.step(start, start, context), context)


def _compare(
    plain: OriginalPrediction, other: OriginalPrediction, turn: Float[Tensor, "3 3"]
) -> tuple[float, float]:
    energy = forces = math.nan
    if plain.energy is not None and other.energy is not None:
        energy = float((other.energy - plain.energy).abs().max() / plain.energy.abs().max())
    if plain.forces is not None and other.forces is not None:
        expected = plain.forces @ turn.T.to(plain.forces)
        forces = float((other.forces - expected).abs().max() / expected.abs().max())
    return energy, forces


def _worst(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


def _roll(angle: Float[Tensor, " edges"]) -> Float[Tensor, "edges 3 3"]:
    """Turns about the polar axis +y."""
    cosine, sine, zero, one = (
        angle.cos(),
        angle.sin(),
        torch.zeros_like(angle),
        torch.ones_like(angle),
    )
    rows = [cosine, zero, sine, zero, one, zero, -sine, zero, cosine]
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))
