"""One step: its draws, the fixed-point correction, labels that are missing, and the gradients a recipe can choose."""

import pytest
import torch
from torch import Tensor

from equipoise.data import rmd17
from equipoise.deq import Inner, Unrolled, fixed_point, fixed_point_correction
from equipoise.graph import Graph, batch
from equipoise.potentials import Potential, Prediction, build
from equipoise.potentials.equilibrium import CellMap
from equipoise.train import Recipe, TrainingSection, load_recipe, make_recipe
from equipoise.train.datasets import training_statistics
from equipoise.train.optimiser import build_optimiser
from equipoise.train.processes import Processes
from equipoise.train.reuse import FixedPoints
from equipoise.train.step import BatchLoss, Draw, batch_loss, draw, loss_at
from tests.train.test_reuse import SMALL

CPU = torch.device("cpu")
TINY = [f"potential.backbone.{k}={v}" for k, v in {**SMALL, "radial_hidden": 4}.items()]


def tiny(*changes: str) -> Recipe:
    return load_recipe("quickstart", [*TINY, "potential.dtype=float64", *changes])


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return rmd17("ethanol", cutoff=5.0).train[:2]


def loss_of(
    recipe: Recipe,
    potential: Potential,
    graph: Graph,
    *,
    drawn: Draw | None = None,
    progress: float = 1.0,
) -> BatchLoss:
    return batch_loss(
        potential,
        graph,
        range(graph.n_structures),
        recipe.training,
        progress=progress,
        drawn=Draw(penalise=False, passes=None) if drawn is None else drawn,
        points=FixedPoints(0.0, from_zero=True),
        processes=Processes(),
    )


def test_odds_of_passes() -> None:
    def passes(progress: float = 0.0, **settings: object) -> list[int | None]:
        section = TrainingSection(unrolled=0.5, **settings)
        with torch.random.fork_rng(devices=[]):
            return [draw(section, step, CPU, progress).passes for step in range(600)]

    usual = passes()
    assert [usual.count(n) / 600 for n in (1, 2, 3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.06)
    assert usual == passes() != passes(seed=1)
    assert set(passes(unrolled_odds=(0.0, 0.0, 0.0, 2.0, 2.0))) == {4, 5}
    assert set(passes(progress=0.5)) == {None}, "at the fixed point from half of the run on"


def test_processes_draw_the_same_choices_and_other_noise() -> None:
    section = TrainingSection(unrolled=1.0, jacobian_weight=1.0)
    with torch.random.fork_rng(devices=[]):
        found = []
        for rank in (0, 1, 0):
            found.append((draw(section, 5, CPU, 0.0, rank=rank), torch.rand(3)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[2][1]) and not torch.equal(found[0][1], found[1][1])


def test_weights_follow_the_progress() -> None:
    recipe = tiny("training.energy_weight={start: 1, end: 3}", "training.stress_weight=0.5")
    weights = [loss_at(recipe.training, p).energy_weight for p in (0.0, 0.5, 1.0)]
    assert weights == [1.0, 2.0, 3.0]
    assert loss_at(recipe.training, 0.3).stress_weight == 0.5


def test_the_correction_is_that_of_the_deq_room(graphs: list[Graph]) -> None:
    """Against its formula applied to the states of a solve of our own, weights' gradient included."""
    recipe = tiny(
        "potential.training_solver.trajectory=[1, 3]",
        "training.correction_weight=0.25",
        "training.correction_decay=0.7",
    )
    plain = tiny("training.correction_weight=0")
    graph = batch(graphs)
    potential = build(recipe.potential, training_statistics(graphs)).train()

    def gradients(loss: Tensor) -> Tensor:
        potential.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in potential.parameters()])

    ours = loss_of(recipe, potential, graph).value - loss_of(plain, potential, graph).value
    ours_gradient = gradients(ours)

    vectors = graph.edge_vectors().requires_grad_()
    context = potential.backbone.encode(graph, vectors)
    source = potential.injection.source(potential.backbone.start(context))
    f = CellMap(potential.cell, source, context)
    with torch.no_grad():
        start = potential.injection.start(source)
        solver, inner = recipe.potential.training_solver, Inner(graph.owner, graph.n_structures)
        solution = fixed_point(f, start, *f.args, solver=solver, inner=inner)
    assert len(solution.trajectory) == 2

    def loss_of_state(z: Tensor) -> Tensor:
        atomic = potential._atomic(z, context)
        (slope,) = torch.autograd.grad(atomic.sum(), vectors, create_graph=True)
        energy = atomic.double() * potential.scale + potential.reference[graph.species]
        zero = torch.zeros(graph.n_structures, dtype=torch.float64)
        forces = torch.zeros(graph.n_atoms, 3, dtype=torch.float64)
        slope = slope * potential.scale
        forces = forces.index_add(0, graph.senders, slope).index_add(0, graph.receivers, -slope)
        prediction = Prediction(zero.index_add(0, graph.owner, energy), forces, None, atomic)
        return loss_at(recipe.training, 1.0)(prediction, graph)

    theirs = 0.25 * fixed_point_correction(
        loss_of_state, f, solution, *f.args, decay=0.7, gradient=Unrolled(passes=1)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=0)
    torch.testing.assert_close(ours_gradient, gradients(theirs), rtol=1e-6, atol=1e-9)


