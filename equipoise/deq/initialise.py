"""First values of weights, with a spectrum that is known: how a fixed-point map contracts before it is trained.

Weights are matrices [..., out, in], dimensions in front counting independent ones, such as the degrees of an equivariant
linear map; ``torch.nn.init`` takes such a stack for a single matrix, or for the kernel of a convolution.
"""

from math import sqrt

import torch
from torch import Tensor


def orthogonal_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with gain · Q, each Q uniformly distributed among the matrices with QᵀQ = 1 (or QQᵀ = 1 if out < in).

    All singular values equal ``gain``; the eigenvalues of a square Q are complex and lie on the circle of that radius.

    Source: Mezzadri, Notices of the AMS 54, 592 (2007); for equilibrium networks Agarwala and Schoenholz, arXiv:2207.09432,
    who find orthogonal and symmetric matrices trainable over a broader range of gains than independent elements.

    Args:
      tensor: [..., out, in], overwritten.
      gain: at least 0.
      generator: of the random numbers, drawn in float64 on its device, so that all types and devices start alike.

    Returns:
      ``tensor``.
    """
    _check_fill(tensor, gain)
    tall = tensor.shape[-2] >= tensor.shape[-1]
    normal = _normal(tensor, generator)
    q, r = torch.linalg.qr(normal if tall else normal.mT)
    # Signs fixed by a positive diagonal of r; those of the algorithm would not be uniform.
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return _fill(tensor, gain * (q if tall else q.mT))


def symmetric_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with symmetric Gaussian matrices (the GOE) whose spectral radius tends to ``gain`` with growing size n.

    Elements off the diagonal have variance gain² / 4n, those on it twice that. The eigenvalues are real and spread over
    [-gain, gain] as a half circle. At finite n the radius differs from ``gain`` by a relative n^(-2/3) or so.

    Source: Agarwala and Schoenholz, arXiv:2207.09432; the limit is Wigner's semicircle law.

    Args, returns: as :func:`orthogonal_`.

    Raises:
      ValueError: if the matrices are not square.
    """
    _check_fill(tensor, gain)
    if tensor.shape[-2] != tensor.shape[-1]:
        raise ValueError(
            f"symmetric matrices are square, received shape {tuple(tensor.shape)}; use orthogonal_"
        )
    normal = _normal(tensor, generator)
    return _fill(tensor, (normal + normal.mT) * (gain / sqrt(8 * tensor.shape[-1])))


def variance_preserving_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    inputs: int = -1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill with independent normal numbers of variance gain² / in: an output's mean square is gain² times an input's.

    Eigenvalues of large square matrices fill the disc of radius ``gain``, but ‖W‖ tends to 2 gain: such a matrix can make
    differences grow for some passes before it shrinks them.

    Source: LeCun et al., Efficient BackProp (1998), section 4.6; the limits are the circular and the Marchenko–Pastur laws.

    Args, returns: as :func:`orthogonal_`, and
      inputs: the dimension that runs over inputs: -1 for [..., out, in], -2 for [..., in, out].
    """
    _check_fill(tensor, gain)
    if inputs not in (-1, -2):
        raise ValueError(
            f"inputs must be -1 or -2, one of the last two dimensions, received {inputs}"
        )
    return _fill(tensor, _normal(tensor, generator) * (gain / sqrt(tensor.shape[inputs])))


def _check_fill(tensor: Tensor, gain: float) -> None:
    if tensor.dim() < 2 or not tensor.is_floating_point():
        raise ValueError(
            f"first values need floating-point matrices [..., out, in], received {tensor.dtype} {tuple(tensor.shape)}"
        )
    if tensor.grad_fn is not None:
        raise ValueError(
            "first values need a stored tensor, received a computed one, such as a weight that already has a norm; "
            "initialise first"
        )
    if not gain >= 0:
        raise ValueError(f"gain must be >= 0, received {gain}")


def _normal(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    device = tensor.device if generator is None else generator.device
    return torch.randn(tensor.shape, dtype=torch.float64, device=device, generator=generator)


@torch.no_grad()
def _fill(tensor: Tensor, values: Tensor) -> Tensor:
    return tensor.copy_(values)
