"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from equipoise.graph import Graph, batch
from equipoise.potentials import Prediction
from equipoise.train import Loss

NAN = math.nan


def make(energies: list[float], forces: list[list[float]]) -> tuple[Prediction, Graph]:
    """A structure of 2 atoms and one of 1 atom, and a prediction that is 0 everywhere."""
    two = Graph.build([[0.0, 0, 0], [1, 0, 0]], [1, 1], cutoff=2.0)
    one = Graph.build([[0.0, 0, 0]], [1], cutoff=2.0)
    graph = batch([two, one]).replace(
        energy=torch.tensor(energies, dtype=torch.float64),
        forces=torch.tensor(forces, dtype=torch.float64),
    )
    prediction = Prediction(
        energy=torch.zeros(2, dtype=torch.float64, requires_grad=True),
        forces=torch.zeros(3, 3, dtype=torch.float64, requires_grad=True),
        stress=None,
        atomic_energies=torch.zeros(3, dtype=torch.float64),
    )
    return prediction, graph


FORCES = [[3.0, 4, 0], [0, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize(
    ("kind", "energy", "force"),
    [
        ("l1", (2 / 2 + 3 / 1) / 2, 9 / 9),
        ("l2", (1 + 9) / 2, 29 / 9),
        ("l2mae", (1 + 3) / 2, (5 + 0 + 2) / 3),
        # delta 2: squares up to 2, lines above
        ("huber", (0.5 + 2 * (3 - 1)) / 2, (2 * (3 - 1) + 2 * (4 - 1) + 2.0) / 9),
    ],
)
def test_by_hand(kind: str, energy: float, force: float) -> None:
    prediction, graph = make([2.0, -3.0], FORCES)
    assert Loss(kind, 1.0, 0.0, 2.0)(prediction, graph).item() == pytest.approx(energy)
    assert Loss(kind, 0.0, 1.0, 2.0)(prediction, graph).item() == pytest.approx(force)
    total = Loss(kind, 0.5, 10.0, 2.0)(prediction, graph)
    assert total.item() == pytest.approx(0.5 * energy + 10 * force)


@pytest.mark.parametrize("kind", ["l1", "l2", "l2mae", "huber"])
def test_missing_labels_take_no_part(kind: str) -> None:
    prediction, graph = make([NAN, -3.0], [[NAN, 4.0, 0], [0, 0, 0], [0, 0, 2]])
    loss = Loss(kind, 1.0, 1.0, 100.0)(prediction, graph)
    loss.backward()
    assert torch.isfinite(loss)
    assert prediction.energy.grad is not None and prediction.forces.grad is not None
    assert prediction.energy.grad[0] == 0 and prediction.energy.grad[1] != 0
    assert prediction.forces.grad.isfinite().all()
    assert prediction.forces.grad[0, 0] == 0 and prediction.forces.grad[2, 2] != 0
    expected = {"l1": 3 + 6 / 8, "l2": 9 + 20 / 8, "l2mae": 3 + 2 / 2, "huber": 4.5 + 10 / 8}
    assert loss.item() == pytest.approx(expected[kind])


@pytest.mark.parametrize("kind", ["l1", "l2", "l2mae", "huber"])
def test_nothing_known_is_zero_with_zero_gradient(kind: str) -> None:
    prediction, graph = make([NAN, NAN], [[NAN] * 3] * 3)
    loss = Loss(kind, 1.0, 1.0)(prediction, graph)
    loss.backward()
    assert loss.item() == 0
    assert prediction.forces.grad is not None and not prediction.forces.grad.any()
    absent = graph.replace(energy=None, forces=None)
    assert Loss(kind, 1.0, 1.0)(prediction, absent).item() == 0


def test_l2mae_does_not_depend_on_the_orientation() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.manual_seed(0)))
    prediction, graph = make([2.0, -3.0], FORCES)
    turned = graph.replace(forces=graph.forces @ turn.Q.T)
    loss = Loss("l2mae", 1.0, 1.0)
    assert loss(prediction, turned).item() == pytest.approx(loss(prediction, graph).item())
    assert Loss("l1", 0.0, 1.0)(prediction, turned).item() != pytest.approx(1.0)
