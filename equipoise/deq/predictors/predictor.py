"""The interface of every predictor."""

import abc
from collections.abc import Sequence

from torch import Tensor


class Predictor(abc.ABC):
    r"""Guess the next term of a sequence of tensors from the last ones.

    $$ z_0^{\mathrm{guess}} = \sum_{j=1}^{n} c_j z_{-j}, \qquad \sum_j c_j = 1 $$

    Predictors are linear in the history with coefficients that sum to one, so they
    commute with every linear symmetry of z: the guess for a rotated history is the
    rotated guess. They assume that the solutions are equally spaced in time.
    """

    @property
    @abc.abstractmethod
    def depth(self) -> int:
        """How many past solutions are used at most."""

    @abc.abstractmethod
    def coefficients(self, available: int) -> tuple[float, ...]:
        """Weights of the last min(available, depth) solutions, newest first.

        With a history shorter than `depth` the best predictor of that length is used,
        so that a sequence can start with one solution.
        """

    def __call__(self, history: Sequence[Tensor]) -> Tensor:
        """The guess: a tensor like those of `history`.

        **Arguments**

        - `history`: past solutions, newest first, all of one shape and type. Those
          beyond `depth` are ignored.

        **Raises** `ValueError` if `history` is empty.
        """
        if not history:
            raise ValueError(
                "a predictor needs at least 1 past solution, received none; start a "
                "first solve without a guess"
            )
        coefficients = self.coefficients(len(history))
        guess = coefficients[0] * history[0]
        for coefficient, past in zip(coefficients[1:], history[1:], strict=False):
            guess = guess + coefficient * past
        return guess
