"""A bounded random sample of the forces of an evaluation, for pictures."""

import numpy as np
import torch

from equipoise.graph import Graph
from equipoise.potentials import Prediction

MOST_ATOMS = 200_000  # 600,000 points in a parity plot, 10 MB


class Sample:
    """Keeps the forces of all structures, or of a random part of them that shrinks as more arrive.

    Every structure draws a number from [0, 1); those below a threshold are kept, and the threshold is halved whenever too many
    atoms are. So each structure has the same chance, wherever it stands, and the draws depend on nothing but its place.
    """

    def __init__(self, most_atoms: int = MOST_ATOMS) -> None:
        self._most = most_atoms
        self._threshold = 1.0
        self._generator = np.random.default_rng(0)
        self._kept: list[tuple[float, np.ndarray, np.ndarray]] = []
        self._atoms = 0

    def add(self, prediction: Prediction, graph: Graph) -> None:
        """Take a batch; everything on the CPU."""
        if prediction.forces is None:
            return
        label = graph.forces
        if label is None:
            label = torch.full_like(prediction.forces, torch.nan)
        counts = graph.counts.tolist()
        for true, pred in zip(label.split(counts), prediction.forces.split(counts), strict=True):
            draw = float(self._generator.random())
            if draw < self._threshold:
                # Copies: a view would keep the whole batch alive.
                self._kept.append((draw, true.numpy().copy(), pred.numpy().copy()))
                self._atoms += len(true)
            while self._atoms > self._most and len(self._kept) > 1:
                self._threshold /= 2
                self._kept = [each for each in self._kept if each[0] < self._threshold]
                self._atoms = sum(len(each[1]) for each in self._kept)

    def forces(self) -> tuple[np.ndarray, np.ndarray]:
        """True and predicted, eV/Å, [atoms, 3]."""
        if not self._kept:
            return np.zeros((0, 3)), np.zeros((0, 3))
        return (
            np.concatenate([true for _, true, _ in self._kept]),
            np.concatenate([pred for _, _, pred in self._kept]),
        )
