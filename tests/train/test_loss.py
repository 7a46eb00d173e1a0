"""Losses against numbers worked out by hand."""

import dataclasses
import math

import pytest
import torch

from equipoise.graph import Graph, batch
from equipoise.potentials import Prediction
from equipoise.train import Loss
from equipoise.train.loss import Terms, with_volumes

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


STRESS = [[3.0, 0, 4, 0, 0, 0], [0, 0, 0, 0, 2.0, 0]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("l1", 9 / 12),
        ("l2", 29 / 12),
        ("l2mae", (5 + math.sqrt(8)) / 2),  # off-diagonal components stand twice in the tensor
        ("huber", (2 * (3 - 1) + 2 * (4 - 1) + 2.0) / 12),
    ],
)
def test_stress_by_hand(kind: str, expected: float) -> None:
    prediction, graph = make([2.0, -3.0], FORCES)
    stress = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    prediction = dataclasses.replace(prediction, stress=stress)
    graph = graph.replace(stress=torch.tensor(STRESS, dtype=torch.float64))
    loss = Loss(kind, 0.0, 0.0, 2.0, stress_weight=3.0)
    assert loss(prediction, graph).item() == pytest.approx(3 * expected)
    partly = graph.replace(stress=graph.stress.index_fill(0, torch.tensor([1]), NAN))
    value = loss(prediction, partly)
    value.backward()
    assert torch.isfinite(value) and stress.grad.isfinite().all() and not stress.grad[1].any()
    first = {"l1": 7 / 6, "l2": 25 / 6, "l2mae": 5.0, "huber": 10 / 6}
    assert value.item() == pytest.approx(3 * first[kind])


def test_nothing_is_asked_of_what_has_no_weight_or_no_label() -> None:
    prediction, graph = make([2.0, -3.0], FORCES)
    energies_only = dataclasses.replace(prediction, forces=None)
    assert Loss("l1", 1.0, 0.0)(energies_only, graph).item() == pytest.approx(2.0)
    assert Loss("l1", 1.0, 1.0)(energies_only, graph.replace(forces=None)).item() == pytest.approx(
        2
    )


@pytest.mark.parametrize("kind", ["l1", "l2", "l2mae", "huber"])
def test_shares_of_a_batch_add_up(kind: str) -> None:
    """As several processes have them, with labels missing here and there."""
    generator = torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    two = Graph.build([[0.0, 0, 0], [1, 0, 0]], [1, 1], cutoff=2.0)
    one = Graph.build([[0.0, 0, 0]], [1], cutoff=2.0)
    parts = [batch([two, one, two]), batch([one, two])]
    labelled, predictions = [], []
    for part in parts:
        atoms, structures = part.n_atoms, part.n_structures
        energy, forces, stress = random(structures), random(atoms, 3), random(structures, 6)
        energy[0], forces[1, 2], stress[-1] = NAN, NAN, NAN
        labelled.append(part.replace(energy=energy, forces=forces, stress=stress))
        zero = torch.zeros(atoms, dtype=torch.float64)
        predictions.append(
            Prediction(random(structures), random(atoms, 3), random(structures, 6), zero)
        )
    whole = Prediction(
        *(
            torch.cat([getattr(p, name) for p in predictions])
            for name in ("energy", "forces", "stress", "atomic_energies")
        )
    )
    loss = Loss(kind, 0.7, 3.0, 0.3, stress_weight=0.9)
    terms = [loss.terms(graph) for graph in labelled]
    total = Terms(*(sum(values) for values in zip(*map(dataclasses.astuple, terms), strict=True)))
    assert total == loss.terms(batch(labelled))
    shares = [loss(p, g, total) for p, g in zip(predictions, labelled, strict=True)]
    assert sum(shares).item() == pytest.approx(loss(whole, batch(labelled)).item(), rel=1e-14)


def test_molecules_get_a_volume_that_changes_nothing() -> None:
    molecule = Graph.build([[0.0, 0, 0], [1, 0, 0]], [1, 1], cutoff=2.0)
    slab = Graph.build(
        [[0.0, 0, 0]], [1], cutoff=2.5, cell=[[2, 0, 0], [0, 2, 0], [0, 0, 9]], pbc=[1, 1, 0]
    )
    crystal = slab.replace(pbc=torch.ones(1, 3, dtype=torch.bool), cutoff=2.0)
    mixed = batch([molecule, slab.replace(cutoff=2.0), crystal])
    filled = with_volumes(mixed)
    assert (filled.volume > 0).all() and filled.pbc.any(1).all()
    assert torch.equal(filled.edge_vectors(), mixed.edge_vectors())
    assert filled.volume[2] == mixed.volume[2] == 36
    assert with_volumes(crystal) is crystal
