"""Batches of equal work, shared between processes, made in the background."""

import signal
import threading
import time

import ase.build
import numpy as np
import pytest

from equipoise.data import Loader, MappedStructures, edge_counts, write_mapped
from equipoise.data.balance import Balance, consecutive
from equipoise.graph import Graph
from tests.data.made import CUTOFF, mixture, same


def sizes(kind, number):
    rng = np.random.default_rng(5)
    return {
        "equal": np.full(number, 72),
        "similar": rng.integers(60, 73, number),
        "lognormal": np.exp(rng.normal(5, 0.8, number)).astype(np.int64),
        "two kinds": np.where(rng.random(number) < 0.1, 3000, 200) + rng.integers(0, 50, number),
        "isolated atoms": np.zeros(number, dtype=np.int64),
    }[kind]


KINDS = ["equal", "similar", "lognormal", "two kinds", "isolated atoms"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 7, 60, 1000])
@pytest.mark.parametrize(("most", "factor"), [(4, 50.0), (8, 4.0), (1000, 6.0)])
def test_limits_hold_in_every_epoch(kind, number, most, factor):
    edges = sizes(kind, number)
    limit = int(max(factor * edges.mean(), edges.max(), 1))
    balance = Balance.of(edges, most=most, max_edges=limit, multiple=2)
    assert balance.batches % 2 == 0
    for seed in range(3):
        batches = balance.deal(np.random.default_rng(seed), shares=2)
        assert len(batches) == balance.batches
        assert np.sort(np.concatenate(batches)).tolist() == list(range(number))
        assert max(map(len, batches)) <= most
        assert max(edges[rows].sum() for rows in batches) <= limit


@pytest.mark.parametrize("kind", ["equal", "similar", "lognormal", "two kinds"])
def test_batches_are_even_and_few(kind):
    edges = sizes(kind, 1000)
    limit = int(max(8 * edges.mean(), 1.2 * edges.max()))
    balance = Balance.of(edges, most=1000, max_edges=limit)
    assert edges.sum() / (balance.batches * limit) > 0.9
    loads = [edges[rows].sum() for rows in balance.deal(np.random.default_rng(0))]
    assert max(loads) <= 1.12 * np.mean(loads)
    random = np.random.default_rng(0).permutation(edges)[:992].reshape(124, 8).sum(axis=1)
    assert kind in ("equal", "similar") or np.std(random) > 5 * np.std(loads)


def test_epochs_bring_other_company():
    edges = sizes("lognormal", 500)
    balance = Balance.of(edges, most=32, max_edges=int(10 * edges.mean()))
    pairs = []
    for seed in range(2):
        batches = balance.deal(np.random.default_rng(seed))
        pairs.append({(a, b) for rows in batches for a in rows for b in rows if a < b})
    # Two random divisions share a fraction 1 / batches of their pairs.
    assert len(pairs[0] & pairs[1]) < 4 * len(pairs[0]) / balance.batches


def test_order_is_kept_without_shuffling():
    edges = np.array([5, 5, 5, 1, 1, 1, 1, 9, 2])
    batches = consecutive(edges, most=3, max_edges=10)
    assert [rows.tolist() for rows in batches] == [[0, 1], [2, 3, 4], [5, 6], [7], [8]]


# The loader


@pytest.fixture(scope="module")
def graphs():
    """Fifty structures of 0 to 90 edges, told apart by the first coordinate."""
    made = [g for _ in range(10) for g in mixture()[1:]]
    return [g.replace(positions=g.positions * 0 + i) for i, g in enumerate(made)]


def numbers(batches):
    return [[int(x) for x in b.positions[:, 0].unique_consecutive()] for b in batches]


LIMITS = [None, 150]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_edges", LIMITS)
def test_an_epoch_can_be_repeated_and_entered_anywhere(graphs, shuffle, max_edges):
    options = dict(batch_size=8, shuffle=shuffle, seed=3, max_edges=max_edges)
    loader = Loader(graphs, **options)
    epochs = [numbers(loader.epoch(number)) for number in range(3)]
    for epoch in epochs:
        assert len(epoch) == len(loader)
        assert sorted(sum(epoch, [])) == list(range(50))
        assert all(len(rows) <= 8 for rows in epoch)
    again = Loader(graphs, **options)
    assert numbers(again.epoch(2, first=3)) == epochs[2][3:]
    assert again.order(1) == sum(epochs[1], [])
    assert (epochs[0] != epochs[1]) == shuffle
    steps = again.steps(len(loader) + 2)
    taken = [next(steps) for _ in range(2 * len(loader) - 2)]
    assert [rows for rows, _ in taken] == (epochs[1] + epochs[2])[2:]
    assert numbers(graph for _, graph in taken) == (epochs[1] + epochs[2])[2:]


def test_limits_hold_for_batches(graphs):
    loader = Loader(graphs, batch_size=20, shuffle=True, max_edges=150)
    counts = edge_counts(graphs)
    for epoch in range(3):
        assert [b.n_edges for b in loader.epoch(epoch)] == [
            counts[rows].sum() for rows in loader.rows(epoch)
        ]
        assert max(counts[rows].sum() for rows in loader.rows(epoch)) <= 150
    with pytest.raises(ValueError, match=r"max_edges must be at least \d+, the edges of struc"):
        Loader(graphs, batch_size=4, shuffle=False, max_edges=20)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_edges", LIMITS)
