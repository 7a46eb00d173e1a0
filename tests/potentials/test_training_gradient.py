"""The gradient of a force loss with respect to the weights, against a long unrolled reference."""

import torch

from equipoise.graph import batch
from equipoise.potentials import derivatives
from tests.potentials.structures import crystal, molecule, moved, potential


def loss(energy, forces):
    return energy.square().mean() * 1e-6 + forces.square().mean()


def test_force_loss_gradient_equals_unrolled_reference():
    model = potential(tolerance=1e-13).train()
    graph = batch([molecule(4, seed=1), crystal()])
    prediction = model(graph)
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = torch.autograd.grad(loss(prediction.energy, prediction.forces), parameters)

    vectors = graph.edge_vectors().requires_grad_()
    context = model.backbone.encode(graph, vectors)
    source = model.injection.source(model.backbone.start(context))
    z = torch.zeros_like(source)
    for _ in range(200):
        z = model.cell(z, source, context)
    atomic = model.head(model.backbone.readout(z, context))
    (slope,) = torch.autograd.grad(atomic.sum(), vectors, create_graph=True)
    atomic = atomic * model.scale + model.reference[graph.species]
    energy = torch.zeros(2, dtype=torch.float64).index_add(0, graph.owner, atomic)
    forces = derivatives.forces(slope * model.scale, graph)
    reference = torch.autograd.grad(loss(energy, forces), parameters)

    torch.testing.assert_close(prediction.forces, forces, rtol=1e-9, atol=1e-10)
    for name, a, b in zip(names, ours, reference, strict=True):
        assert (a - b).norm() <= 1e-8 * b.norm() + 1e-11, name


def test_training_and_prediction_agree():
    model, graph = potential(), molecule()
    predicted = model(graph)
    trained = model.train()(graph)
    torch.testing.assert_close(trained.energy.detach(), predicted.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(trained.forces.detach(), predicted.forces, rtol=0, atol=1e-9)
    assert trained.passes is not None


def test_jacobian_penalty_can_be_trained():
    model = potential(tolerance=1e-8).train()
    prediction = model(molecule(), penalty=0.0)
    gradients = torch.autograd.grad(
        prediction.penalty, list(model.cell.parameters()), allow_unused=True
    )
    assert any(g is not None and g.abs().max() > 0 for g in gradients)
    assert model(molecule()).penalty is None


def test_unrolled_training_is_the_gradient_of_what_was_computed():
    """After K passes: forces are those of the K-pass energy, and many passes are the fixed point."""
    model, graph = potential().train(), molecule(4)
    prediction = model(graph, unrolled=2)
    step, energies = 1e-4, []
    for sign in (1, -1):
        positions = graph.positions.clone()
        positions[1, 0] += sign * step
        energies.append(model(moved(graph, positions), unrolled=2).energy.item())
    numeric = -(energies[0] - energies[1]) / (2 * step)
    assert abs(numeric - prediction.forces[1, 0].item()) < 1e-6 * prediction.forces.abs().max()
    assert prediction.equilibrium is None
    torch.testing.assert_close(
        model(graph, unrolled=60).forces, model(graph).forces, rtol=0, atol=1e-9
    )
