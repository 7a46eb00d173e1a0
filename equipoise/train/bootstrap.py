"""How far a measured error would move with another test set of the same kind and size: the bootstrap.

Structures are drawn with replacement from those there are, as many as there are, again and again; each time every error is
computed anew, as a ratio of sums. The middle 95 per cent of the results are the interval. Structures are drawn whole, because
the errors of atoms in one structure are far from independent.

What this does *not* show: how far the error would move with another training seed, split or data set. Intervals of two models
that overlap do not mean that the models are equally good, either: on the *same* structures their errors go up and down together,
so compare them by the interval of the difference (`Bootstrap.differences`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from equipoise.train.metrics import Errors, tally_of

FEWEST = 10  # blocks from which an interval is given at all


@dataclass(frozen=True)
class Interval:
    """Where the middle part of the resampled values lies."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """By how much the error of one potential is larger than that of another on the same structures."""

    value: float  # meV, meV/Å, ...: other minus first
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0, so that the sign would survive another test set."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Bootstrap:
    """Resampling of structures, with the same draws every time.

    Source: Efron, Ann. Statist. 7, 1 (1979), percentile interval; blocks that do not overlap: Carlstein, Ann. Statist. 14, 1171
    (1986).

    When this is the wrong tool: below some thirty structures (or blocks) the intervals are too narrow; below ten there are none.

    Attributes:
      replicates: resampled sets.
      level: part of the resampled values that lies within the interval.
      block: consecutive structures that are drawn together. 1 for structures that have nothing to do with each other. Frames of
        one trajectory resemble their neighbours, and drawn one by one they would feign a precision that is not there: let a block
        be longer than it takes the errors to forget (some hundred fs).
      seed: of the draws.
    """

    replicates: int = 1000
    level: float = 0.95
    block: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError(f"replicates must be at least 2, received {self.replicates}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, received {self.level}")
        if self.block < 1:
            raise ValueError(f"block must be at least 1 structure, received {self.block}")

    def intervals(self, sums: np.ndarray) -> dict[str, Interval | None]:
        """An interval for every error; None where there is none: too few structures, no label, or a NaN.

        Args:
          sums: [structures, SUMS], such as `Outcomes.sums`.
        """
        blocks = self._blocks(sums)
        draws = [_drawn(weights, blocks) for weights in self._weights(len(blocks))]
        return {name: self._interval([draw[name] for draw in draws]) for name in NAMES}

    def differences(self, first: np.ndarray, other: np.ndarray) -> dict[str, Difference | None]:
        """Errors of `other` minus those of `first`, both resampled with the same structures.

        Args:
          first, other: [structures, SUMS] of two potentials on the same structures, in the same order.

        Raises:
          ValueError: if there are not as many structures in both.
        """
        if len(first) != len(other):
            raise ValueError(
                f"a difference needs the same structures in both, received {len(first)} and {len(other)}"
            )
        ours, theirs = self._blocks(first), self._blocks(other)
        draws = [
            _change(_drawn(weights, ours), _drawn(weights, theirs))
            for weights in self._weights(len(ours))
        ]
        whole = np.ones(len(first))
        found: dict[str, Difference | None] = {}
        for name, value in _change(_drawn(whole, first), _drawn(whole, other)).items():
            interval = self._interval([draw[name] for draw in draws])
            found[name] = interval and Difference(value, interval.low, interval.high)
        return found

    def _blocks(self, sums: np.ndarray) -> np.ndarray:
        if self.block == 1 or len(sums) == 0:
            return sums
        return np.add.reduceat(sums, np.arange(0, len(sums), self.block), axis=0)

    def _weights(self, blocks: int) -> Iterator[np.ndarray]:
        """How often each block is drawn, for each replicate; nothing where there are too few."""
        if blocks < FEWEST:
            return
        generator = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            drawn = generator.integers(blocks, size=blocks)
            yield np.bincount(drawn, minlength=blocks).astype(float)

    def _interval(self, values: list[float]) -> Interval | None:
        if not values or not np.isfinite(values).all():
            return None
        tail = (1 - self.level) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return Interval(float(low), float(high))


NAMES = tuple(field.name for field in fields(Errors))


def _drawn(weights: np.ndarray, blocks: np.ndarray) -> dict[str, float]:
    with np.errstate(invalid="ignore"):  # a prediction that is infinite, times 0
        return vars(tally_of(weights @ blocks).errors())


def _change(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    return {name: theirs[name] - ours[name] for name in NAMES}
