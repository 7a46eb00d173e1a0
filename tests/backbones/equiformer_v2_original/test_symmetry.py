import math
from dataclasses import replace

import pytest
import torch

from equipoise.backbones.equiformer_v2_original import violations
from equipoise.graph import Graph, batch
from tests.backbones.equiformer_v2_original.networks import EXACT, network
from tests.backbones.equiformer_v2_original.oracle import STACKS, oracle
from tests.potentials.structures import crystal, molecule


def prediction(made, graph):
    with torch.no_grad():
        return made(graph)


def test_order_of_atoms_does_not_matter():
    made, graph = network(), molecule(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Graph.build(graph.positions[order], graph.species[order], cutoff=graph.cutoff)
    plain, other = prediction(made, graph), prediction(made, shuffled)
    torch.testing.assert_close(other.energy, plain.energy, rtol=0, atol=1e-13)
    torch.testing.assert_close(other.forces, plain.forces[order], rtol=0, atol=1e-13)


def test_a_batch_is_a_list_of_structures():
    made, graphs = (
        network(max_neighbours=4),
        [molecule(5), crystal(), molecule(1), molecule(2, seed=3)],
    )
    together = prediction(made, batch(graphs))
    alone = [prediction(made, graph) for graph in graphs]
    torch.testing.assert_close(
        together.energy, torch.cat([each.energy for each in alone]), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(
        together.forces, torch.cat([each.forces for each in alone]), rtol=0, atol=1e-13
    )


def test_the_answer_is_the_same_every_time_and_in_both_precisions():
    made, graph = network(), molecule(6)
    first, second = prediction(made, graph), prediction(made, graph)
    assert torch.equal(first.energy, second.energy) and torch.equal(first.forces, second.forces)
    single = prediction(made.float(), graph)
    assert single.energy.dtype == torch.float32
    torch.testing.assert_close(single.forces.double(), first.forces, rtol=1e-4, atol=1e-6)


def test_violations_of_gates_are_rounding_except_under_inversion():
    found = violations(network(**EXACT, lmax=3), molecule(6))
    for name in ("rotation_energy", "rotation_forces", "roll_energy", "roll_forces"):
        assert getattr(found, name) < 1e-12, name
    assert found.inversion_forces > 1e-2


def test_violations_of_sampled_activations_fall_with_the_grid():
    found = [violations(network(lmax=3, grid=grid), molecule(6)) for grid in (None, 10, 20)]
    for name in ("rotation_forces", "roll_forces"):
        coarse, middle, fine = (getattr(each, name) for each in found)
        assert coarse > 10 * middle > 100 * fine > 0, (coarse, middle, fine)


# Rotation and roll, energy and forces, as measured with these seeds. Inversion is no matter of size: features have no parity.
MEASURED = {
    "l2": (8e-9, 2.3e-6, 1.3e-11, 3.6e-8),
    "l3": (7.8e-8, 5.4e-5, 5.2e-11, 1.5e-8),
    "l4": (1.4e-12, 6.4e-9, 3e-16, 1e-15),
    "l3_s2_batch": (6.8e-4, 1.5e-1, 8.2e-5, 2.9e-2),
}


@pytest.mark.parametrize("name", STACKS)
def test_violations_of_the_recorded_networks_are_known(name):
    recorded = oracle(name)
    found = violations(recorded.network(), recorded.graph, trials=2)
    sizes = (found.rotation_energy, found.rotation_forces, found.roll_energy, found.roll_forces)
    for size, measured in zip(sizes, MEASURED[name], strict=True):
        assert size < 3 * measured
    # A measurement that saw nothing would pass the line above.
    assert found.rotation_forces > MEASURED[name][1] / 10
    assert found.inversion_forces > 0.03


def test_violations_say_nothing_about_a_head_that_is_not_there():
    found = violations(network(**EXACT, force_head=False), molecule(4), trials=1)
    assert math.isnan(found.roll_forces) and found.roll_energy < 1e-12


@pytest.mark.parametrize("name", ["alpha_drop", "path_drop", "projection_drop", "head_alpha_drop"])
def test_dropout_acts_in_training_only_and_keeps_the_mean(name):
    made, graph = network(**{name: 0.3}), batch([molecule(5), molecule(4, seed=1)])
    context = made.encode(graph, graph.edge_vectors())
    z = made.start(context)

    def run():
        with torch.no_grad():
            if name == "head_alpha_drop":
                return made.direct_forces(z, context)
            return made.update(z, context)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = run()
        assert torch.equal(plain, run())
        made.train()
        drawn = torch.stack([run() for _ in range(40)])
    assert not torch.equal(drawn[0], drawn[1])
    if name == "head_alpha_drop":  # linear in the mask
        scatter = drawn.std(0).max() / 40**0.5
        assert (drawn.mean(0) - plain).abs().max() < 5 * scatter


def test_paths_are_dropped_for_whole_structures():
    made, graph = network(path_drop=0.5), batch([molecule(5), molecule(4, seed=1)])
    context = made.encode(graph, graph.edge_vectors())
    z = made.start(context)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made.train()
        seen = set()
        for _ in range(20):
            with torch.no_grad():
                unchanged = (made.update(z, context) == z).flatten(1).all(1)
            first, second = unchanged[:5], unchanged[5:]
            assert first.all() or not first.any()
            assert second.all() or not second.any()
            seen.add((bool(first[0]), bool(second[0])))
    assert len(seen) == 4


def test_only_the_nearest_neighbours_are_kept():
    graph = molecule(7)
    made, all_of_them = network(max_neighbours=2), network()
    context = made.encode(graph, graph.edge_vectors())
    assert torch.equal(torch.bincount(context.receivers), torch.full((7,), 2))
    distance = torch.cdist(graph.positions, graph.positions)
    nearest = distance.argsort(1)[:, 1:3].sort(1).values
    for atom in range(7):
        assert (
            context.senders[context.receivers == atom].sort().values.tolist()
            == nearest[atom].tolist()
        )
    keep = torch.zeros(7, 7, dtype=torch.bool)
    keep[context.receivers, context.senders] = True
    keep = keep[graph.receivers, graph.senders]
    capped = replace(
        graph,
        senders=graph.senders[keep],
        receivers=graph.receivers[keep],
        shifts=graph.shifts[keep],
    )
    assert torch.equal(prediction(made, graph).forces, prediction(all_of_them, capped).forces)


def test_what_cannot_be_done_is_refused():
    graph = molecule(4)
    with pytest.raises(ValueError, match="atomic numbers must be < elements=7, received 8"):
        network(elements=7)(replace(graph, species=torch.full((4,), 8)))
    with pytest.raises(ValueError, match="an implicit layer .* has no explicit pass"):
        network(injection="add")(graph)
    made = network(energy_head=False, force_head=False)
    context = made.encode(graph, graph.edge_vectors())
    z = made.start(context)
    assert made.decode(z, context) == (None, None)
    with pytest.raises(ValueError, match="no energy head"):
        made.atomic_energies(z)
    with pytest.raises(ValueError, match="no force head"):
        made.direct_forces(z, context)
    with pytest.raises(ValueError, match="step needs config.injection"):
        made.step(z, z, context)
