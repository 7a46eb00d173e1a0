"""Joint passes of a potential: the solved answer in the limit, one structure at a time, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from equipoise.data import rmd17
from equipoise.deq import Anderson, Joint, Solution
from equipoise.graph import batch
from equipoise.potentials import load
from tests.potentials.structures import crystal, molecule, potential


def disturbed(solution: Solution, size: float) -> Solution:
    generator = torch.Generator().manual_seed(0)

    def noisy(x):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return x + size * x.abs().mean() * noise.to(x)

    return replace(solution, value=noisy(solution.value), adjoint=noisy(solution.adjoint))


def test_energy_errors_are_of_second_order_and_forces_of_first():
    model, graph = potential(), molecule()
    exact = model(graph)
    energies, forces, plain = [], [], []
    for size in (1e-2, 1e-3):
        start = disturbed(exact.equilibrium, size)
        found = model(graph, start=start, joint=Joint(passes=1, max_residual=10.0))
        energies.append(abs(float(found.energy - exact.energy)))
        plain.append(abs(float(found.energy - found.correction - exact.energy)))
        forces.append(float((found.forces - exact.forces).abs().max()))
    assert energies[0] / energies[1] == pytest.approx(100, rel=0.2)
    assert plain[0] / plain[1] == pytest.approx(10, rel=0.2)
    assert forces[0] / forces[1] == pytest.approx(10, rel=0.2)


def test_how_far_the_energy_is_off_is_known():
    """To a factor of two on the whole, and on which side: the estimate takes one pass for the whole way."""
    tight, loose = (Anderson(tolerance=each, max_passes=200) for each in (1e-11, 1e-2))
    exact, model = (
        load("rmd17-ethanol", dtype="float64", solver=each, adjoint=each) for each in (tight, loose)
    )
    ratios = []
    for graph in rmd17(cutoff=model.cutoff).test[:5]:
        truth = exact(graph)
        start = disturbed(truth.equilibrium, 1e-2)
        for found in (model(graph), model(graph, start=start, joint=Joint(passes=2))):
            ratios.append(float(found.energy - truth.energy) / float(found.error))
    assert 0.5 < np.median(ratios) < 2
    assert np.mean(np.array(ratios) > 0) > 0.8
    assert model(graph, forces=False).error is None
    assert potential("stacked")(molecule()).error is None


def test_many_joint_passes_are_a_solve():
    model, graph = potential(), crystal()
    exact = model(graph, stress=True)
    start = disturbed(exact.equilibrium, 0.05)
    found = model(graph, start=start, joint=Joint(passes=40, recycled=6), stress=True)
    torch.testing.assert_close(found.energy, exact.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.forces, exact.forces, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.stress, exact.stress, rtol=0, atol=1e-8)


def test_a_batch_is_its_structures():
    model, graphs = potential(), [molecule(5), molecule(7, seed=1)]
    joint = Joint(passes=3, recycled=4)
    starts = [disturbed(model(graph).equilibrium, 0.01) for graph in graphs]
    together = replace(
        starts[0],
        value=torch.cat([start.value for start in starts]),
        adjoint=torch.cat([start.adjoint for start in starts]),
    )
    found = model(batch(graphs), start=together, joint=joint)
    alone = [model(g, start=start, joint=joint) for g, start in zip(graphs, starts, strict=True)]
    torch.testing.assert_close(
        found.energy, torch.cat([a.energy for a in alone]), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        found.forces, torch.cat([a.forces for a in alone]), rtol=0, atol=1e-9
    )


def test_the_energy_alone_needs_no_geometry():
    model, graph = potential(), molecule()
    start = disturbed(model(graph).equilibrium, 0.01)
    found = model(graph, start=start, joint=Joint())
    energy = model(graph, start=start, joint=Joint(), forces=False)
    assert energy.forces is None
    torch.testing.assert_close(energy.energy, found.energy, rtol=0, atol=1e-12)


def test_a_lone_atom_has_no_edges_to_differentiate_by():
    model = potential()
    graph = molecule(1)
    start = model(graph).equilibrium
    assert not model(graph, start=start, joint=Joint()).forces.any()


def test_without_history_forces_are_the_gradient_however_few_the_passes():
    model, graph = potential(tolerance=1e-3), molecule(5)

    def energy(positions):
        moved = graph.replace(positions=torch.as_tensor(positions))
        return float(model(moved, unrolled=2, forces=False).energy)

    forces = model(graph, unrolled=2).forces.numpy()
    x, step = graph.positions.numpy(), 1e-5
    for atom, axis in ((0, 0), (2, 1), (4, 2)):
        shift = np.zeros_like(x)
        shift[atom, axis] = step
        slope = (energy(x + shift) - energy(x - shift)) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=1e-7)
    assert abs(energy(x) - float(model(graph).energy)) > 1e-6  # not the solved energy


def test_refused_in_training_and_without_a_start():
    model, graph = potential(), molecule()
    start = model(graph).equilibrium
    with pytest.raises(ValueError, match="start=None"):
        model(graph, joint=Joint())
    with pytest.raises(ValueError, match="training=True"):
        model.train()(graph, start=start, joint=Joint())


def asymmetry(forces, graph) -> float:
    """‖H - Hᵀ‖ / ‖H‖ of the Hessian H that forces have by differences: zero if they are the gradient of anything."""
    step, columns = 1e-4, []
    for shift in np.eye(3 * graph.n_atoms).reshape(-1, graph.n_atoms, 3) * step:
        one, other = (
            forces(graph.replace(positions=graph.positions + torch.as_tensor(sign * shift)))
            for sign in (1, -1)
        )
        columns.append(((one - other) / (2 * step)).flatten().numpy())
    hessian = np.array(columns)
    return float(np.linalg.norm(hessian - hessian.T) / np.linalg.norm(hessian))


def test_solved_forces_have_a_symmetric_hessian_and_those_of_few_passes_nearly():
    model, graph = potential(), molecule(4)
    start = disturbed(model(graph).equilibrium, 0.5)

    def joint(passes):
        settings = Joint(passes=passes, recycled=0, max_residual=1e3)
        return lambda moved: model(moved, start=start, joint=settings).forces

    assert asymmetry(lambda moved: model(moved).forces, graph) < 1e-6
    assert asymmetry(lambda moved: model(moved, unrolled=2).forces, graph) < 1e-6
    # One pass from one state for all places: the gradient of L at that state. Two: of nothing, and none the less nearly symmetric.
    assert asymmetry(joint(1), graph) < 1e-6
    assert 1e-4 < asymmetry(joint(2), graph) < 0.05


def test_a_tolerance_stops_where_both_residuals_are_small():
    model, graph = potential(), molecule()
    exact = model(graph)
    joint = Joint(passes=30, recycled=6, tolerance=1e-6)
    near = model(graph, start=disturbed(exact.equilibrium, 1e-9), joint=joint)
    assert near.equilibrium.passes.tolist() == near.equilibrium.adjoint_passes.tolist() == [2]
    far = model(graph, start=disturbed(exact.equilibrium, 0.01), joint=joint)
    assert 3 < int(far.equilibrium.passes) < 30
    assert float(far.equilibrium.residual) < 1e-6 > float(far.equilibrium.adjoint_residual)
    torch.testing.assert_close(far.forces, exact.forces, rtol=0, atol=1e-5)


def test_the_start_stays_what_it_was_and_may_be_of_another_precision():
    model, graph = potential(), molecule()
    start = disturbed(model(graph).equilibrium, 0.01)
    found = model(graph, start=start, joint=Joint(passes=3, recycled=4))
    assert not start.value.requires_grad and not start.adjoint.requires_grad
    rounded = replace(start, value=start.value.float(), adjoint=start.adjoint.float())
    again = model(graph, start=rounded, joint=Joint(passes=3, recycled=4))
    torch.testing.assert_close(again.energy, found.energy, rtol=0, atol=1e-7)
    # With secants, which go on from one to the next.
    halves = [
        replace(each, mapped=each.mapped.float(), changes=each.changes.float())
        for each in found.equilibrium.secants
    ]
    start = replace(found.equilibrium, secants=tuple(halves))
    assert model(graph, start=start, joint=Joint(recycled=4)).equilibrium.converged
