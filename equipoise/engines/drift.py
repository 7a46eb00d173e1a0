"""How fast an energy that should stay does not, and how well that is known."""

from typing import NamedTuple

import numpy as np


class Drift(NamedTuple):
    """A straight line through the conserved energy."""

    slope: float  # meV/ps
    standard_error: float | None  # of the slope; None where there are too few steps to say
    scatter: float  # rms about the line, meV

    def of_each(self, atoms: int) -> "Drift":
        """The same per atom."""
        error = None if self.standard_error is None else self.standard_error / atoms
        return Drift(self.slope / atoms, error, self.scatter / atoms)

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.1g}"
        return f"{self.slope:+.2g}{error}"


BLOCKS = 10  # whose means are nearly independent of each other, where steps are not


def standard_error(
    times: np.ndarray, values: np.ndarray, counts: np.ndarray, slope: float
) -> float | None:
    """Of the slope of a line, from the scatter of ten blocks about it.

    Of a run of a few periods of the slowest vibration it is too small: such a run cannot know.

    **Arguments**: means of time and value, and how many steps these are of, in order.
    """
    if len(times) < BLOCKS:
        return None
    edges = np.linspace(0, len(times), BLOCKS + 1).astype(int)[:-1]
    weights = np.add.reduceat(counts, edges)
    t = np.add.reduceat(counts * times, edges) / weights
    e = np.add.reduceat(counts * (values - slope * times), edges) / weights
    return float(np.std(e, ddof=2) / np.sqrt(((t - t.mean()) ** 2).sum()))


def drift_of(times: np.ndarray, energies: np.ndarray) -> Drift | None:
    """The drift of energies, meV, at times, ps; None for fewer than three."""
    if len(times) < 3 or np.ptp(times) == 0:
        return None
    slope, offset = np.polyfit(times, energies, 1)
    rest = energies - slope * times - offset
    error = standard_error(times - times[0], energies - energies[0], np.ones(len(times)), slope)
    return Drift(float(slope), error, float(rest.std()))
