"""Predictions compiled by torch.compile, and how they are held against plain ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.backbones.edge_sum import hide_from_compilers


class CompilationError(RuntimeError):
    """Compiling failed, or gave other numbers. What was to be compiled works on without."""


def compiled(functions: tuple[Callable, ...]) -> tuple[Callable, ...]:
    """The same functions, to be compiled when they are called first."""
    import torch._functorch.config  # not before it is needed: the compiler takes seconds to import

    hide_from_compilers()
    # An adjoint solve goes backward through one linearisation many times. Buffers that torch lends out in the first would be
    # gone in the second.
    torch._functorch.config.donated_buffer = False
    # For the sizes of the first structure, and once more, for any size, where these change: the number of edges along a
    # simulation. Any size from the start would be slower for a molecule, which keeps its edges.
    return type(functions)(*map(torch.compile, functions))


def agree(plain, found, dtype: torch.dtype) -> None:
    """Hold two predictions against each other.

    Raises:
      CompilationError: if energies or forces differ by more than √(precision of dtype).
    """
    tolerance = torch.finfo(dtype).eps ** 0.5
    pairs = {
        "forces": (plain.forces, found.forces, plain.forces.abs().max()),
        # Energies relative to what the network adds to the reference energies, which forces have the scale of.
        "energies of atoms": (
            plain.atomic_energies,
            found.atomic_energies,
            plain.forces.abs().max(),
        ),
    }
    for name, (a, b, scale) in pairs.items():
        error = _largest(a - b)
        if not error <= tolerance * max(float(scale), 1.0):
            raise CompilationError(
                f"compiled and plain {name} must agree to {tolerance * max(float(scale), 1.0):.1e}, and differ by {error:.1e}; use "
                "the potential without compiling it"
            )


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
