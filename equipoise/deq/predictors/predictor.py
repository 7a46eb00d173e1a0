"""The interface of every predictor, and what those with fixed coefficients share."""

import abc
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from equipoise.deq.inner import Inner


class Predictor(abc.ABC):
    r"""Guess the next term of a sequence of tensors from the last ones.

    $$ z_0^{\mathrm{guess}} = \sum_{j=1}^{n} c_j z_{-j}, \qquad \sum_j c_j = 1 $$

    Predictors are linear in the history with coefficients that are numbers and sum to one, so they commute with every linear
    symmetry of z: the guess for a rotated history is the rotated guess. A predictor is a frozen record of settings; the
    states and the adjoints of the same solves are two histories, and two calls.
    """

    @property
    @abc.abstractmethod
    def depth(self) -> int:
        """How many past solutions are used at most."""

    @abc.abstractmethod
    def __call__(
        self,
        history: Sequence[Tensor],
        *,
        descriptors: Sequence[Tensor] | None = None,
        descriptor: Tensor | None = None,
        inner: Inner | None = None,
    ) -> Tensor:
        """The guess: a tensor like those of ``history``.

        All predictors are called alike; those with fixed coefficients make no use of the last three arguments.

        Args:
          history: past solutions, newest first, all of one shape and type. Those beyond ``depth`` are ignored.
          descriptors: of the problems that ``history`` solves, newest first: tensors that move with the problem as its
            solution does, such as the injected input.
          descriptor: of the problem to be solved now.
          inner: which rows form a structure; default one structure.

        Raises:
          ValueError: if ``history`` is empty, or a descriptor is needed and missing.
        """


class FixedCoefficients(Predictor):
    """A predictor whose coefficients depend on the length of the history alone: right for equal steps in time."""

    @abc.abstractmethod
    def coefficients(self, available: int) -> tuple[float, ...]:
        """Weights of the last min(available, depth) solutions, newest first.

        With a history shorter than ``depth`` the best predictor of that length is used, so that a sequence can start with
        one solution.
        """

    @property
    def amplification(self) -> float:
        """Σ|c_j|: the factor by which errors of the solves can be larger in the guess."""
        return sum(abs(c) for c in self.coefficients(self.depth))

    def __call__(
        self,
        history: Sequence[Tensor],
        *,
        descriptors: Sequence[Tensor] | None = None,
        descriptor: Tensor | None = None,
        inner: Inner | None = None,
    ) -> Tensor:
        check_history(history)
        coefficients = self.coefficients(len(history))
        guess = coefficients[0] * history[0]
        for coefficient, past in zip(coefficients[1:], history[1:], strict=False):
            guess = guess + coefficient * past
        return guess


def check_history(history: Sequence[Float[Tensor, "rows ..."]]) -> None:
    """Raise ValueError for a history that nothing can be guessed from."""
    if not history:
        raise ValueError(
            "a predictor needs at least 1 past solution, received none; start a first solve without a guess"
        )
