"""The wall between nuclei: a pair potential with a known formula, felt nowhere else."""

import math
from dataclasses import replace

import pytest
import torch

from equipoise.data import rmd17
from equipoise.graph import Graph
from equipoise.potentials import Repulsion, build, load, save
from tests.potentials.structures import crystal, molecule, moved, potential


def pair(distance: float, *species: int) -> Graph:
    return Graph.build(
        [[0.0, 0.0, 0.0], [0.0, 0.6 * distance, 0.8 * distance]], species, cutoff=5.0
    )


def with_repulsion(kind: str = "equilibrium", reach: float = 0.7):
    plain = potential(kind)
    walled = build(replace(plain.config, repulsion=Repulsion(reach)), plain.statistics)
    walled.load_state_dict(plain.state_dict())
    return plain, walled.eval()


def test_formula():
    """Carbon and oxygen at 0.2 Å, against the formula written out with the constants of the book."""
    r, reach = 0.2, 0.9
    x = r / (0.468534 / (6**0.23 + 8**0.23))  # 0.8854 Bohr
    screening = (
        0.18175 * math.exp(-3.1998 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.4029 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    u = r / (reach * (0.76 + 0.66))
    expected = 6 * 8 * 14.399645 / r * screening * (1 - 10 * u**3 + 15 * u**4 - 6 * u**5)
    graph = pair(r, 6, 8)
    energies, _ = Repulsion(reach)(graph, graph.edge_vectors())
    assert float(energies.sum()) == pytest.approx(expected, rel=1e-4)
    assert energies[0] == energies[1]


def test_smooth_where_it_ends():
    wall = Repulsion(0.8)
    end = 0.8 * (0.76 + 0.31)

    def force(distance):
        graph = pair(distance, 6, 1)
        return float(wall(graph, graph.edge_vectors())[1].abs().max())

    assert force(end) == force(end + 1e-9) == 0.0
    # Value, slope and curvature go to zero together: the force with the square of the distance left.
    assert force(end - 1e-3) / force(end - 1e-4) == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("make", [molecule, crystal])
def test_forces_and_stress_are_derivatives(make):
    graph = make()
    graph = moved(graph, graph.positions * 0.45, graph.cell[0] * 0.45)  # everything too close
    _, predict = with_repulsion("stacked", reach=1.0)
    plain, _ = with_repulsion("stacked", reach=1.0)
    prediction = predict(graph, stress=make is crystal)
    assert float((prediction.energy - plain(graph).energy).abs()) > 1
    step = 1e-5
    energies = []
    for sign in (1, -1):
        positions = graph.positions.clone()
        positions[1, 2] += sign * step
        energies.append(predict(moved(graph, positions, graph.cell[0])).energy.item())
    numeric = -(energies[0] - energies[1]) / (2 * step)
    assert numeric == pytest.approx(prediction.forces[1, 2].item(), rel=1e-6, abs=1e-5)
    assert prediction.forces.sum(0).abs().max() < 1e-9 * prediction.forces.abs().max()
    if make is crystal:
        energies = [
            predict(moved(graph, graph.positions * (1 + s), graph.cell[0] * (1 + s))).energy.item()
            for s in (step, -step)
        ]
        trace = (energies[0] - energies[1]) / (2 * step) / graph.volume.item()
        assert prediction.stress[0, :3].sum().item() == pytest.approx(trace, rel=1e-6)


def test_nothing_changes_on_the_structures_of_a_simulation():
    """At 500 K no bond of ethanol is ever as short as 0.7 sums of covalent radii."""
    graphs = rmd17(cutoff=5.0).test
    wall = Repulsion()
    assert all(bool((wall(each, each.edge_vectors())[0] == 0).all()) for each in graphs)
    kept, walled = load("ethanol"), load("ethanol", repulsion=wall)
    assert torch.equal(kept(graphs[0]).forces, walled(graphs[0]).forces)


def test_keeps_its_place_in_a_file(tmp_path):
    _, walled = with_repulsion()
    save(walled, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").config.repulsion == Repulsion(0.7)


def test_a_reach_beyond_bonds_is_refused():
    with pytest.raises(ValueError, match="at most 1 sum of covalent radii, received 1.5"):
        Repulsion(1.5)
