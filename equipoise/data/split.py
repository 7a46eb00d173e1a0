"""Which structures train, which validate, and which are left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from equipoise.graph import Graph


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a list of structures."""

    train: list[Graph] = field(repr=False)
    validation: list[Graph] = field(repr=False)
    rest: list[Graph] = field(repr=False)  # neither; for testing, if anything


def split(graphs: Sequence[Graph], *, train: int, validation: int, seed: int) -> Split:
    """Draw `train` and `validation` structures at random, without overlap.

    The same `seed` and number of structures give the same split on every machine.

    Consecutive frames of one trajectory are nearly equal; a random split puts
    neighbours of the training structures into the validation set, which then looks
    better than it is. Use an official split, or separate trajectories, for testing.

    **Raises** `ValueError` for a negative number, no training structures, and more
    structures asked for than there are.
    """
    if train < 1 or validation < 0:
        raise ValueError(
            f"train must be at least 1 and validation at least 0, received {train} and {validation}"
        )
    if train + validation > len(graphs):
        raise ValueError(
            f"{train} training and {validation} validation structures are "
            f"{train + validation} in all, but there are only {len(graphs)}"
        )
    order = np.random.default_rng(seed).permutation(len(graphs)).tolist()
    return Split(
        train=[graphs[i] for i in order[:train]],
        validation=[graphs[i] for i in order[train : train + validation]],
        rest=[graphs[i] for i in order[train + validation :]],
    )
