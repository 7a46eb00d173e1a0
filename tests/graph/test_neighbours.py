"""Edges against a brute-force sum over images, and the Verlet skin against no skin."""

import itertools
import math

import numpy as np
import pytest
import torch

from equipoise.graph import NeighbourList
from equipoise.graph.neighbours import dense_pairs, vesin_pairs

TRICLINIC = np.array([[3.1, 0.0, 0.0], [1.2, 2.8, 0.0], [-0.7, 0.9, 3.3]])


def brute_force(positions, cell, pbc, cutoff, reach=9):
    """{(sender, receiver, S)} by trying every image within `reach` cells."""
    found = set()
    ranges = [range(-reach, reach + 1) if periodic else [0] for periodic in pbc]
    for shift in itertools.product(*ranges):
        vectors = positions[None, :, :] - positions[:, None, :] + np.array(shift) @ cell
        near = np.linalg.norm(vectors, axis=-1) < cutoff
        for sender, receiver in zip(*np.nonzero(near), strict=True):
            if sender != receiver or any(shift):
                found.add((int(sender), int(receiver), *shift))
    return found


def as_list(edges):
    senders, receivers, shifts = (part.tolist() for part in edges)
    return [(s, r, *x) for s, r, x in zip(senders, receivers, shifts, strict=True)]


@pytest.mark.parametrize("pbc", list(itertools.product([False, True], repeat=3)))
def test_triclinic_cell_smaller_than_the_cutoff(pbc):
    rng = np.random.default_rng(3)
    positions = rng.uniform(-4.0, 7.0, size=(4, 3))  # atoms outside the cell too
    edges = as_list(NeighbourList(5.0).update(positions, TRICLINIC, pbc))
    assert len(edges) == len(set(edges))
    assert set(edges) == brute_force(positions, TRICLINIC, pbc, 5.0)
    if all(pbc):
        assert len(edges) > 4 * 50  # the cell really is smaller than the cutoff


def test_slab_with_a_zero_third_vector():
    positions = np.random.default_rng(4).uniform(0.0, 6.0, size=(5, 3))
    cell = np.array([[2.5, 0.0, 0.0], [1.0, 3.0, 0.4], [0.0, 0.0, 0.0]])
    pbc = (True, True, False)
    edges = as_list(NeighbourList(4.0).update(positions, cell, pbc))
    assert set(edges) == brute_force(positions, cell, pbc, 4.0)
    assert edges


def test_one_atom_sees_its_own_images():
    cell = 2.0 * np.eye(3)
    edges = as_list(NeighbourList(2.5).update(np.zeros((1, 3)), cell, True))
    assert {edge[2:] for edge in edges} == {
        tuple(sign * row) for row in np.eye(3, dtype=int) for sign in (-1, 1)
    }


@pytest.mark.parametrize("number", [1, 2, 9, 120, 121, 150])
def test_dense_and_vesin_agree(number):
    positions = np.random.default_rng(number).uniform(0.0, 15.0, size=(number, 3))
    dense = dense_pairs(positions, 5.0)
    cell_list = vesin_pairs(positions, np.zeros((3, 3)), np.zeros(3, bool), 5.0)
    for one, other in zip(dense, cell_list, strict=True):
        np.testing.assert_array_equal(one, other)
    edges = NeighbourList(5.0).update(positions)
    assert set(as_list(edges)) == brute_force(positions, np.zeros((3, 3)), (0, 0, 0), 5.0)


def test_order_is_by_receiver_sender_shift():
    positions = np.random.default_rng(0).uniform(-9.0, 9.0, size=(6, 3))
    edges = as_list(NeighbourList(4.0).update(positions, TRICLINIC, True))
    assert edges == sorted(edges, key=lambda e: (e[1], e[0], *e[2:]))


@pytest.mark.parametrize("pbc", [False, True])
def test_a_pair_exactly_at_the_cutoff_is_no_edge(pbc):
    positions = np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    cell = 40.0 * np.eye(3)
    inside = np.nextafter(5.0, 6.0)
    assert len(NeighbourList(5.0).update(positions, cell, pbc).senders) == 0
    assert len(NeighbourList(inside).update(positions, cell, pbc).senders) == 2


def test_isolated_atom_has_no_edges():
    senders, receivers, shifts = NeighbourList(5.0).update(np.zeros((1, 3)))
    assert senders.shape == receivers.shape == (0,)
    assert shifts.shape == (0, 3)
    assert {senders.dtype, receivers.dtype, shifts.dtype} == {torch.int64}


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize(("number", "side"), [(9, 6.0), (130, 12.0)])
def test_skin_gives_the_edges_of_a_fresh_list_along_a_walk(pbc, number, side):
    rng = np.random.default_rng(11)
    cell = side * np.eye(3) + rng.normal(scale=0.5, size=(3, 3))
    positions = rng.uniform(0.0, side, size=(number, 3))
    kept = NeighbourList(4.0, skin=0.6)
    sizes = set()
    for _ in range(120):
        positions = positions + rng.normal(scale=0.02, size=positions.shape)
        reused, fresh = (
            neighbours.update(positions, cell, pbc) for neighbours in (kept, NeighbourList(4.0))
        )
        for one, other in zip(reused, fresh, strict=True):
            assert torch.equal(one, other)
        sizes.add(len(fresh.senders))
    assert 1 < kept.builds < 30  # it was rebuilt, and it was reused
    assert len(sizes) > 3  # pairs crossed the cutoff on the way


