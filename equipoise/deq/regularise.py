"""Keeping a fixed-point map a contraction while it is trained."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.deq.gradients import Gradient, Phantom
from equipoise.deq.inner import Inner
from equipoise.deq.solution import Solution


def jacobian_penalty(
    f: Callable[..., Tensor],
    z: Float[Tensor, "rows ..."],
    *args: Tensor,
    inner: Inner | None = None,
    power_steps: int = 0,
    allowed: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Mean over structures of max(0, ‖Jᵀv‖² / ‖v‖² - allowed²) at z, J = ∂f/∂z, along a random v; z is a constant.

    With ``power_steps=0`` v is white noise, which estimates ‖J‖_F² / dim (Hutchinson). That is an average over all directions,
    and a network can have a small average and yet a few slow modes, which alone decide how many passes a solve takes. With
    some ``power_steps``, v is first multiplied by Jᵀ that many times and turns towards those modes: the penalty then tends to
    the square of the contraction ρ. A map that contracts needs little of its depth: what ρ is no trouble may be ``allowed``, and
    is free.

    Source: Bai, Koltun and Kolter, Stabilizing equilibrium models by Jacobian regularization (2021), eq. 6.

    Args:
      f, z, args: the map and where to look at it, usually its fixed point.
      inner: which rows form a structure; default one structure.
      power_steps: see above; each costs one vector–Jacobian product without a graph.
      allowed: the gain below which nothing is penalised, >= 0.
      generator: of the noise.

    Raises:
      ValueError: for a negative ``allowed``.
    """
    if not allowed >= 0:
        raise ValueError(f"allowed must be a contraction >= 0, received {allowed}")
    inner = Inner() if inner is None else inner
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        mapped = f(z, *args)
        vector = torch.randn(
            mapped.shape, dtype=mapped.dtype, device=mapped.device, generator=generator
        )
        for _ in range(power_steps):
            (vector,) = torch.autograd.grad(mapped, z, _unit(vector, inner), retain_graph=True)
        (product,) = torch.autograd.grad(mapped, z, _unit(vector, inner), create_graph=True)
    excess = inner.squared(product).to(product.dtype) - allowed**2
    return excess.clamp_min(0).sum() / inner.structures


def _unit(vector: Tensor, inner: Inner) -> Tensor:
    """``vector`` divided by its norm in each structure."""
    size = inner.spread(inner.norm(vector).clamp_min(torch.finfo(vector.dtype).tiny)).to(
        vector.dtype
    )
    return vector / size.view(-1, *[1] * (vector.dim() - 1))


def spectral_radius(
    f: Callable[..., Tensor],
    z: Float[Tensor, "rows ..."],
    *args: Tensor,
    inner: Inner | None = None,
    steps: int = 30,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " structures"]:
    """Contraction per pass ρ at z of each structure: growth of Jᵀ-products over the last half of ``steps`` power iterations.

    The geometric mean over several steps, since a complex leading pair makes single ratios oscillate.
    """
    inner = Inner() if inner is None else inner
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        mapped = f(z, *[a.detach() for a in args])
    vector = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
    growth = []
    for _ in range(steps):
        (vector,) = torch.autograd.grad(mapped, z, _unit(vector, inner), retain_graph=True)
        growth.append(inner.norm(vector))
    tail = torch.stack(growth[steps // 2 :]).clamp_min(torch.finfo(z.dtype).tiny)
    return tail.log().mean(0).exp()


def fixed_point_correction(
    loss: Callable[[Tensor], Float[Tensor, ""]],
    f: Callable[..., Tensor],
    solution: Solution,
    *args: Tensor,
    decay: float = 0.8,
    gradient: Gradient | None = None,
    inner: Inner | None = None,
) -> Float[Tensor, ""]:
    r"""Σ_{i<n} γ^{n-i} L(z_i) over the states kept on the way to the fixed point: pulls the whole path towards good answers.

    A network trained with it is useful after few passes, and its path is shorter. The states are those of
    ``solution.trajectory``, so the solver must have been told which passes to keep; the fixed point itself is not among the
    terms (add L(solution.value)).

    Source: Bai, Geng, Savani and Kolter, Deep equilibrium optical flow estimation (2022), eq. 9.

    Args:
      loss: of one state.
      f, args: the map that was solved.
      decay: γ in (0, 1].
      gradient: attaches each state to the arguments; default one step of :class:`Phantom`. (:class:`Implicit` would be the
        gradient at a fixed point, which these states are not.)
      inner: which rows form a structure; default one structure.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], received {decay}")
    if not solution.trajectory:
        raise ValueError(
            "solution.trajectory is empty: tell the solver which passes to keep, as in Anderson(trajectory=(2, 4))"
        )
    inner = Inner() if inner is None else inner
    gradient = Phantom() if gradient is None else gradient
    count, total = len(solution.trajectory), solution.value.new_zeros(())
    for i, state in enumerate(solution.trajectory):
        total = total + decay ** (count - i) * loss(gradient.attach(f, state, args, inner))
    return total
