"""Batches of structures, in an order that can be repeated exactly."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from equipoise.data.balance import Balance, consecutive
from equipoise.data.structures import edge_counts
from equipoise.graph import Graph, batch


class Loader:
    """Batches of ``graphs``, in an order that depends on (seed, epoch) and nothing else.

    There is no state: epoch 7 gives the same batches whether or not epochs 0 to 6 were run before, and every epoch has the same
    number of them, so that training can be resumed exactly by the number of its step.

    Several processes share the work: each makes a loader with the same arguments but its own ``rank``, and gets its share of
    every batch. Together they see each structure once in an epoch, never one twice. Without ``max_edges`` a batch is the same
    however many processes divide it.

    Args:
      graphs: single structures, in memory or not; only those of the current batches are asked for.
      batch_size: structures in a batch of all processes together, at most; the last batch may be smaller.
      shuffle: a new random order every epoch, or always the given one.
      seed: of the random order.
      max_edges: edges in the batch of one process, at most. Batches then have nearly the same number of edges, not of structures
        (:class:`Balance`): for structures of different sizes, whose batches otherwise differ in time and memory. The number of
        edges of every structure has to be known for this, which is one pass over data that do not say. With ``shuffle=False``
        structures keep their order and batches are filled up to the limits.
      prefetch: how many batches are made in the background, by a thread, while the current one is used. For data whose neighbours
        are found when they are asked for, above all with a GPU, which leaves the processor free meanwhile; it gains nothing for
        lists in memory, or where all cores compute already.
      rank, processes: which process this is, of how many.

    Raises:
      ValueError: no structures, arguments out of range, a structure with more than ``max_edges`` edges.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        max_edges: int | None = None,
        prefetch: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if len(graphs) == 0:
            raise ValueError("a loader needs at least one structure, received none")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, received {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, received {seed}")
        if max_edges is not None and max_edges < 1:
            raise ValueError(f"max_edges must be at least 1, received {max_edges}")
        if prefetch < 0:
            raise ValueError(f"prefetch must be at least 0 batches, received {prefetch}")
        if not 0 <= rank < processes:
            raise ValueError(f"rank must be 0 to processes - 1, received {rank} of {processes}")
        if batch_size < processes:
            raise ValueError(
                f"batch_size must be at least the number of processes, {processes}, so that all "
                f"have something to do, received {batch_size}"
            )
        self.graphs = graphs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.max_edges = max_edges
        self.prefetch = prefetch
        self.rank = rank
        self.processes = processes
        self._balance: Balance | None = None
        self._in_order: list[list[int]] = []
        if max_edges is not None:
            edges, most = edge_counts(graphs), batch_size // processes
            if shuffle:
                self._balance = Balance.of(
                    edges, most=most, max_edges=max_edges, multiple=processes
                )
            else:
                batches = consecutive(edges, most=most, max_edges=max_edges)
                self._in_order = [rows.tolist() for rows in batches]

    def __len__(self) -> int:
        """Batches per epoch, the same in all processes."""
        if self._balance is not None:
            return self._balance.batches // self.processes
        if self._in_order:
            return -(-len(self._in_order) // self.processes)
        return -(-len(self.graphs) // self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """The order of the structures in this epoch, all processes together, as indices into ``graphs``."""
        if self._balance is not None:
            return np.concatenate(self._deal(epoch)).tolist()
        if not self.shuffle:
            return list(range(len(self.graphs)))
        return self._generator(epoch).permutation(len(self.graphs)).tolist()

    def rows(self, epoch: int) -> list[list[int]]:
        """The structures of each batch of this process, as indices into ``graphs``.

        Empty where a batch, the last one of an epoch, has fewer structures than there are processes.
        """
        if self._balance is not None:
            return [rows.tolist() for rows in self._deal(epoch)[self.rank :: self.processes]]
        if self._in_order:
            own = self._in_order[self.rank :: self.processes]
            return own + [[]] * (len(self) - len(own))
        order, size = self.order(epoch), self.batch_size
        starts = range(0, len(order), size)
        return [order[start : start + size][self.rank :: self.processes] for start in starts]

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Graph]:
        """The batches of one epoch for this process, from the batch with index ``first`` on; empty ones are left out."""
        for _, graph in self._made(self.rows(number)[first:]):
            if graph is not None:
                yield graph

    def steps(self, first: int = 0) -> Iterator[tuple[list[int], Graph | None]]:
        """(rows, batch) of this process from step ``first`` on, epoch after epoch, without end.

        Step s is batch s modulo ``len(loader)`` of epoch s // ``len(loader)``. ``rows`` says which of ``graphs`` the batch holds;
        there is no batch where that is none. Batches of the next epoch are prefetched at the end of one.
        """
        return self._made(self._rows_since(first))

    def _rows_since(self, step: int) -> Iterator[list[int]]:
        epoch, first = divmod(step, len(self))
        while True:
            yield from self.rows(epoch)[first:]
            epoch, first = epoch + 1, 0

    def _made(self, batches: Iterable[list[int]]) -> Iterator[tuple[list[int], Graph | None]]:
        if self.prefetch == 0:
            for rows in batches:
                yield rows, self._batch(rows)
            return
        # One thread: several would wait for each other, as making graphs is mostly Python. It ends with this generator, whichever
        # way that ends: exhausted, closed, or by an exception (Ctrl-C) where it is used. An error in it is raised here, in turn.
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        coming: deque = deque()
        try:
            for rows in batches:
                coming.append((rows, pool.submit(self._batch, rows)))
                if len(coming) > self.prefetch:
                    rows, future = coming.popleft()
                    yield rows, future.result()
            while coming:
                rows, future = coming.popleft()
                yield rows, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, rows: list[int]) -> Graph | None:
        return batch([self.graphs[row] for row in rows]) if rows else None

    def _deal(self, epoch: int) -> list[np.ndarray]:
        return self._balance.deal(self._generator(epoch), shares=self.processes)

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])