def test_skin_is_rebuilt_exactly_when_it_must_be():
    positions = np.random.default_rng(1).uniform(0.0, 6.0, size=(8, 3))
    cell = 8.0 * np.eye(3)
    neighbours = NeighbourList(4.0, skin=0.5)

    def builds(positions, cell=cell, pbc=True):
        neighbours.update(positions, cell, pbc)
        return neighbours.builds

    assert builds(positions) == 1
    assert builds(positions) == 1
    nudged = positions.copy()
    nudged[3, 1] += 0.249
    assert builds(nudged) == 1
    nudged[3, 1] = positions[3, 1] + 0.251
    assert builds(nudged) == 2
    assert builds(nudged, cell=cell * 1.001) == 3
    assert builds(nudged, cell=cell * 1.001, pbc=(True, True, False)) == 4
    assert builds(nudged[:-1], cell=cell * 1.001, pbc=(True, True, False)) == 5


def test_an_error_leaves_no_stale_list_behind():
    positions = np.random.default_rng(1).uniform(0.0, 6.0, size=(8, 3))
    neighbours = NeighbourList(4.0, skin=0.5)
    before = neighbours.update(positions)
    broken = positions.copy()
    broken[2] = np.nan
    with pytest.raises(ValueError, match="for atom 2"):
        neighbours.update(broken)
    after = neighbours.update(positions)
    assert neighbours.builds == 2
    assert torch.equal(before.senders, after.senders)


def test_coincidence_is_seen_while_the_skin_is_reused():
    positions = np.array([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0]])
    neighbours = NeighbourList(4.0, skin=1.0)
    neighbours.update(positions)
    with pytest.raises(ValueError, match="atoms 0 and 1"):
        neighbours.update(positions * [1e-3, 1, 1])
    assert neighbours.builds == 1


def test_tensors_and_arrays_are_the_same_input():
    positions = np.random.default_rng(5).uniform(0.0, 5.0, size=(7, 3))
    from_arrays = NeighbourList(3.0).update(positions, TRICLINIC, True)
    from_tensors = NeighbourList(3.0).update(
        torch.tensor(positions, requires_grad=True),
        torch.tensor(TRICLINIC),
        torch.tensor([True, True, True]),
    )
    for one, other in zip(from_arrays, from_tensors, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.nan, math.inf])
def test_cutoff_must_be_positive_and_finite(cutoff):
    with pytest.raises(ValueError, match=f"cutoff must be .* received {cutoff}"):
        NeighbourList(cutoff)


@pytest.mark.parametrize("skin", [-0.1, math.nan])
def test_skin_must_not_be_negative(skin):
    with pytest.raises(ValueError, match="skin must be"):
        NeighbourList(5.0, skin=skin)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_positions_must_be_finite(bad):
    positions = np.arange(12.0).reshape(4, 3)
    positions[2, 1] = bad
    with pytest.raises(ValueError, match="positions must be finite.*for atom 2"):
        NeighbourList(5.0).update(positions)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (1, 4, 3)])
def test_positions_must_have_three_columns(shape):
    with pytest.raises(ValueError, match="positions must have shape"):
        NeighbourList(5.0).update(np.ones(shape))


def test_positions_must_be_numbers():
    with pytest.raises(ValueError, match="positions must be an array of numbers"):
        NeighbourList(5.0).update([["a", "b", "c"]])


def test_a_structure_needs_an_atom():
    with pytest.raises(ValueError, match="at least one atom"):
        NeighbourList(5.0).update(np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cell_must_be_finite(bad):
    cell = 5.0 * np.eye(3)
    cell[1, 1] = bad
    with pytest.raises(ValueError, match="cell must be finite"):
        NeighbourList(5.0).update(np.zeros((1, 3)), cell, True)


def test_cell_must_be_three_by_three():
    with pytest.raises(ValueError, match=r"cell must have shape \[3, 3\].*received \(6,\)"):
        NeighbourList(5.0).update(np.zeros((1, 3)), np.ones(6), True)


def test_pbc_must_be_one_or_three_flags():
    with pytest.raises(ValueError, match="pbc must be one bool or three"):
        NeighbourList(5.0).update(np.zeros((1, 3)), np.eye(3), [True, False])


def test_a_periodic_direction_needs_a_lattice_vector():
    cell = np.diag([5.0, 5.0, 0.0])
    with pytest.raises(ValueError, match="cell vector 2 is .* set pbc to False"):
        NeighbourList(5.0).update(np.zeros((1, 3)), cell, True)


def test_periodic_cell_vectors_must_be_independent():
    cell = np.array([[5.0, 0.0, 0.0], [2.0, 3.0, 0.0], [7.0, 3.0, 0.0]])
    with pytest.raises(ValueError, match="linearly independent"):
        NeighbourList(5.0).update(np.zeros((1, 3)), cell, True)


def test_a_cell_in_the_wrong_unit_is_refused_before_memory_is():
    with pytest.raises(ValueError, match="periodic images.*another unit"):
        NeighbourList(5.0).update(np.zeros((1, 3)), 0.05 * np.eye(3), True)


@pytest.mark.parametrize("number", [3, 130])
def test_coincident_atoms_are_named(number):
    positions = np.random.default_rng(2).uniform(0.0, 40.0, size=(number, 3))
    positions[2] = positions[1] + [0.0, 5e-4, 0.0]
    with pytest.raises(ValueError, match="atoms 1 and 2 are 5.00e-04 Angstrom apart"):
        NeighbourList(5.0).update(positions)


def test_coincidence_with_an_image_names_the_image():
    positions = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"atoms 0 and 1 \(through periodic image \["):
        NeighbourList(3.0).update(positions, 4.0 * np.eye(3), True)
