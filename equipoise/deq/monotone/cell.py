"""A dense equilibrium cell that is well posed for every value of its parameters."""

import math
import warnings
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.deq.fixed_point import fixed_point
from equipoise.deq.gradients import Gradient, Implicit
from equipoise.deq.inner import Inner
from equipoise.deq.monotone.activation import Activation, ReLU
from equipoise.deq.monotone.equation import Equation, identity
from equipoise.deq.monotone.splitting import PeacemanRachford, Splitting
from equipoise.deq.solution import Result, Solution
from equipoise.deq.solvers import Anderson, Solver


class Monotone(nn.Module):
    r"""z = σ(W z + U x + b), y = G z + c, with exactly one equilibrium, and x ↦ y no steeper than γ:

        W = I - Λ⁻¹ [ (GᵀG + ΛUUᵀΛ) / 2γ + VᵀV + mΛ + S - Sᵀ ],   Λ = diag(exp s).

    U, b, G, c, V, S, s are free: sym(Λ(I - W)) >= mΛ > 0 holds by construction (one equilibrium), and so does
    2Λ - ΛW - WᵀΛ >= (GᵀG + ΛUUᵀΛ) / γ, from which |y(x) - y(x')| <= γ|x - x'| follows. Any optimiser may be used, without
    projections. Without ``lipschitz`` the term in γ is absent; Λ = I then gives the monDEQ.

    W may be as large as it likes: this is no contraction, and iterating the cell itself may diverge. The equilibrium is found by
    an operator splitting. The margin is mΛ where the paper has εI, so that it does not depend on the units of z and bounds the rate
    of the splittings whatever Λ is; at Λ = I they are the same.

    The wrong tool when no guarantee is needed: the positive form costs expressive power, and an inverse of the size of ``hidden``
    per solve. The bound is for the Euclidean norms of x and y as they enter here; scaling before and after multiplies it.

    Source: Revay, Wang and Manchester, Lipschitz bounded equilibrium networks (2020), arXiv:2010.01732, the direct parametrisation;
    Winston and Kolter, Monotone operator equilibrium networks (2020), arXiv:2006.08591.

    Args:
      inputs, hidden, outputs: widths of x, z and y. Without ``outputs`` y is z, i.e. G = I and c = 0, which are then no parameters.
      lipschitz: γ > 0, or None for no bound.
      margin: m > 0. Larger: faster and safer solves, less expressive (no gain of z above 1/m, no self-amplification above 1 - m).
      activation: σ; default ReLU.
      splitting: default :class:`PeacemanRachford`.
      solver: of the splitting's fixed point; default :class:`equipoise.deq.Anderson`. Every sample is a structure of its own.
      gradient: default :class:`equipoise.deq.Implicit`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int | None = None,
        *,
        lipschitz: float | None = None,
        margin: float = 0.5,
        activation: Activation | None = None,
        splitting: Splitting | None = None,
        solver: Solver | None = None,
        gradient: Gradient | None = None,
    ):
        super().__init__()
        for name, width in (("inputs", inputs), ("hidden", hidden), ("outputs", outputs)):
            if width is not None and width < 1:
                raise ValueError(f"{name} must be >= 1, received {width}")
        if lipschitz is not None and not 0 < lipschitz < math.inf:
            raise ValueError(
                f"lipschitz must be > 0 and finite, or None for no bound, received {lipschitz}"
            )
        if not 0 < margin < math.inf:
            raise ValueError(f"margin must be > 0 and finite, received {margin}")
        self.inputs, self.hidden, self.outputs = inputs, hidden, outputs
        self.lipschitz, self.margin = lipschitz, margin
        self.activation = ReLU() if activation is None else activation
        self.splitting = PeacemanRachford() if splitting is None else splitting
        self.splitting.check(self.activation)
        self.solver = Anderson(tolerance=1e-5, max_passes=300) if solver is None else solver
        adjoint = Anderson(tolerance=1e-6, max_passes=300)
        self.gradient = Implicit(solver=adjoint) if gradient is None else gradient

        # With U and G of order √γ the term in γ starts of order one, whatever γ is.
        size = 1.0 if lipschitz is None else min(1.0, math.sqrt(lipschitz))
        self.inject = nn.Parameter(size * torch.randn(hidden, inputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(hidden))
        if outputs is None:
            self.read = self.shift = None
        else:
            self.read = nn.Parameter(size * torch.randn(outputs, hidden) / math.sqrt(hidden))
            self.shift = nn.Parameter(torch.zeros(outputs))
        self.damping = nn.Parameter(0.5 * torch.randn(hidden, hidden) / math.sqrt(hidden))
        self.rotation = nn.Parameter(0.5 * torch.randn(hidden, hidden) / math.sqrt(hidden))
        self.scale = nn.Parameter(torch.zeros(hidden))

    def equation(self, dtype: torch.dtype | None = None) -> Equation:
        """W, U, b, Λ, G, c from the parameters; computed in ``dtype``, by default that of the parameters. Differentiable.

        Raises:
          ValueError: if a parameter is not finite, or so large that W overflows.
        """
        dtype = self.inject.dtype if dtype is None else dtype
        inject, damping, rotation = (
            p.to(dtype) for p in (self.inject, self.damping, self.rotation)
        )
        metric = self.scale.to(dtype).exp()
        one = identity(damping)
        read = one if self.read is None else self.read.to(dtype)
        shift = inject.new_zeros(self.hidden) if self.shift is None else self.shift.to(dtype)
        bracket = damping.T @ damping + rotation - rotation.T
        if self.lipschitz is not None:
            bound = metric[:, None] * inject
            bracket = bracket + (read.T @ read + bound @ bound.T) / (2 * self.lipschitz)
        weight = (1 - self.margin) * one - bracket / metric[:, None]
        if not bool(torch.isfinite(weight).all()):
            broken = [name for name, p in self.named_parameters() if not torch.isfinite(p).all()]
            raise ValueError(
                "W must be finite: "
                + (
                    f"NaN or infinity in {', '.join(broken)}; go back to a checkpoint"
                    if broken
                    else f"the parameters overflow {dtype}; use smaller ones or a wider dtype"
                )
            )
        return Equation(weight, inject, self.bias.to(dtype), metric, read, shift)

    def solve(
        self,
        x: Float[Tensor, "samples _"],
        *,
        start: Float[Tensor, "_ _"] | None = None,
    ) -> Solution:
        """Find the equilibrium of every sample.

        Args:
          x: inputs, of the parameters' dtype and device.
          start: a guess of z, shape (samples, hidden), such as the equilibrium of similar inputs.

        Returns:
          a :class:`Solution`, one structure per sample, with ``value`` = z, differentiable in x and the parameters. ``residual``
          and ``trajectory`` are those of the splitting's state; for a bound on the error of y see :func:`error_bound`.

        Raises:
          ValueError: if x has another width or dtype, or no rows, or is not finite; or if a parameter is not finite.
        """
        return self._solve(self.equation(), x, start)

    def forward(self, x: Float[Tensor, "samples _"]) -> Float[Tensor, "samples _"]:
        """y of every sample. Warns when a solve did not converge; :meth:`solve` tells which."""
        equation = self.equation()
        solution = self._solve(equation, x, None)
        missed = int((solution.result != Result.CONVERGED).sum())
        if missed:
            warnings.warn(
                f"{missed} of {len(x)} equilibria did not converge with {self.solver} (largest residual "
                f"{float(solution.residual.max()):.2g}): allow more passes, or a larger tolerance or margin",
                stacklevel=2,
            )
        return equation.readout(solution.value)

    def _solve(self, equation: Equation, x: Tensor, start: Tensor | None) -> Solution:
        self._check(x, start)
        injection = equation.injection(x)
        guess = torch.zeros_like(injection) if start is None else start
        solution = fixed_point(
            self.splitting.map(self.activation),
            *self.splitting.prepare(
                self.activation, guess, injection, equation.weight, equation.metric
            ),
            solver=self.solver,
            gradient=self.gradient,
            inner=Inner(torch.arange(len(x), device=x.device), len(x)),
        )
        z = self.splitting.equilibrium(self.activation, solution.value)
        return replace(solution, value=z)

    def _check(self, x: Tensor, start: Tensor | None) -> None:
        if x.shape[-1] != self.inputs or len(x) < 1:
            raise ValueError(
                f"x must have shape (samples >= 1, {self.inputs}), received {tuple(x.shape)}"
            )
        if x.dtype != self.inject.dtype:
            raise ValueError(
                f"x must have the dtype of the parameters, {self.inject.dtype}, received {x.dtype}"
            )
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x must be finite, received NaN or infinity")
        if start is not None and start.shape != (len(x), self.hidden):
            raise ValueError(
                f"start must have shape {(len(x), self.hidden)}, received {tuple(start.shape)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.inputs}, {self.hidden}, {self.outputs}, lipschitz={self.lipschitz}, "
            f"margin={self.margin}, activation={self.activation}, splitting={self.splitting}"
        )
