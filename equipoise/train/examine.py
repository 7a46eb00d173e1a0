"""What a trained potential is like beyond its errors: symmetry, contraction, and the time of one structure alone."""

import math
import statistics as middle
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Potential
from equipoise.train.metrics import MEV, finite_or_none
from equipoise.train.predict import timed

WARM_UP = 2  # calls before the clock counts


@dataclass(frozen=True)
class Equivariance:
    """How much more than the orientation changes when a structure is turned or mirrored.

    Attributes:
      energy_mev: largest |E(gx) − E(x)|, meV.
      force_mev: largest length of F(gx) − g F(x) of one atom, meV/Å.
      force_relative: the same difference over all atoms, root mean square, divided by that of the forces.
    """

    energy_mev: float
    force_mev: float
    force_relative: float


@dataclass(frozen=True)
class Examination:
    """Properties of a potential, measured on a few structures.

    Attributes:
      parameters: numbers that were learned.
      structures: that were looked at.
      rotation: under random rotations.
      mirror: under random rotations with a reflection. A network that is symmetric under rotations only tells a molecule from its
        mirror image, which energies never do.
      contraction_mean, contraction_max: of the fixed-point map (see `Potential.contraction`); None without a fixed point. Above
        1, a plain iteration diverges and only the solver's acceleration finds the fixed point.
      seconds_alone: energy and forces of one structure by itself, from nothing: the median.
      seconds_alone_quartiles: of the same calls.
    """

    parameters: int
    structures: int
    rotation: Equivariance
    mirror: Equivariance
    contraction_mean: float | None
    contraction_max: float | None
    seconds_alone: float
    seconds_alone_quartiles: tuple[float, float]

    def as_dict(self) -> dict[str, object]:
        record = asdict(self)
        for name in ("rotation", "mirror"):
            record[name] = {key: finite_or_none(value) for key, value in record[name].items()}
        return record | {"seconds_alone_quartiles": list(self.seconds_alone_quartiles)}


def examine(
    potential: Potential, graphs: Sequence[Graph], *, structures: int = 8, seed: int = 0
) -> Examination:
    """Look at some structures of a set, evenly spaced, one at a time.

    What is left of the symmetry is rounding error and the tolerance of the solver: 1e-6 of the forces in float32 at a tolerance of
    1e-4 is as it should be, 1e-2 is a network that is not equivariant.

    Args:
      potential: used in `.eval()` mode, and left in the mode it came in.
      graphs: at least one structure; labels are not needed.
      structures: how many to look at.
      seed: of the rotations.

    Raises:
      ValueError: if there are no structures.
    """
    if len(graphs) == 0:
        raise ValueError("an examination needs at least one structure, received none")
    indices = np.unique(np.linspace(0, len(graphs) - 1, structures).round().astype(int))
    chosen = [graphs[int(index)] for index in indices]
    generator = np.random.default_rng(seed)
    was_training = potential.training
    potential.eval()
    try:
        for _ in range(WARM_UP):
            timed(potential, chosen[0])
        seconds: list[float] = []
        turned = {1: _Deviation(), -1: _Deviation()}
        contractions: list[float] = []
        for graph in chosen:
            prediction, took = timed(potential, graph)
            seconds.append(took)
            for sign, deviation in turned.items():
                turn = sign * _rotation(generator)
                image, took = timed(potential, _moved(graph, turn))
                seconds.append(took)
                deviation.add(
                    prediction.energy, prediction.forces @ turn.T, image.energy, image.forces
                )
            found = potential.contraction(graph)
            if found is not None:
                contractions += found.tolist()
    finally:
        potential.train(was_training)
    low, high = np.quantile(seconds, [0.25, 0.75]).tolist()
    return Examination(
        parameters=sum(each.numel() for each in potential.parameters()),
        structures=len(chosen),
        rotation=turned[1].equivariance(),
        mirror=turned[-1].equivariance(),
        contraction_mean=middle.fmean(contractions) if contractions else None,
        contraction_max=max(contractions, default=None),
        seconds_alone=middle.median(seconds),
        seconds_alone_quartiles=(low, high),
    )


class _Deviation:
    """Gathers differences between what was predicted and what should have been."""

    def __init__(self) -> None:
        self._energy: list[float] = []
        self._force: list[float] = []
        self._squared = self._scale = 0.0

    def add(self, energy: Tensor, forces: Tensor, other: Tensor, other_forces: Tensor) -> None:
        difference = other_forces - forces
        self._energy.append(float((other - energy).abs().max()))
        self._force.append(float(torch.linalg.vector_norm(difference, dim=1).max()))
        self._squared += float(difference.square().sum())
        self._scale += float(forces.square().sum())

    def equivariance(self) -> Equivariance:
        # The forces on a single atom are 0: then there is no relative error.
        relative = math.sqrt(self._squared / self._scale) if self._scale > 0 else math.nan
        return Equivariance(
            energy_mev=MEV * max(self._energy),
            force_mev=MEV * max(self._force),
            force_relative=relative,
        )


def _rotation(generator: np.random.Generator) -> Tensor:
    """A random rotation, uniform over the group: [3, 3], float64.

    Source: Stewart, SIAM J. Numer. Anal. 17, 403 (1980): Q of a Gaussian matrix, with the signs of R's diagonal.
    """
    q, r = np.linalg.qr(generator.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return torch.tensor(q * np.linalg.det(q))


def _moved(graph: Graph, turn: Tensor) -> Graph:
    """The same structure, turned about the origin; distances, and so edges, stay as they are."""
    return graph.replace(positions=graph.positions @ turn.T, cell=graph.cell @ turn.T)
