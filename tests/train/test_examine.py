"""Symmetry that is broken on purpose is found, and only that."""

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import PotentialConfig, Prediction, Statistics
from equipoise.train import examine
from tests.fakes import FakePotential

STATISTICS = Statistics((1, 6, 7, 8), (0.0,) * 4, 1.0, 3.0, 4.0)


@pytest.fixture
def graphs() -> list[Graph]:
    random = np.random.default_rng(0)
    return [Graph.build(random.normal(size=(4, 3)), [1, 6, 7, 8], cutoff=5.0) for _ in range(20)]


class Broken(FakePotential):
    """Adds an energy, and its forces, that depends on the orientation."""

    def extra(self, positions: Tensor) -> Tensor:
        """eV, of one structure."""
        raise NotImplementedError

    def forward(self, graph: Graph, **options: object) -> Prediction:
        found = super().forward(graph, **options)
        positions = graph.positions.detach().requires_grad_()
        extra = self.extra(positions)
        (slope,) = torch.autograd.grad(extra, positions)
        return Prediction(
            energy=found.energy + extra.detach(),
            forces=found.forces - slope,
            stress=None,
            atomic_energies=found.atomic_energies,
            equilibrium=found.equilibrium,
        )


class Field(Broken):
    def extra(self, positions: Tensor) -> Tensor:
        return 0.1 * (positions[0] - positions[1])[2]


class Handed(Broken):
    def extra(self, positions: Tensor) -> Tensor:
        a, b, c = (positions[index] - positions[3] for index in range(3))
        return 0.1 * torch.linalg.cross(a, b).dot(c)


def test_symmetric(graphs: list[Graph]) -> None:
    potential = FakePotential(PotentialConfig(), STATISTICS).train()
    found = examine(potential, graphs, structures=5)
    assert potential.training
    assert found.structures == 5
    for each in (found.rotation, found.mirror):
        assert each.force_relative < 1e-6  # a float32 network
        assert each.energy_mev < 1e-2
    assert found.contraction_mean == found.contraction_max == 0.5
    assert found.parameters == 8 * 16 + 16 + 16 + 1
    low, high = found.seconds_alone_quartiles
    assert 0 < low <= found.seconds_alone <= high


def test_a_field_breaks_rotation(graphs: list[Graph]) -> None:
    found = examine(Field(PotentialConfig(), STATISTICS), graphs)
    # F = ±0.1 eV/Å along z on two atoms: turned, it should be anywhere on a sphere.
    assert 10 < found.rotation.force_mev <= 200.001
    assert found.rotation.energy_mev > 10
    assert found.rotation.force_relative > 0.01


def test_handedness_breaks_the_mirror_only(graphs: list[Graph]) -> None:
    found = examine(Handed(PotentialConfig(), STATISTICS), graphs)
    assert found.rotation.force_relative < 1e-6
    assert found.mirror.force_relative > 1e-2


def test_one_structure_and_none(graphs: list[Graph]) -> None:
    potential = FakePotential(PotentialConfig(), STATISTICS)
    assert examine(potential, graphs[:1]).structures == 1
    with pytest.raises(ValueError, match="at least one structure, received none"):
        examine(potential, [])
    atom = Graph.build([[0.0, 0, 0]], [1], cutoff=5.0)
    assert examine(potential, [atom]).as_dict()["rotation"]["force_relative"] is None
