"""Splits by fraction and by group, and of data that are not in memory."""

import ase.build
import numpy as np
import pytest

from equipoise.data import Subset, blocks, formulas, split
from equipoise.graph import Graph
from tests.data.made import CUTOFF, mixture
from tests.data.test_structures import Lazy


@pytest.fixture(scope="module")
def graphs():
    return [Graph.from_ase(ase.build.molecule("H2O"), CUTOFF)] * 100


def rows(part):
    return set(part.rows.tolist())


def test_fractions(graphs):
    parts = split(graphs, train=0.8, validation=0.15, seed=0)
    assert [len(p) for p in (parts.train, parts.validation, parts.rest)] == [80, 15, 5]
    parts = split(graphs, train=20, validation=0.0, seed=0)
    assert [len(p) for p in (parts.train, parts.validation, parts.rest)] == [20, 0, 80]
    for wrong in (1.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"whole number .* fraction below 1, received {wrong}"):
            split(graphs, train=wrong, validation=1, seed=0)
    with pytest.raises(ValueError, match="80 training and 30 validation .* only 100"):
        split(graphs, train=0.8, validation=0.3, seed=0)


def test_no_block_is_divided(graphs):
    lazy = Subset(graphs, range(100))
    groups = blocks(100, 8)
    assert groups[[0, 7, 8, 99]].tolist() == [0, 0, 1, 12]
    parts = split(lazy, train=60, validation=20, seed=3, groups=groups)
    sets = [rows(part) for part in (parts.train, parts.validation, parts.rest)]
    owners = [{int(groups[row]) for row in part} for part in sets]
    assert set.union(*sets) == set(range(100)) and sum(map(len, sets)) == 100
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    assert 52 < len(sets[0]) <= 60 and 12 < len(sets[1]) <= 20  # short by less than a block
    again = split(lazy, train=60, validation=20, seed=3, groups=groups)
    other = split(lazy, train=60, validation=20, seed=4, groups=groups)
    assert rows(again.train) == sets[0] != rows(other.train)


def test_molecules_are_kept_apart():
    graphs = mixture() * 3
    assert formulas(graphs)[:6] == ["H2O", "C6H6", "He", "Cu", "Al2", "CH4"]
    assert formulas(Lazy(graphs)) == formulas(graphs)
    parts = split(graphs, train=9, validation=6, seed=1, groups=formulas(graphs))
    kinds = [set(formulas(part)) for part in (parts.train, parts.validation, parts.rest)]
    assert [len(kind) for kind in kinds] == [3, 2, 1] and len(set.union(*kinds)) == 6


def test_few_groups_are_fitted_if_they_can_be(graphs):
    groups = np.array([0] * 60 + [1] * 40)
    for seed in range(10):
        parts = split(graphs, train=60, validation=40, seed=seed, groups=groups)
        assert len(parts.train) == 60 and len(parts.validation) == 40
    with pytest.raises(ValueError, match="fits into the 30 structures of validation.* 40 to 60"):
        split(graphs, train=60, validation=30, seed=0, groups=groups)
    with pytest.raises(ValueError, match="each of the 100 structures, received 3"):
        split(graphs, train=60, validation=30, seed=0, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="at least 1 structure, received 0"):
        blocks(100, 0)


def test_a_lazy_set_is_divided_like_a_list():
    graphs = mixture() * 50
    lazy = Lazy(graphs)
    lists = split(graphs, train=0.5, validation=5, seed=7)
    lazy.asked = 0
    views = split(lazy, train=0.5, validation=5, seed=7)
    assert lazy.asked < 60  # by the checks of types while testing
    for name in ("train", "validation", "rest"):
        view, kept = getattr(views, name), getattr(lists, name)
        assert isinstance(kept, list)
        assert [graphs[row] for row in view.rows] == kept
