"""What every potential must obey, whatever its weights."""

import numpy as np
import pytest
import torch

from equipoise.deq import Anderson
from equipoise.graph import Graph, batch
from equipoise.potentials import load, zoo
from tests.potentials.structures import crystal, molecule, moved, potential

KINDS = ["equilibrium", "stacked"]


def rotation(seed=0):
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def model(kind):
    return potential(kind, layers=2 if kind == "stacked" else 1)


@pytest.mark.parametrize("make", [molecule, crystal])
@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_the_gradient_of_the_energy(kind, make):
    graph, predict = make(), model(kind)
    forces = predict(graph).forces
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (2, 1)]:
        energies = []
        for sign in (1, -1):
            positions = graph.positions.clone()
            positions[atom, axis] += sign * step
            energies.append(predict(moved(graph, positions)).energy.item())
        numeric = -(energies[0] - energies[1]) / (2 * step)
        assert abs(numeric - forces[atom, axis].item()) < 1e-6 * forces.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_stress_is_the_strain_derivative(kind):
    graph, predict = crystal(), model(kind)
    stress = predict(graph, stress=True).stress[0]
    volume, step = graph.volume.item(), 1e-5
    for index, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = moved(
                graph, graph.positions.numpy() @ strain, graph.cell[0].numpy() @ strain
            )
            energies.append(predict(strained).energy.item())
        numeric = (energies[0] - energies[1]) / (2 * step) / volume
        assert abs(numeric - stress[index].item()) < 1e-6 * stress.abs().max()


@pytest.mark.parametrize(
    ("dtype", "tolerance", "bound"), [("float64", 1e-11, 1e-8), ("float32", 1e-6, 1e-4)]
)
@pytest.mark.parametrize("reflection", [True, False])
def test_solved_model_is_equivariant(reflection, dtype, tolerance, bound):
    predict = potential(reflection=reflection, dtype=dtype, tolerance=tolerance)
    graph, turn = molecule(), rotation()
    assert_equivariant(predict, graph, turn, bound)
    mirrored = predict(moved(graph, graph.positions.numpy() * [1, 1, -1])).energy
    difference = abs(mirrored - predict(graph).energy).item()
    assert difference < bound if reflection else difference > 1e-5


@pytest.mark.parametrize("loose", [1e-1, 1e-2])
def test_an_unconverged_model_is_as_equivariant_as_a_converged_one(loose):
    """The group acts orthogonally, so each iterate of Anderson's method is equivariant, not only the limit."""
    assert_equivariant(potential(tolerance=loose), molecule(), rotation(), 1e-9)


@pytest.mark.parametrize("name", zoo())
def test_shipped_models_are_equivariant(name):
    tight = Anderson(tolerance=1e-11, max_passes=300)
    predict = load(name, dtype=torch.float64, solver=tight, adjoint=tight)
    ethanol = np.array(
        [[0.0, 0.5, 0.0], [1.2, -0.4, 0.1], [-1.2, -0.3, 0.0], [0.0, 1.2, 0.9], [0.1, 1.2, -0.9], [-1.2, -0.9, 0.9],
         [-1.3, -0.9, -0.9], [-2.1, 0.3, 0.0], [2.0, 0.1, 0.0]]
    )  # fmt: skip
    graph = Graph.build(ethanol, [6, 8, 6, 1, 1, 1, 1, 1, 1], cutoff=predict.cutoff)
    assert_equivariant(predict, graph, rotation(), 1e-8)
    single = load(name)
    assert_equivariant(single, graph, rotation(), 1e-4 * single(graph).forces.abs().max().item())


def assert_equivariant(predict, graph, turn, bound):
    reference = predict(graph)
    turned = predict(moved(graph, graph.positions.numpy() @ turn.T + [3.0, -2.0, 1.0]))
    assert abs(turned.energy - reference.energy).item() < bound
    assert (turned.forces - reference.forces @ torch.from_numpy(turn).T).abs().max() < bound
    order = np.random.default_rng(1).permutation(graph.n_atoms)
    permuted = predict(
        Graph.build(
            graph.positions.numpy()[order], graph.species.numpy()[order], cutoff=graph.cutoff
        )
    )
    assert abs(permuted.energy - reference.energy).item() < bound
    assert (permuted.forces - reference.forces[order]).abs().max() < bound


@pytest.mark.parametrize("kind", KINDS)
def test_two_calls_are_bit_identical(kind):
    predict, graph = model(kind), molecule()
    first, second = predict(graph), predict(graph)
    assert torch.equal(first.energy, second.energy)
    assert torch.equal(first.forces, second.forces)


@pytest.mark.parametrize(
    ("kind", "unrolled"), [*[(kind, None) for kind in KINDS], ("equilibrium", 3)]
)
@pytest.mark.parametrize("recomputes", [False, True])
def test_forces_come_where_the_caller_has_switched_gradients_off(
    kind, unrolled, recomputes, monkeypatch
):
    network, graph = model(kind), molecule()
    # As for a large system, where the geometry is differentiated anew.
    monkeypatch.setattr(type(network.backbone), "recomputes", lambda *_: recomputes)
    plain = network(graph, unrolled=unrolled)
    with torch.no_grad():
        forces = network(graph, unrolled=unrolled).forces
    assert torch.equal(forces, plain.forces)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_singles(kind):
    predict, graphs = (
        model(kind),
        [molecule(4, seed=1), crystal(), molecule(7, seed=2), molecule(1)],
    )
    together = predict(batch(graphs))
    alone = [predict(graph) for graph in graphs]
    torch.testing.assert_close(
        together.energy, torch.cat([p.energy for p in alone]), rtol=0, atol=1e-10
    )
    torch.testing.assert_close(
        together.forces, torch.cat([p.forces for p in alone]), rtol=0, atol=1e-10
    )
    if kind == "equilibrium":
        assert together.passes.tolist() == [p.passes.item() for p in alone]


