"""Batching and taking apart again."""

import dataclasses

import ase.build
import numpy as np
import pytest
import torch

from equipoise.graph import Graph, batch


def some_graphs(cutoff=4.0):
    """A labelled molecule, an isolated atom, a crystal, an unlabelled molecule."""
    rng = np.random.default_rng(0)
    water = ase.build.molecule("H2O")
    copper = ase.build.bulk("Cu")
    return [
        Graph.build(
            water.positions,
            water.numbers,
            cutoff=cutoff,
            energy=-1.0,
            forces=rng.normal(size=(3, 3)),
        ),
        Graph.build([[5.0, 5.0, 5.0]], [2], cutoff=cutoff, energy=-2.0),
        Graph.build(
            copper.positions,
            copper.numbers,
            cutoff=cutoff,
            cell=copper.cell.array,
            pbc=True,
            stress=rng.normal(size=6),
        ),
        Graph.from_ase(ase.build.molecule("CH4"), cutoff),
    ]


def assert_same(one, other):
    for field in dataclasses.fields(Graph):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, torch.Tensor):
            assert isinstance(theirs, torch.Tensor), field.name
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True, msg=field.name)
        else:
            assert mine == theirs, field.name


def test_split_undoes_batch():
    graphs = some_graphs()
    parts = batch(graphs).split()
    assert len(parts) == len(graphs)
    for graph, part in zip(graphs, parts, strict=True):
        assert_same(graph, part)


def test_sizes_and_owners_of_a_batch():
    joined = batch(some_graphs())
    assert joined.counts.tolist() == [3, 1, 1, 5]
    assert joined.owner.tolist() == [0] * 3 + [1] + [2] + [3] * 5
    assert (joined.n_structures, joined.n_atoms) == (4, 10)
    np.testing.assert_allclose(joined.volume.numpy(), [0, 0, ase.build.bulk("Cu").get_volume(), 0])


def test_edges_stay_within_their_structure_and_keep_their_vectors():
    graphs = some_graphs()
    joined = batch(graphs)
    assert torch.equal(joined.owner[joined.senders], joined.owner[joined.receivers])
    expected = torch.cat([graph.edge_vectors() for graph in graphs])
    assert torch.equal(joined.edge_vectors(), expected)


def test_missing_labels_are_nan():
    joined = batch(some_graphs())
    assert joined.energy.isnan().tolist() == [False, False, True, True]
    assert joined.forces.isnan().all(dim=1).tolist() == [False] * 3 + [True] * 7
    assert joined.stress.isnan().all(dim=1).tolist() == [True, True, False, True]
    unlabelled = [graph.replace(energy=None) for graph in some_graphs()]
    assert batch(unlabelled).energy is None


def test_batches_can_be_batched():
    graphs = some_graphs()
    assert_same(batch([batch(graphs[:2]), batch(graphs[2:])]), batch(graphs))


def test_a_batch_split_from_shuffled_edges_keeps_each_structure():
    joined = batch(some_graphs())
    order = torch.randperm(joined.n_edges, generator=torch.Generator().manual_seed(0))
    shuffled = joined.replace(
        senders=joined.senders[order],
        receivers=joined.receivers[order],
        shifts=joined.shifts[order],
    )
    for part, graph in zip(shuffled.split(), some_graphs(), strict=True):
        assert part.n_edges == graph.n_edges
        torch.testing.assert_close(
            part.edge_vectors().norm(dim=1).sort().values,
            graph.edge_vectors().norm(dim=1).sort().values,
        )


def test_different_cutoffs_are_refused():
    with pytest.raises(ValueError, match=r"same cutoff, received \[4.0, 5.0\]"):
        batch([some_graphs(4.0)[0], some_graphs(5.0)[0]])


def test_nothing_to_batch():
    with pytest.raises(ValueError, match="at least one graph"):
        batch([])
