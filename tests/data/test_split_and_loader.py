"""Who trains, who validates, and in which order."""

import ase.build
import pytest
import torch

from equipoise.data import Loader, split
from equipoise.graph import Graph


@pytest.fixture(scope="module")
def graphs():
    """Ten water molecules, told apart by their energy 0 ... 9."""
    water = Graph.from_ase(ase.build.molecule("H2O"), 5.0)
    return [water.replace(energy=torch.tensor([float(i)], dtype=torch.float64)) for i in range(10)]


def names(graphs):
    return [int(e) for graph in graphs for e in graph.energy]


def test_split_is_disjoint_and_complete(graphs):
    parts = split(graphs, train=6, validation=3, seed=1)
    train, validation, rest = map(names, (parts.train, parts.validation, parts.rest))
    assert (len(train), len(validation), len(rest)) == (6, 3, 1)
    assert sorted(train + validation + rest) == list(range(10))


def test_split_depends_on_the_seed_only(graphs):
    def train(seed):
        return names(split(graphs, train=6, validation=3, seed=seed).train)

    assert train(1) == train(1)
    assert train(1) != train(2)
    # Written down: a split must not change under anyone's feet.
    assert train(0) == [4, 6, 2, 7, 3, 5]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (8, 3, "are 11 in all, but there are only 10"),
        (0, 3, "train must be at least 1"),
        (3, -1, "received 3 and -1"),
    ],
)
def test_impossible_splits(graphs, train, validation, message):
    with pytest.raises(ValueError, match=message):
        split(graphs, train=train, validation=validation, seed=0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_shows_every_structure_once(graphs, shuffle):
    loader = Loader(graphs, batch_size=4, shuffle=shuffle, seed=3)
    batches = list(loader.epoch(0))
    assert len(loader) == len(batches) == 3
    assert [b.n_structures for b in batches] == [4, 4, 2]
    assert sorted(names(batches)) == list(range(10))


def test_epochs_differ_and_can_be_repeated_out_of_order(graphs):
    loader = Loader(graphs, batch_size=4, shuffle=True, seed=3)
    orders = [names(loader.epoch(number)) for number in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    again = Loader(graphs, batch_size=4, shuffle=True, seed=3)
    assert names(again.epoch(2)) == orders[2]
    other = Loader(graphs, batch_size=4, shuffle=True, seed=4)
    assert names(other.epoch(2)) != orders[2]


def test_an_epoch_can_be_entered_in_the_middle(graphs):
    loader = Loader(graphs, batch_size=4, shuffle=True, seed=3)
    assert names(loader.epoch(1, first=1)) == names(loader.epoch(1))[4:]
    assert names(loader.epoch(1, first=3)) == []


def test_unshuffled_order_is_the_given_one(graphs):
    loader = Loader(graphs, batch_size=3, shuffle=False)
    assert names(loader.epoch(0)) == names(loader.epoch(5)) == list(range(10))


def test_loader_settings_are_checked(graphs):
    with pytest.raises(ValueError, match="at least one structure"):
        Loader([], batch_size=4, shuffle=False)
    with pytest.raises(ValueError, match="batch_size must be at least 1, received 0"):
        Loader(graphs, batch_size=0, shuffle=False)
    with pytest.raises(ValueError, match="seed must be at least 0, received -1"):
        Loader(graphs, batch_size=2, shuffle=True, seed=-1)
