"""Batches of nearly equal work, from structures of different size."""

import heapq
from dataclasses import dataclass

import numpy as np

# How far structures are moved in the order of sizes before they are dealt, as a fraction of all. A tenth is enough that no two
# structures keep company, and costs one or two per cent in evenness; less is tried where that is too much.
_DISORDER = (0.1, 0.05, 0.02, 0.01, 0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Balance:
    """Divides structures into a fixed number of batches with nearly equal numbers of edges, in another way every epoch.

    The time and memory of a step follow the number of edges. Structures are dealt from the largest to the smallest, each to the
    batch that has the fewest edges so far and room for one more. The order of sizes is disturbed at random, so that batches
    differ from epoch to epoch, and less or not at all where a batch would come out larger than ``max_edges``. Without disorder
    the numbers of edges are the same in every epoch, and the number of batches is chosen so that they are within the limit: so
    it is the same in every epoch too, and training can be resumed at any batch.

    Source: R. L. Graham, SIAM J. Appl. Math. 17, 416 (1969): largest first is at most a third from the best division.

    Attributes:
      edges: [structures] int64, edges of each.
      most: structures in a batch, at most.
      max_edges: edges in a batch, at most.
      batches: how many there are.
    """

    edges: np.ndarray
    most: int
    max_edges: int
    batches: int

    @classmethod
    def of(cls, edges: np.ndarray, *, most: int, max_edges: int, multiple: int = 1) -> "Balance":
        """The smallest number of batches that this way of dealing keeps within the limits, and a multiple of ``multiple``.

        Raises:
          ValueError: a structure alone has more than ``max_edges`` edges.
        """
        check_largest(edges, max_edges)
        order = np.argsort(-edges, kind="stable")
        batches = max(-(-len(edges) // most), -(-int(edges.sum()) // max_edges))
        while True:
            batches = -(-batches // multiple) * multiple
            if _deal(order, edges, batches, most)[1].max() <= max_edges:
                return cls(edges=edges, most=most, max_edges=max_edges, batches=batches)
            batches += max(1, batches // 100)

    def deal(self, generator: np.random.Generator, *, shares: int = 1) -> list[np.ndarray]:
        """The structures of each batch, as indices; ``shares`` batches of the same size follow each other, else at random."""
        count = len(self.edges)
        shuffled = generator.permutation(count)
        by_size = shuffled[
            np.argsort(-self.edges[shuffled], kind="stable")
        ]  # equals in random order
        noise = generator.random(count) * count
        for disorder in _DISORDER:
            order = by_size[np.argsort(np.arange(count) + disorder * noise, kind="stable")]
            batch_of, loads = _deal(order, self.edges, self.batches, self.most)
            if loads.max() <= self.max_edges:
                break
        members = np.split(
            order[np.argsort(batch_of[order], kind="stable")],
            np.cumsum(np.bincount(batch_of, minlength=self.batches))[:-1],
        )
        steps = np.argsort(loads, kind="stable").reshape(-1, shares)
        return [members[batch] for batch in generator.permutation(steps).ravel()]


def consecutive(edges: np.ndarray, *, most: int, max_edges: int) -> list[np.ndarray]:
    """Batches within both limits that keep the order of the structures, as indices.

    Raises:
      ValueError: a structure alone has more than ``max_edges`` edges.
    """
    check_largest(edges, max_edges)
    before = np.concatenate([[0], np.cumsum(edges)])
    batches, first = [], 0
    while first < len(edges):
        last = int(np.searchsorted(before, before[first] + max_edges, side="right")) - 1
        last = min(last, first + most, len(edges))
        batches.append(np.arange(first, last))
        first = last
    return batches


def check_largest(edges: np.ndarray, max_edges: int) -> None:
    """Raise `ValueError` if a structure alone is too large for a batch."""
    if edges.max() > max_edges:
        raise ValueError(
            f"max_edges must be at least {edges.max()}, the edges of structure {edges.argmax()} "
            f"alone, received {max_edges}"
        )


def _deal(
    order: np.ndarray, edges: np.ndarray, batches: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """(batch of each structure, edges of each batch), dealing in this order."""
    batch_of = np.empty(len(order), dtype=np.int64)
    # Of batches with equally many edges the one with fewer structures comes first: what the loads will be then depends on the
    # sizes alone, not on which of several equal structures or batches was taken.
    heap = [(0, 0, batch) for batch in range(batches)]
    for structure, size in zip(order.tolist(), edges[order].tolist(), strict=True):
        load, members, batch = heap[0]
        batch_of[structure] = batch
        if members + 1 < most:
            heapq.heapreplace(heap, (load + size, members + 1, batch))
        else:
            heapq.heappop(heap)
    return batch_of, np.bincount(batch_of, weights=edges, minlength=batches).astype(np.int64)
