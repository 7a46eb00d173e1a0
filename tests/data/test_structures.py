"""Structures without edges, lazy sets and views of them: the difficult cases once, for all readers."""

import ase
import ase.build
import numpy as np
import pytest
import torch
from ase.constraints import FixAtoms, FixedPlane

from equipoise.data import Report, Structure, Structures, Subset, edge_counts
from equipoise.graph import Graph, batch
from tests.data.made import CUTOFF, mixture, same


def water(**changes):
    atoms = ase.build.molecule("H2O")
    return Structure(positions=atoms.positions, species=atoms.numbers, **changes)


class Lazy(Structures):
    """A list, one structure at a time; counts how often it is asked."""

    def __init__(self, graphs):
        self.cutoff, self.asked = CUTOFF, 0
        self._kept = [structure for graph in graphs for structure in Structure.of(graph)]

    def __len__(self):
        return len(self._kept)

    def __str__(self):
        return "a list"

    def structure(self, index):
        self.asked += 1
        return self._kept[index]

    def labels(self):
        return {"energy": "energy"}


def test_graph_and_structure_are_inverse():
    for graph in mixture():
        (structure,) = Structure.of(graph)
        assert same(structure.graph(CUTOFF), graph)
        assert structure.edges(CUTOFF) == graph.n_edges
    parts = Structure.of(batch(mixture()))
    assert all(same(s.graph(CUTOFF), g) for s, g in zip(parts, mixture(), strict=True))


def test_nan_throughout_is_a_missing_label():
    nan = np.full((3, 3), np.nan)
    graph = water(energy=np.nan, forces=nan, stress=nan[0].repeat(2)).graph(CUTOFF)
    assert graph.energy is graph.forces is graph.stress is None
    assert Report.of([graph]) == Report(1, 0, 0, 0)


def test_atoms_may_lack_their_force():
    forces = np.ones((3, 3))
    forces[1] = np.nan
    graph = water(forces=forces).graph(CUTOFF)
    assert graph.forces.isnan().all(dim=1).tolist() == [False, True, False]
    assert float(graph.forces.nansum()) == 6.0
    assert Report.of([graph]).forces == 1


def test_half_a_label_is_a_mistake():
    forces = np.ones((3, 3))
    forces[2, 0] = np.nan
    with pytest.raises(ValueError, match="finite.*for atom 2"):
        water(forces=forces).graph(CUTOFF)
    forces[1] = np.nan  # and so beside atoms that lack it altogether
    with pytest.raises(ValueError, match="finite.*for atom 2"):
        water(forces=forces).graph(CUTOFF)
    with pytest.raises(ValueError, match="stress label must be finite"):
        water(stress=np.array([1, 1, 1, 0, 0, np.nan])).graph(CUTOFF)
    with pytest.raises(ValueError, match="energy label must be finite, received inf"):
        water(energy=np.inf).graph(CUTOFF)


@pytest.mark.parametrize("wrong", ["three", np.ones(3), np.ones((2, 3))])
def test_labels_of_the_wrong_kind(wrong):
    with pytest.raises(ValueError, match="force"):
        water(forces=wrong).graph(CUTOFF)


def test_centring_loses_no_digits():
    here, there = water(), water(pbc=False)
    far = Structure(positions=there.positions + [200.0, -1e4, 3e3], species=there.species)
    assert np.abs(far.centred().positions.mean(axis=0)).max() < 1e-12
    np.testing.assert_allclose(far.centred().positions, here.centred().positions, atol=4e-12)
    crystal = Structure(
        positions=np.full((1, 3), 7.0), species=np.array([29]), cell=3 * np.eye(3), pbc=True
    )
    assert crystal.centred() is crystal
    assert crystal.graph(4.3).n_edges == 6 + 12  # images at 3 Å and at 4.24 Å


def test_ase_atoms_bring_tags_and_fixed_atoms():
    atoms = ase.build.fcc111("Al", (1, 1, 2), vacuum=6.0)
    atoms.set_constraint([FixAtoms([0]), FixedPlane(1, (0, 0, 1))])
    atoms.arrays["dft_forces"] = np.ones((2, 3))
    atoms.info["energy"] = np.nan
    structure = Structure.from_ase(atoms, {"forces": "dft_forces"})
    assert structure.tags.tolist() == [2, 1] and structure.fixed.tolist() == [True, False]
    graph = structure.graph(CUTOFF)
    assert graph.energy is None and graph.forces.tolist() == [[1.0] * 3] * 2
    free = structure.free().graph(CUTOFF)
    assert free.forces[0].isnan().all() and free.forces[1].tolist() == [1.0] * 3


# Views


def test_a_view_of_a_view_is_one_step_from_the_data():
    lazy = Lazy(mixture())
    view = lazy[1:][::-1][1:4]
    assert view.graphs is lazy and view.rows.tolist() == [4, 3, 2]
    lazy.asked = 0  # checks of types ask while testing
    assert [g.n_atoms for g in view] == [2, 1, 1] and lazy.asked == 3
    assert Report.of(view) == Report(3, 2, 2, 1)
    assert str(view) == "3 of a list structures" and view.cutoff == CUTOFF


def test_a_view_of_a_list_gives_its_own_graphs():
    graphs = mixture()
    view = Subset(graphs, [3, 0])
    assert view[0] is graphs[3] and view[-1] is graphs[0]
    assert view.structure(1).species.tolist() == [8, 1, 1]
    assert edge_counts(view).tolist() == [graphs[3].n_edges, graphs[0].n_edges]
    assert view.labels() == {"energy": "energy", "forces": "forces", "stress": "stress"}
    with pytest.raises(ValueError, match="rows must lie in 0 to 5, received 6"):
        Subset(graphs, [0, 6])


def test_edges_of_a_view_are_counted_for_the_view_alone():
    lazy = Lazy(mixture())
    expected = [graph.n_edges for graph in mixture()]
    view = Subset(lazy, [5, 1])
    lazy.asked = 0
    assert view.edge_counts().tolist() == [expected[5], expected[1]] and lazy.asked == 2
    assert lazy.edge_counts().tolist() == expected and lazy.asked == 8
    half = lazy[::2]
    lazy.asked = 0
    assert half.edge_counts().tolist() == expected[::2] and lazy.asked == 0  # known by now


def test_a_bad_structure_is_named():
    graphs = [Graph.from_ase(ase.build.molecule("H2O"), CUTOFF)] * 2
    lazy = Lazy(graphs)
    lazy._kept[1] = Structure(positions=np.zeros((2, 3)), species=np.array([1, 1]))
    assert torch.isfinite(lazy[0].positions).all()
    with pytest.raises(ValueError, match="structure 1 of a list: .*atoms 0 and 1"):
        lazy[1]