@pytest.mark.parametrize(("processes", "number"), [(1, 50), (2, 50), (3, 50), (4, 33), (2, 3)])
def test_processes_share_without_doubles(graphs, shuffle, max_edges, processes, number):
    options = dict(batch_size=8, shuffle=shuffle, max_edges=max_edges, processes=processes)
    loaders = [Loader(graphs[:number], rank=rank, **options) for rank in range(processes)]
    assert len({len(loader) for loader in loaders}) == 1
    for epoch in range(2):
        shares = [loader.rows(epoch) for loader in loaders]
        assert {len(share) for share in shares} == {len(loaders[0])}
        seen = [row for share in shares for rows in share for row in rows]
        assert sorted(seen) == list(range(number))
        assert all(sum(map(len, step)) <= 8 for step in zip(*shares, strict=True))
        for loader, share in zip(loaders, shares, strict=True):
            assert numbers(loader.epoch(epoch)) == [rows for rows in share if rows]


def test_processes_divide_the_batches_of_one(graphs):
    whole = Loader(graphs, batch_size=8, shuffle=True, seed=1).rows(4)
    for processes in (2, 3):
        shares = [
            Loader(graphs, batch_size=8, shuffle=True, seed=1, rank=rank, processes=processes).rows(
                4
            )
            for rank in range(processes)
        ]
        assert [sorted(sum(step, [])) for step in zip(*shares, strict=True)] == [
            sorted(rows) for rows in whole
        ]


def test_a_share_may_be_empty(graphs):
    """Three structures, two processes, batches of two: one has nothing in the second step."""
    last = Loader(graphs[:3], batch_size=2, shuffle=True, rank=1, processes=2)
    assert [len(rows) for rows in last.rows(0)] == [1, 0]
    assert len(list(last.epoch(0))) == 1
    steps = last.steps()
    assert [graph is None for _, graph in (next(steps) for _ in range(4))] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_edges": 0}, "max_edges must be at least 1"),
        ({"prefetch": -1}, "prefetch must be at least 0"),
        ({"rank": 2, "processes": 2}, "rank must be 0 to processes - 1, received 2 of 2"),
        ({"processes": 0}, "rank must be 0 to"),
        ({"processes": 9}, "batch_size must be at least the number of processes, 9"),
    ],
)
def test_settings_are_checked(graphs, options, message):
    with pytest.raises(ValueError, match=message):
        Loader(graphs, batch_size=8, shuffle=True, **options)


def test_a_mapped_folder_is_loaded_like_a_list(tmp_path):
    many = mixture() * 4
    write_mapped(tmp_path / "a", many)
    lazy = MappedStructures(tmp_path / "a", cutoff=CUTOFF)
    for max_edges in LIMITS:
        options = dict(batch_size=5, shuffle=True, seed=2, max_edges=max_edges)
        one, other = Loader(many, **options), Loader(lazy, prefetch=2, **options)
        assert one.rows(3) == other.rows(3)
        for a, b in zip(one.epoch(3), other.epoch(3), strict=True):
            assert same(a, b)


# In the background


class Slow(list):
    """Takes its time for every structure, and says which were asked for."""

    def __init__(self, graphs, seconds=0.0):
        super().__init__(graphs)
        self.seconds, self.bad, self.asked = seconds, None, []

    def __getitem__(self, index):
        self.asked.append(index)
        time.sleep(self.seconds)
        if index == self.bad:
            raise ValueError(f"structure {index} is broken")
        return super().__getitem__(index)


@pytest.fixture
def water():
    return [Graph.from_ase(ase.build.molecule("H2O"), CUTOFF)] * 12


def prefetching():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("prefetch", [1, 3, 100])
def test_prefetching_changes_nothing_but_the_time(graphs, prefetch):
    plain = Loader(graphs, batch_size=8, shuffle=True)
    ahead = Loader(graphs, batch_size=8, shuffle=True, prefetch=prefetch)
    for epoch in range(2):
        for a, b in zip(plain.epoch(epoch), ahead.epoch(epoch), strict=True):
            assert same(a, b)
    assert not prefetching()


def test_the_next_batches_are_made_meanwhile(water):
    slow = Slow(water)
    batches = Loader(slow, batch_size=2, shuffle=False, prefetch=2).epoch(0)
    slow.asked.clear()
    next(batches)
    for _ in range(500):
        if len(slow.asked) == 6:
            break
        time.sleep(0.01)
    assert slow.asked == [0, 1, 2, 3, 4, 5]  # the one in use and two more, no further
    batches.close()
    assert not prefetching()


def test_an_error_comes_where_the_batch_would_have(water):
    slow = Slow(water)
    loader = Loader(slow, batch_size=2, shuffle=False, prefetch=3)
    slow.bad = 5  # not before: the type checks of the tests look at an item of their own choice
    batches = loader.epoch(0)
    assert [next(batches).n_structures for _ in range(2)] == [2, 2]
    with pytest.raises(ValueError, match="structure 5 is broken"):
        next(batches)
    assert not prefetching()


def test_interruption_ends_the_thread(water):
    """Ctrl-C while waiting for a batch."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        batches = Loader(Slow(water, 0.2), batch_size=3, shuffle=False, prefetch=2).epoch(0)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 5 and not prefetching()
