"""Keeping a fixed-point map a contraction while it is trained."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from equipoise.deq.inner import Inner


def jacobian_penalty(
    f: Callable[..., Tensor], z: Float[Tensor, "rows ..."], *args: Tensor, generator: torch.Generator | None = None
) -> Float[Tensor, ""]:
    """Hutchinson estimate of ‖J‖_F² / dim at z, J = ∂f/∂z: mean of (Jᵀε)² for one standard normal ε.

    Differentiable in ``args``; z counts as a constant.

    Source: Bai, Koltun and Kolter, Stabilizing equilibrium models by Jacobian regularization (2021), eq. 6.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        mapped = f(z, *args)
        noise = torch.randn(mapped.shape, dtype=mapped.dtype, device=mapped.device, generator=generator)
        (product,) = torch.autograd.grad(mapped, z, noise, create_graph=True)
    return product.square().mean()


def spectral_radius(
    f: Callable[..., Tensor],
    z: Float[Tensor, "rows ..."],
    *args: Tensor,
    inner: Inner | None = None,
    steps: int = 30,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "structures"]:
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
        size = inner.norm(vector).clamp_min(torch.finfo(z.dtype).tiny)
        vector = vector / inner.spread(size).to(z.dtype).view(-1, *[1] * (z.dim() - 1))
        (vector,) = torch.autograd.grad(mapped, z, vector, retain_graph=True)
        growth.append(inner.norm(vector))
    tail = torch.stack(growth[steps // 2 :]).clamp_min(torch.finfo(z.dtype).tiny)
    return tail.log().mean(0).exp()
