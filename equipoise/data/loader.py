"""Batches of structures, in an order that can be repeated exactly."""

from collections.abc import Iterator, Sequence

import numpy as np

from equipoise.graph import Graph, batch


class Loader:
    """Batches of `graphs`, in an order that depends on (seed, epoch) and nothing else.

    There is no state: epoch 7 gives the same batches whether or not epochs 0 to 6 were
    run before, so that training can be resumed exactly by its epoch number.

    **Arguments**

    - `graphs`: single structures. `batch_size`: structures per batch, at least 1; the
      last batch may be smaller.
    - `shuffle`: a new random order every epoch, or always the given order.
    """

    def __init__(
        self, graphs: Sequence[Graph], *, batch_size: int, shuffle: bool, seed: int = 0
    ) -> None:
        if len(graphs) == 0:
            raise ValueError("a loader needs at least one structure, received none")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, received {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, received {seed}")
        self.graphs = list(graphs)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.graphs) // self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """The order of the structures in this epoch, as indices into `graphs`."""
        if not self.shuffle:
            return list(range(len(self.graphs)))
        generator = np.random.default_rng([self.seed, epoch])
        return generator.permutation(len(self.graphs)).tolist()

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Graph]:
        """The batches of one epoch, from the batch with index `first` on."""
        order = self.order(number)
        for start in range(first * self.batch_size, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield batch([self.graphs[row] for row in rows])
