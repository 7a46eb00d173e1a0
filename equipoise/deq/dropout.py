"""Dropout for fixed points: one mask per solve.

A map that drops other elements at every call has no fixed point, and one that drops others in its backward pass has the
gradient of another network. Here the mask is a *function* of a seed, and the seed is a buffer: whoever gives the buffers to
f as arguments (:class:`equipoise.deq.DEQ` does) gets the same mask in all passes of a solve, forward, backward and double
backward, even if other solves with other seeds took place in between.
"""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

# The SplitMix64 generator: its increment and the two factors of its output function, as signed 64-bit integers.
_GAMMA, _FIRST, _SECOND = (
    constant - (1 << 64)
    for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = 53


class Dropout(nn.Module):
    """x · mask / (1 - rate) in training mode, mask_i ∈ {0, 1} with mean 1 - rate; x itself in evaluation mode.

    The mask depends on ``seed``, the shape of x and nothing else, not even on the device: it is no call to a random generator
    but a piece of the SplitMix64 sequence, starting at element ``seed``. So nothing is stored between passes, nothing waits for a
    GPU, and ``torch.compile`` and ``torch.func`` see plain integer arithmetic.

    It does *not* change by itself: call :func:`draw` once before every solve, in training, not once per pass. Used at two
    places of a network, one ``Dropout`` drops the same elements at both; use two. Do not change between training and
    evaluation mode before the derivatives of a solve have been taken.

    The wrong tool outside fixed points, where ``nn.Dropout`` draws for itself.

    Source: one mask for all passes, Gal and Ghahramani, arXiv:1512.05287 (recurrent networks), and Bai, Kolter and Koltun, Deep
    equilibrium models (2019); the sequence, Steele, Lea and Flood, Fast splittable pseudorandom number generators (2014).

    Args:
      rate: probability of dropping, in [0, 1].
      shared: dimensions along which all elements share one draw. For equivariant features these are the components that
        rotate into each other: for x of shape [rows, components, channels], ``shared=(1,)``; dropping single components would
        break the symmetry.

    Attributes:
      seed: a 0-dimensional int64 buffer. Not saved in checkpoints.
    """

    seed: Int[Tensor, ""]

    def __init__(self, rate: float, *, shared: Sequence[int] = ()):
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], received {rate}")
        self.rate, self.shared = float(rate), tuple(shared)
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the mask of the present seed."""
        if not self.training or self.rate == 0:
            return x
        # Filled rather than multiplied: whatever stood in a dropped place, infinities included, is gone.
        kept = x.masked_fill(self.dropped(x), 0)
        return kept if self.rate == 1 else kept / (1 - self.rate)

    def dropped(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """True where x would lose an element, in the shape of x but for size 1 along ``shared``."""
        for dim in self.shared:
            if not -x.dim() <= dim < x.dim():
                raise ValueError(
                    f"shared must name dimensions of x, received {self.shared} for shape {tuple(x.shape)}"
                )
        shared = {dim % x.dim() for dim in self.shared}
        shape = [1 if dim in shared else size for dim, size in enumerate(x.shape)]
        # The seed comes before the product: compilers take arange times a constant for an address, and compute it in 32 bits.
        place = torch.arange(prod(shape), device=x.device) + self.seed
        # The upper bits of the result, as an integer, are uniform in [0, 2^_BITS).
        uniform = _shift(_scramble(place.mul_(_GAMMA)), 64 - _BITS)
        return (uniform < round(self.rate * (1 << _BITS))).view(shape)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, shared={self.shared}"


def draw(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every :class:`Dropout` in ``module`` a fresh seed.

    The seeds are new tensors, so graphs of earlier solves keep the seeds that these were made with.

    Args:
      module: searched with all that it contains, itself included.
      generator: a CPU generator; default that of torch, which ``torch.manual_seed`` sets.
    """
    for layer in module.modules():
        if isinstance(layer, Dropout):
            seed = torch.randint(1 << 62, (), generator=generator).item()
            # Filled in rather than copied, since a copy to a GPU may wait for it.
            layer.seed = torch.full_like(layer.seed, seed)


def _scramble(z: Tensor) -> Tensor:
    """The output function of SplitMix64, in place. Products wrap around modulo 2⁶⁴."""
    z ^= _shift(z, 30)
    z *= _FIRST
    z ^= _shift(z, 27)
    z *= _SECOND
    z ^= _shift(z, 31)
    return z


def _shift(z: Tensor, bits: int) -> Tensor:
    """z >> bits of unsigned integers; that of signed ones, which torch has, would draw the sign along."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)
