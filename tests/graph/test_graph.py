"""Graphs from arrays and from ASE: vectors, labels, refusals."""

import ase
import ase.build
import ase.calculators.emt
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.graph import Graph, NeighbourList

TRICLINIC = np.array([[3.1, 0.0, 0.0], [1.2, 2.8, 0.0], [-0.7, 0.9, 3.3]])


def crystal(number=4, cutoff=5.0, seed=0):
    positions = np.random.default_rng(seed).uniform(-2.0, 6.0, size=(number, 3))
    return Graph.build(positions, [6, 1, 8, 7][:number], cutoff=cutoff, cell=TRICLINIC, pbc=True)


def test_edge_vectors_follow_the_convention():
    graph = crystal()
    vectors = graph.edge_vectors().numpy()
    positions = graph.positions.numpy()
    for edge in range(0, graph.n_edges, 7):
        sender, receiver = int(graph.senders[edge]), int(graph.receivers[edge])
        image = graph.shifts[edge].numpy() @ TRICLINIC
        np.testing.assert_allclose(
            vectors[edge], positions[receiver] - positions[sender] + image, atol=1e-14
        )
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths.max() < 5.0


def test_every_edge_has_its_reverse():
    graph = crystal()
    edges = {
        (s, r, *x)
        for s, r, x in zip(
            graph.senders.tolist(),
            graph.receivers.tolist(),
            graph.shifts.tolist(),
            strict=True,
        )
    }
    assert edges == {(r, s, -x, -y, -z) for s, r, x, y, z in edges}


def test_vectors_do_not_depend_on_wrapping():
    """The same crystal with one atom moved by lattice vectors has the same vectors."""
    graph = crystal()
    moved = graph.positions.numpy().copy()
    moved[1] += np.array([2, -1, 3]) @ TRICLINIC
    other = Graph.build(moved, graph.species, cutoff=5.0, cell=TRICLINIC, pbc=[True, True, True])

    def rows(graph):
        table = torch.cat(
            [graph.senders[:, None], graph.receivers[:, None], graph.edge_vectors()], 1
        )
        return np.array(sorted(table.round(decimals=6).tolist()))

    np.testing.assert_allclose(rows(graph), rows(other), atol=2e-6)


def test_edge_vectors_are_differentiable_twice_in_positions_and_cell():
    graph = crystal(number=2, cutoff=3.5)
    assert bool(graph.shifts.any())

    def energy(positions, cell):
        vectors = graph.edge_vectors(positions, cell)
        return torch.exp(-(vectors**2).sum(-1) / 4).sum()

    inputs = (
        graph.positions.clone().requires_grad_(),
        graph.cell.clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs)


def test_strain_gradient_agrees_with_rebuilt_neighbours():
    """d/dcell through edge_vectors is that of the really strained crystal."""
    graph = crystal(number=3, cutoff=4.0)

    def energy(vectors):
        squared = (vectors**2).sum(-1)
        inside = (1 - squared / 16.0).clamp(min=0)
        return (inside**4).sum()

    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    value = energy(graph.edge_vectors(graph.positions @ deformation, graph.cell @ deformation))
    (slope,) = torch.autograd.grad(value, strain)

    def rebuilt(size):
        matrix = np.eye(3)
        matrix[0, 1] = size
        strained = Graph.build(
            graph.positions.numpy() @ matrix,
            graph.species,
            cutoff=4.0,
            cell=TRICLINIC @ matrix,
            pbc=True,
        )
        return float(energy(strained.edge_vectors()))

    numeric = (rebuilt(1e-5) - rebuilt(-1e-5)) / 2e-5
    assert float(slope[0, 1]) == pytest.approx(numeric, rel=1e-7)


def test_properties_of_one_structure():
    graph = crystal()
    assert (graph.n_atoms, graph.n_structures) == (4, 1)
    assert graph.n_edges == len(graph.senders)
    assert graph.counts.tolist() == [4]
    assert float(graph.volume) == pytest.approx(abs(np.linalg.det(TRICLINIC)))
    assert graph.positions.dtype == graph.cell.dtype == torch.float64
    assert graph.device == torch.device("cpu")
    assert graph.to("cpu").positions.equal(graph.positions)


def test_isolated_atom():
    graph = Graph.from_ase(ase.Atoms("He", positions=[[1.0, 2.0, 3.0]]), 5.0)
    assert graph.n_edges == 0
    assert graph.edge_vectors().shape == (0, 3)
    assert float(graph.volume) == 0.0


def test_later_moves_of_the_atoms_do_not_reach_the_graph():
    atoms = ase.build.molecule("H2O")
    graph = Graph.from_ase(atoms, 5.0)
    before = graph.positions.clone()
    atoms.positions += 1.0
    atoms.numbers[0] = 16
    assert graph.positions.equal(before)
    assert graph.species.tolist() == [8, 1, 1]


def test_neighbour_list_is_reused_between_graphs():
    atoms = ase.build.molecule("CH3CH2OH")
    neighbours = NeighbourList(5.0, skin=0.5)
    for _ in range(3):
        atoms.rattle(1e-3, seed=1)
        graph = Graph.from_ase(atoms, 5.0, neighbours=neighbours)
        fresh = Graph.from_ase(atoms, 5.0)
        assert graph.senders.equal(fresh.senders)
    assert neighbours.builds == 1
    with pytest.raises(ValueError, match="cutoff of 4.0 Angstrom, received one with 5.0"):
        Graph.from_ase(atoms, 4.0, neighbours=neighbours)


# Labels


def labelled_water(**results):
    atoms = ase.build.molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_labels_from_the_calculator():
    forces = np.arange(9.0).reshape(3, 3)
    graph = Graph.from_ase(labelled_water(energy=-1.5, forces=forces), 5.0)
    assert graph.energy.tolist() == [-1.5]
    np.testing.assert_array_equal(graph.forces.numpy(), forces)
    assert graph.stress is None


