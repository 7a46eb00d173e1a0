"""Weights that keep a fixed-point map a contraction: norms applied from outside to the layers of any module.

``weight_norm`` and ``spectral_norm`` replace the weights of chosen layers by functions of new parameters
(``torch.nn.utils.parametrize``); ``remove`` bakes the result in. Initialise first (:mod:`equipoise.deq.initialise`).

Weights are matrices [..., out, in], dimensions in front counting independent ones, such as the degrees of an equivariant
linear map. Bounded weights bound ∂f/∂z only by the product of the norms of all that f is composed of. For a network of many
layers that bound is far too pessimistic; :func:`equipoise.deq.spectral_radius` tells, :func:`equipoise.deq.jacobian_penalty`
trains.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Classes of layers, or a rule that gets the name of a module and the module.
Layers = type[nn.Module] | Sequence[type[nn.Module]] | Callable[[str, nn.Module], bool]


def weight_norm(
    module: nn.Module,
    *,
    layers: Layers = (nn.Linear,),
    names: Sequence[str] = ("weight",),
    scale: float | None = None,
    learnable: bool = True,
    clip: float | None = None,
    inputs: int = -1,
) -> list[str]:
    r"""Make every row of the chosen weights $W_o = g_o \, V_o / \|V_o\|$, o running over the outputs.

    Direction and length are trained apart. With ``clip`` no row gets longer than that, whatever training does; this bounds
    ‖W‖ by clip · √outputs, no more. For a bound on ‖W‖ itself use :func:`spectral_norm`.

    Source: Salimans and Kingma, Weight normalization (2016), eq. 2.

    Args:
      module: changed in place. Initialise it first; a later assignment to a weight sets directions only.
      layers: which modules: classes, or a function of (name, module) that says yes or no.
      names: of the tensors in these layers.
      scale: first value of all g_o; default the lengths that the rows have.
      learnable: whether g is a parameter; else it is a buffer.
      clip: an upper bound of g, larger than 0, approached smoothly, as clip · tanh(· / clip), so that a length at the bound
        still feels a gradient that would shorten it. It starts at 0.95 clip at most.
      inputs: the dimension of a weight that runs over inputs: -1 for [..., out, in], -2 for [..., in, out].

    Returns:
      names of the tensors that were replaced.

    Raises:
      ValueError: if there were none, a row is zero, or a tensor is no stack of matrices or already parametrised.
    """
    _check_scale(scale, clip)
    _check_inputs(inputs)

    def make(name: str, weight: Tensor) -> nn.Module:
        lengths = torch.linalg.vector_norm(weight.detach(), dim=inputs, keepdim=True)
        if not bool((lengths > 0).all()):
            raise ValueError(
                f"{name} has a row of zeros, which has no direction to keep; initialise it before weight_norm"
            )
        return WeightNorm(_Scale(_first(scale, lengths), learnable, clip), inputs)

    return _apply(module, make, layers, names)


def spectral_norm(
    module: nn.Module,
    *,
    layers: Layers = (nn.Linear,),
    names: Sequence[str] = ("weight",),
    scale: float | None = 1.0,
    learnable: bool = False,
    clip: float | None = None,
    at_most: bool = False,
) -> list[str]:
    r"""Make every matrix of the chosen weights $W = s \, V / \sigma(V)$, or with ``at_most`` $V \min(1, s / \sigma(V))$.

    σ(V) = ‖V v‖ is the largest singular value, found along a unit vector v that is a *buffer*. It is exact when the norm is
    applied, and a lower bound once training has turned V away from v: call :func:`refresh` after each step of the optimiser.
    In between v is constant, so f is the same map in all passes, forward, backward and double backward. The spectral norm of
    PyTorch updates its vectors whenever a weight is read in training mode; that makes f a moving target, which a solver
    cannot hit and whose implicit gradient belongs to no function at all.

    Source: Miyato et al., Spectral normalization for generative adversarial networks (2018), eq. 8.

    Args:
      module: changed in place.
      layers, names: as for :func:`weight_norm`.
      scale: first value of s; None for the σ that each matrix has.
      learnable: whether s (one per matrix) is a parameter; else it is a buffer.
      clip: an upper bound of s, as for :func:`weight_norm`.
      at_most: leave matrices with σ below s as they are.

    Returns:
      names of the tensors that were replaced.

    Raises:
      ValueError: if there were none, a matrix is zero, or a tensor is no stack of matrices or already parametrised.
    """
    _check_scale(scale, clip)

    def make(name: str, weight: Tensor) -> nn.Module:
        # In float64 once: half precision has no decomposition.
        _, sigma, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        sigma, right = sigma[..., :1, None].to(weight.dtype), right[..., :1, :].mT.to(weight.dtype)
        if not bool((sigma > 0).all()):
            raise ValueError(
                f"{name} has a matrix of zeros, which no factor gives a norm; initialise it before spectral_norm"
            )
        return SpectralNorm(_Scale(_first(scale, sigma), learnable, clip), right.clone(), at_most)

    return _apply(module, make, layers, names)


def refresh(module: nn.Module, steps: int = 1) -> list[str]:
    """Bring the vectors of every :func:`spectral_norm` in ``module`` up to date, by power iteration from where they are.

    Between solves, never during one: after each optimiser step one iteration suffices. The vectors become new tensors; graphs
    of earlier solves keep the old ones.

    Returns:
      names of the tensors whose norm was refreshed.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, received {steps}")
    refreshed = []
    for name, _, parametrisations in _parametrised(module):
        for norm in parametrisations:
            if isinstance(norm, SpectralNorm):
                norm.refresh(parametrisations.original, steps)
                refreshed.append(name)
    return refreshed