def test_a_correction_without_states_is_refused() -> None:
    with pytest.raises(ValueError, match=r"potential.training_solver.trajectory=\[2, 4\]"):
        tiny("training.correction_weight=0.1")


@pytest.mark.parametrize(
    "gradient", ["{name: implicit}", "{name: phantom, steps: 2}", "{name: unrolled, passes: 3}"]
)
def test_a_recipe_chooses_the_gradient_and_it_trains(graphs: list[Graph], gradient: str) -> None:
    recipe = tiny(f"potential.gradient={gradient}", "training.learning_rate=3e-2")
    graph = batch(graphs)
    potential = build(recipe.potential, training_statistics(graphs)).train()
    optimiser = build_optimiser(potential, recipe.training)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = loss_of(recipe, potential, graph).value
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
    assert min(losses[-3:]) < 0.97 * losses[0]


def crystal(label: bool) -> Graph:
    """Helium, two atoms in a box, with a stress if wanted."""
    stress = [0.1, 0.2, 0.3, 0.0, 0.0, 0.4] if label else None
    positions, cell = [[0.1, 0, 0], [1.6, 1.4, 1.5]], [[3.0, 0, 0], [0, 3, 0], [0, 0.3, 3]]
    return Graph.build(
        positions, [2, 2], cutoff=5.0, cell=cell, pbc=True, energy=-1.0, stress=stress
    )


def test_any_label_may_be_missing_anywhere(graphs: list[Graph]) -> None:
    """Molecules with forces beside crystals with a stress; each loss is that of the labels that are there."""
    recipe = tiny("training.stress_weight=2.0", "training.loss=l2")
    molecule = graphs[0]
    labelled = [
        molecule,
        molecule.replace(energy=None),
        molecule.replace(forces=None),
        crystal(True),
        crystal(False),
        crystal(True).replace(energy=None),
    ]
    potential = build(recipe.potential, training_statistics(labelled)).train()
    found = loss_of(recipe, potential, batch(labelled))
    potential.zero_grad()
    found.value.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in potential.parameters())

    def mean_of(kind: str, size: int) -> float:
        total, count = 0.0, 0
        for graph in labelled:
            if getattr(graph, kind) is None:
                continue
            periodic = bool(graph.pbc.any())
            prediction = potential(graph, stress=periodic, unconverged="accept")
            error = getattr(prediction, kind) - getattr(graph, kind)
            error = error / graph.n_atoms if kind == "energy" else error
            total, count = total + float(error.detach().square().sum()), count + error.numel()
        assert count == size
        return total / count

    expected = mean_of("energy", 4) + mean_of("forces", 2 * 27) + 2 * mean_of("stress", 2 * 6)
    assert found.value.item() == pytest.approx(expected, rel=2e-3), "to the solver's tolerance"


def test_what_has_no_label_is_not_computed(graphs: list[Graph]) -> None:
    recipe = tiny()
    energies = [graph.replace(forces=None) for graph in graphs]
    potential = build(recipe.potential, training_statistics(energies)).train()
    found = loss_of(recipe, potential, batch(energies))
    assert found.prediction.forces is None and found.value.requires_grad
    nothing = loss_of(recipe, potential, batch([g.replace(energy=None) for g in energies]))
    assert nothing.value.item() == 0


def test_stress_of_direct_forces_is_refused() -> None:
    plain = load_recipe("deq-equiformer-v2-halftiny").model_dump(mode="json")
    plain["potential"]["forces"] = "direct"
    plain["potential"]["backbone"]["force_head"] = True
    make_recipe(plain)
    plain["training"]["stress_weight"] = 1.0
    with pytest.raises(ValueError, match="stress_weight must be 0 with potential.forces=direct"):
        make_recipe(plain)