def test_ref_keys_win_over_the_calculator():
    atoms = labelled_water(energy=-1.5, forces=np.zeros((3, 3)))
    atoms.info["REF_energy"] = -2.5
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    atoms.info["REF_stress"] = np.arange(6.0)
    graph = Graph.from_ase(atoms, 5.0)
    assert graph.energy.tolist() == [-2.5]
    assert graph.forces.unique().tolist() == [1.0]
    assert graph.stress.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]


def test_plain_labels_beside_ref_keys_are_those_of_another_method():
    atoms = labelled_water(energy=-1.5, forces=np.zeros((3, 3)))
    atoms.info["REF_energy"] = -2.5
    graph = Graph.from_ase(atoms, 5.0)
    assert graph.energy.tolist() == [-2.5] and graph.forces is None


def test_explicit_keys_look_nowhere_else():
    atoms = labelled_water(energy=-1.5)
    atoms.info["dft"] = -3.5
    assert Graph.from_ase(atoms, 5.0, energy_key="dft").energy.tolist() == [-3.5]
    assert Graph.from_ase(atoms, 5.0, energy_key="energy").energy.tolist() == [-1.5]
    assert Graph.from_ase(atoms, 5.0, energy_key="nothing").energy is None


def test_labels_can_be_left_unread():
    assert Graph.from_ase(labelled_water(energy=-1.5), 5.0, labels=False).energy is None


def test_results_of_other_positions_are_not_labels():
    atoms = ase.build.molecule("H2O")
    atoms.calc = ase.calculators.emt.EMT()
    energy = atoms.get_potential_energy()
    assert Graph.from_ase(atoms, 5.0).energy.tolist() == [energy]
    atoms.positions[0, 0] += 0.1
    assert Graph.from_ase(atoms, 5.0).energy is None
    assert atoms.calc.results  # and the calculator was left alone


def test_stress_matrix_becomes_voigt():
    stress = [[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]
    expected = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    for form in (stress, np.array(stress).ravel(), expected[0]):
        graph = Graph.build([[0.0, 0.0, 0.0]], [2], cutoff=5.0, stress=form)
        assert graph.stress.tolist() == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"energy": np.nan}, "energy label must be finite"),
        ({"energy": [1.0, 2.0]}, r"must be one number, received shape \(2,\)"),
        ({"energy": "low"}, "energy labels must be numbers"),
        ({"forces": np.zeros((2, 3))}, r"\(3, 3\), received \(2, 3\)"),
        ({"forces": np.zeros(9)}, r"received \(9,\)"),
        ({"forces": [[0, 0, 0], [0, np.inf, 0], [0, 0, 0]]}, "finite.* for atom 1"),
        ({"stress": np.zeros(3)}, r"stress label must have shape .* received \(3,\)"),
        ({"stress": [0, 0, np.nan, 0, 0, 0]}, "stress label must be finite"),
        ({"stress": np.arange(9.0).reshape(3, 3)}, "must be symmetric"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    atoms = ase.build.molecule("H2O")
    with pytest.raises(ValueError, match=message):
        Graph.build(atoms.positions, atoms.numbers, cutoff=5.0, **labels)


def test_bad_labels_in_an_ase_object_are_refused():
    atoms = ase.build.molecule("H2O")
    atoms.info["REF_energy"] = np.inf
    with pytest.raises(ValueError, match="energy label must be finite"):
        Graph.from_ase(atoms, 5.0)


def test_to_ase_and_back():
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    rng = np.random.default_rng(0)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-3.0, forces=rng.normal(size=(4, 3)), stress=rng.normal(size=6)
    )
    graph = Graph.from_ase(atoms, 4.0)
    (back,) = graph.to_ase()
    again = Graph.from_ase(back, 4.0)
    for name in ("positions", "species", "cell", "pbc", "energy", "forces", "stress"):
        assert getattr(graph, name).equal(getattr(again, name)), name


# Refusals


@pytest.mark.parametrize(
    ("species", "message"),
    [
        ([8, 1, 0], r"received 0 \(ASE's dummy atom X\) for atom 2"),
        ([8, -1, 1], "received -1 for atom 1"),
        ([119, 1, 1], "received 119 for atom 0"),
        ([8, 1], r"each of the 3 atoms, received shape \(2,\)"),
        ([8.0, 1.0, 1.0], "whole atomic numbers"),
        (["O", "H", "H"], "whole atomic numbers"),
    ],
)
def test_species_must_be_atomic_numbers(species, message):
    positions = ase.build.molecule("H2O").positions
    with pytest.raises(ValueError, match=message):
        Graph.build(positions, species, cutoff=5.0)


@pytest.mark.parametrize("cutoff", [0.0, -3.0])
def test_cutoff_must_be_positive(cutoff):
    with pytest.raises(ValueError, match="cutoff must be"):
        Graph.from_ase(ase.build.molecule("H2O"), cutoff)


def test_empty_atoms_are_refused():
    with pytest.raises(ValueError, match="at least one atom"):
        Graph.from_ase(ase.Atoms(), 5.0)


def test_replace_checks_shapes_and_types():
    graph = crystal()
    moved = graph.replace(positions=graph.positions + 1.0)
    torch.testing.assert_close(moved.edge_vectors(), graph.edge_vectors())
    # With run-time type checks on, jaxtyping refuses first, with a TypeError.
    for changes in (
        {"positions": graph.positions.float()},
        {"owner": graph.owner[:-1]},
        {"energy": torch.zeros(2, dtype=torch.float64)},
    ):
        with pytest.raises((ValueError, TypeError), match=next(iter(changes))):
            graph.replace(**changes)