def remove(module: nn.Module) -> list[str]:
    """Turn every weight that has one of these norms back into a plain parameter with its present value.

    Returns:
      names of the tensors.
    """
    found = [
        (name, layer)
        for name, layer, parametrisations in _parametrised(module)
        if any(isinstance(norm, WeightNorm | SpectralNorm) for norm in parametrisations)
    ]
    for name, layer in found:
        parametrize.remove_parametrizations(layer, name.rpartition(".")[2])
    return [name for name, _ in found]


class _Scale(nn.Module):
    """A tensor of factors, learnable or fixed, smoothly kept below ``clip``."""

    def __init__(self, first: Tensor, learnable: bool, clip: float | None):
        super().__init__()
        self.clip = clip if learnable else None
        if clip is not None:
            first = first.clamp(max=0.95 * clip if learnable else clip)
        if self.clip is not None:
            first = self.clip * torch.atanh(first / self.clip)
        if learnable:
            self.value = nn.Parameter(first)
        else:
            self.register_buffer("value", first)

    def forward(self) -> Tensor:
        return self.value if self.clip is None else self.clip * torch.tanh(self.value / self.clip)


class WeightNorm(nn.Module):
    """The parametrisation that :func:`weight_norm` registers."""

    def __init__(self, scale: _Scale, inputs: int):
        super().__init__()
        self.scale, self.inputs = scale, inputs

    def forward(self, original: Float[Tensor, "*stack rows columns"]) -> Tensor:
        lengths = torch.linalg.vector_norm(original, dim=self.inputs, keepdim=True)
        return original * (self.scale() / lengths)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class SpectralNorm(nn.Module):
    """The parametrisation that :func:`spectral_norm` registers.

    Attributes:
      right: v, the right singular vector of the largest singular value, [..., in, 1].
    """

    right: Tensor

    def __init__(self, scale: _Scale, right: Tensor, at_most: bool):
        super().__init__()
        self.scale, self.at_most = scale, at_most
        self.register_buffer("right", right)

    def forward(self, original: Float[Tensor, "*stack out in"]) -> Tensor:
        sigma = torch.linalg.vector_norm(original @ self.right, dim=-2, keepdim=True)
        factor = self.scale() / sigma
        return original * (factor.clamp(-1, 1) if self.at_most else factor)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    @torch.no_grad()
    def refresh(self, original: Float[Tensor, "*stack out in"], steps: int) -> None:
        """Power iterations v ← VᵀV v / ‖VᵀV v‖, into a new tensor."""
        right = self.right
        for _ in range(steps):
            product = original.mT @ (original @ right)
            length = torch.linalg.vector_norm(product, dim=-2, keepdim=True)
            right = torch.where(length > 0, product / length, right)
        self.right = right


def _apply(
    module: nn.Module,
    make: Callable[[str, Tensor], nn.Module],
    layers: Layers,
    names: Sequence[str],
) -> list[str]:
    """Register make(name, weight) for every chosen tensor; all are made before any is changed."""
    classes = (layers,) if isinstance(layers, type) else layers
    chosen = classes if callable(classes) else lambda _, layer: isinstance(layer, tuple(classes))
    wanted = (names,) if isinstance(names, str) else names
    made: list[tuple[str, nn.Module, str, nn.Module]] = []
    for path, layer in module.named_modules():
        if not chosen(path, layer):
            continue
        own = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
        for name in wanted:
            full = f"{path}.{name}" if path else name
            if parametrize.is_parametrized(layer, name):
                raise ValueError(f"{full} is already parametrised; remove that first")
            if name not in own:
                continue
            weight = own[name]
            if weight.dim() < 2 or not weight.is_floating_point() or _is_convolution(layer):
                raise ValueError(
                    f"a norm needs matrices [..., out, in], received {full} of shape {tuple(weight.shape)} in a "
                    f"{type(layer).__name__}; leave it out with layers=lambda name, layer: ..."
                )
            made.append((full, layer, name, make(full, weight)))
    if not made:
        there = [f"{name or 'itself'} ({type(m).__name__})" for name, m in module.named_modules()]
        more = f" and {len(there) - 20} more" if len(there) > 20 else ""
        raise ValueError(
            f"layers must choose at least one module with a tensor named {' or '.join(wanted)}, received none; there were "
            f"{', '.join(there[:20])}{more}"
        )
    for _, layer, name, parametrisation in made:
        parametrize.register_parametrization(layer, name, parametrisation)
    return [full for full, *_ in made]


def _parametrised(
    module: nn.Module,
) -> list[tuple[str, nn.Module, parametrize.ParametrizationList]]:
    """(full name of a tensor, its layer, its parametrisations)"""
    return [
        (f"{path}.{name}" if path else name, layer, parametrisations)
        for path, layer in module.named_modules()
        if parametrize.is_parametrized(layer)
        for name, parametrisations in layer.parametrizations.items()
    ]


def _is_convolution(layer: nn.Module) -> bool:
    """Whether weights are [out, in, *kernel], which would pass for stacks of kernels."""
    return isinstance(layer, nn.modules.conv._ConvNd)


def _first(scale: float | None, present: Tensor) -> Tensor:
    return present.clone() if scale is None else torch.full_like(present, scale)


def _check_scale(scale: float | None, clip: float | None) -> None:
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be > 0, received {scale}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be > 0, received {clip}")


def _check_inputs(inputs: int) -> None:
    if inputs not in (-1, -2):
        raise ValueError(
            f"inputs must be -1 or -2, one of the last two dimensions, received {inputs}"
        )