@pytest.mark.parametrize("kind", KINDS)
def test_far_molecules_are_the_sum_of_their_parts(kind):
    predict = model(kind)
    a, b = molecule(5, seed=3), molecule(4, seed=4, shift=(100.0, 0.0, 0.0))
    both = Graph.build(
        np.concatenate([a.positions, b.positions]),
        np.concatenate([a.species, b.species]),
        cutoff=a.cutoff,
    )
    together = predict(both)
    torch.testing.assert_close(
        together.energy, predict(a).energy + predict(b).energy, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        together.forces, torch.cat([predict(a).forces, predict(b).forces]), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_isolated_atom_has_an_energy_and_no_force(kind):
    prediction = model(kind)(molecule(1))
    assert torch.isfinite(prediction.energy).all()
    assert torch.equal(prediction.forces, torch.zeros(1, 3, dtype=torch.float64))


def jump_at_the_cutoff(predict, step, *, chaperone):
    """Largest change of energy (eV) and forces (eV/Å) as an atom crosses the cutoff of another."""
    values = []
    for distance in (4.0 - step, 4.0 + step):
        positions, species = [[0.0, 0, 0], [distance, 0, 0.0]], [6, 8]
        if chaperone:
            positions, species = [*positions, [1.1, 0.1, 0.0]], [*species, 1]
        prediction = predict(Graph.build(positions, species, cutoff=4.0))
        values.append(torch.cat([prediction.energy, prediction.forces.flatten()]))
    return (values[1] - values[0]).abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
def test_energy_and_forces_are_smooth_where_an_atom_leaves(kind):
    predict = model(kind)
    # Alone: nothing but the envelope is left, and force and curvature vanish at the cutoff.
    assert jump_at_the_cutoff(predict, 1e-2, chaperone=False) < 1e-4
    assert jump_at_the_cutoff(predict, 1e-3, chaperone=False) < 1e-6
    # With a third atom in between the forces change in proportion to the step, without a jump.
    large, small = (jump_at_the_cutoff(predict, step, chaperone=True) for step in (1e-2, 1e-4))
    assert small < large / 90


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", range(3))
def test_edges_along_the_axes_are_exact(kind, axis):
    """A linear molecule along ±x, ±y, ±z: same energy as along a general direction, forces along the axis, none NaN."""
    predict, direction = model(kind), np.eye(3)[axis]
    line = np.array([[-1.2], [0.0], [1.1]])
    aligned = predict(Graph.build(line * direction, [8, 6, 1], cutoff=4.0))
    general = predict(Graph.build(line * (rotation() @ direction), [8, 6, 1], cutoff=4.0))
    torch.testing.assert_close(aligned.energy, general.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        aligned.forces, aligned.forces * torch.from_numpy(direction), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        aligned.forces @ torch.from_numpy(direction),
        general.forces @ torch.from_numpy(rotation() @ direction),
        rtol=0,
        atol=1e-9,
    )


def test_warm_start_equals_cold_start_within_the_tolerance():
    for tolerance in (1e-3, 1e-6):
        predict, graph = potential(tolerance=tolerance), molecule()
        exact = potential(tolerance=1e-12)(graph).forces
        near = predict(
            moved(graph, graph.positions + 3e-2 * torch.randn(6, 3, dtype=torch.float64))
        )
        warm, cold = predict(graph, start=near.equilibrium), predict(graph)
        bound = 3 * tolerance * exact.abs().max()
        assert (near.forces - exact).abs().max() > 10 * bound  # the old answer would not pass
        assert (warm.forces - exact).abs().max() < bound
        assert (cold.forces - exact).abs().max() < bound
        assert warm.passes.item() < cold.passes.item()


def test_one_atom_that_moved_is_not_lost_among_many_that_did_not():
    """The tolerance holds for each atom: 200 far copies at rest must not hide the one that moved."""
    predict = potential(tolerance=1e-4)
    single, grid = molecule(6), np.arange(200) * 50.0
    positions = np.concatenate([single.positions.numpy() + [x, 0, 0] for x in grid])
    species = np.tile(single.species.numpy(), 200)
    before = predict(Graph.build(positions, species, cutoff=4.0))
    positions[0] += 0.01
    after = Graph.build(positions, species, cutoff=4.0)
    warm = predict(after, start=before.equilibrium).forces[:6]
    alone = potential(tolerance=1e-12)(Graph.build(positions[:6], species[:6], cutoff=4.0)).forces
    assert (warm - alone).abs().max() < 3e-4 * alone.abs().max()


def test_energies_agree_with_and_without_forces_and_add_up():
    predict, graph = potential(tolerance=1e-3), batch([molecule(), crystal()])
    full = predict(graph)
    assert torch.equal(predict(graph, forces=False).energy, full.energy)
    total = torch.zeros(2, dtype=torch.float64).index_add(0, graph.owner, full.atomic_energies)
    torch.testing.assert_close(total, full.energy, rtol=0, atol=1e-10)


def test_lagrangian_energy_has_a_second_order_error():
    graph = molecule()
    exact = potential(tolerance=1e-12)(graph).energy.item()
    errors = [abs(potential(tolerance=t)(graph).energy.item() - exact) for t in (1e-2, 1e-4)]
    assert errors[1] < 1e-3 * errors[0] + 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_numbers(kind):
    graph, predict = batch([molecule(5), crystal(), molecule(1)]), model(kind)
    expected = predict(graph)
    found = predict.to("cuda")(graph)
    assert found.forces.device.type == "cuda"
    torch.testing.assert_close(found.energy.cpu(), expected.energy, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.forces.cpu(), expected.forces, rtol=0, atol=1e-8)
