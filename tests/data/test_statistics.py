"""Reference energies, force scale and sizes of a training set."""

import importlib

import ase.build
import numpy as np
import pytest
import torch

from equipoise.data import statistics
from equipoise.graph import Graph, batch

module = importlib.import_module("equipoise.data.statistics")  # `statistics` is also its function

ATOMIC = {1: -13.6, 6: -1029.5, 7: -1485.0, 8: -2042.0}


def molecules(names, atomic=ATOMIC, cutoff=5.0):
    """Molecules whose energy is exactly a sum over their atoms."""
    graphs = []
    for name in names:
        atoms = ase.build.molecule(name)
        energy = sum(atomic[int(z)] for z in atoms.numbers)
        forces = np.full((len(atoms), 3), float(len(graphs) + 1))
        graphs.append(
            Graph.build(
                atoms.positions,
                atoms.numbers,
                cutoff=cutoff,
                energy=energy,
                forces=forces,
            )
        )
    return graphs


def test_reference_energies_are_recovered():
    graphs = molecules(["H2O", "CH4", "NH3", "CO2", "CH3CH2OH", "N2", "HCN"])
    found = statistics(graphs)
    assert found.elements == (1, 6, 7, 8)
    expected = [ATOMIC[z] for z in found.elements]
    assert found.reference_energies == pytest.approx(expected, abs=1e-8)


def test_one_composition_gives_the_minimum_norm():
    graphs = molecules(["CH3CH2OH"] * 3)
    found = statistics(graphs)
    counts = np.array([6.0, 2.0, 1.0])
    energy = float(graphs[0].energy)
    np.testing.assert_allclose(
        found.reference_energies, energy * counts / (counts @ counts), rtol=1e-12
    )


def test_least_squares_rather_than_interpolation():
    """Two energies for one composition: the reference is their mean."""
    graphs = molecules(["N2", "N2"])
    graphs[0] = graphs[0].replace(energy=graphs[0].energy + 2.0)
    assert statistics(graphs).reference_energies[0] == pytest.approx(ATOMIC[7] + 0.5)


def test_force_rms_is_over_all_components():
    graphs = molecules(["H2O", "CH4"])  # forces 1 on 3 atoms, 2 on 5 atoms
    expected = np.sqrt((3 * 1 + 5 * 4) / 8)
    assert statistics(graphs).force_rms == pytest.approx(expected, rel=1e-12)


def test_neighbours_and_sizes():
    graphs = molecules(["H2O", "CH4"])
    found = statistics(graphs)
    assert found.mean_atoms == 4.0
    assert found.mean_neighbours == (3 * 2 + 5 * 4) / 8
    assert statistics(molecules(["H2O"], cutoff=0.5)).mean_neighbours == 0.0


def test_batches_and_single_graphs_agree():
    graphs = molecules(["H2O", "CH4", "NH3", "CO2", "N2"])
    one, other = statistics(graphs), statistics([batch(graphs[:2]), batch(graphs[2:])])
    assert one.elements == other.elements
    assert one.reference_energies == pytest.approx(other.reference_energies, rel=1e-12)
    assert one.force_rms == pytest.approx(other.force_rms, rel=1e-12)
    assert one.mean_neighbours == other.mean_neighbours


@pytest.mark.parametrize("batched", [False, True])
def test_missing_labels_are_left_out(batched):
    graphs = molecules(["H2O", "CO2", "CH4", "N2"])
    lacking = molecules(["H2O", "CH4"])
    lacking = [graph.replace(energy=None, forces=None) for graph in lacking]
    everything = graphs + lacking
    found = statistics([batch(everything)] if batched else everything)
    expected = statistics(graphs)
    assert found.reference_energies == pytest.approx(expected.reference_energies)
    assert found.force_rms == expected.force_rms
    assert found.mean_atoms == (3 + 3 + 5 + 2 + 3 + 5) / 6


def test_no_labels_give_neutral_scales():
    graphs = [graph.replace(energy=None, forces=None) for graph in molecules(["H2O", "CH4"])]
    found = statistics(graphs)
    assert found.reference_energies == (0.0, 0.0, 0.0)
    assert found.force_rms == 1.0
    still = [g.replace(forces=torch.zeros_like(g.positions)) for g in graphs]
    assert statistics(still).force_rms == 1.0


def test_no_structures():
    with pytest.raises(ValueError, match="at least one structure"):
        statistics([])


# Sets that do not fit in one piece


def test_pieces_give_the_same_numbers(monkeypatch):
    graphs = molecules(["H2O", "CH4", "NH3", "CO2", "CH3CH2OH", "N2", "HCN"] * 6)
    rng = np.random.default_rng(0)
    graphs = [
        g.replace(energy=g.energy + rng.normal(), forces=g.forces * rng.normal()) for g in graphs
    ]
    graphs[3] = graphs[3].replace(energy=torch.full_like(graphs[3].energy, torch.nan))
    whole = statistics(graphs)
    monkeypatch.setattr(module, "_ROWS", 4)
    monkeypatch.setattr(module, "_COMPONENTS", 50)
    for pieces in (graphs, [batch(graphs[i : i + 7]) for i in range(0, 42, 7)]):
        found = statistics(iter(pieces))
        assert found.elements == whole.elements
        assert found.reference_energies == pytest.approx(whole.reference_energies, rel=1e-12)
        assert found.force_rms == pytest.approx(whole.force_rms, rel=1e-13)
        assert found.mean_neighbours == whole.mean_neighbours


def test_pieces_of_one_composition_give_the_minimum_norm(monkeypatch):
    """The triangle of a piece has rank 1, and its rounding errors must not count as more."""
    graphs = molecules(["CH3CH2OH"] * 50)
    graphs = [g.replace(energy=g.energy + 0.1 * i) for i, g in enumerate(graphs)]
    whole = statistics(graphs)
    monkeypatch.setattr(module, "_ROWS", 3)
    found = statistics(graphs).reference_energies
    assert found == pytest.approx(whole.reference_energies, rel=1e-11)
