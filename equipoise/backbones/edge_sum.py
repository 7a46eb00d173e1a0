"""Sums over neighbours, some edges at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# Edges at a time. On a CPU their messages, a few kB each, then stay in the cache from one operation to the next; a GPU is idle
# with so few.
CPU_CHUNK, GPU_CHUNK = 1024, 65536


def edge_sum(
    function: Callable[..., tuple[Tensor, ...]],
    receivers: Tensor,
    atoms: int,
    nodes: Sequence[tuple[Tensor, Tensor]],
    edges: Sequence[Tensor],
    *,
    recompute: bool = False,
) -> tuple[Tensor, ...]:
    """y_i = Σ_{e → i} function(x_e…, t_e…), computed chunk after chunk.

    Args:
      function: of rows gathered from atoms and of rows of edges; returns a tuple of tensors with one row per edge.
      receivers: atom that each edge ends at.
      atoms: how many there are.
      nodes: pairs (features of atoms, atom of each edge) to gather.
      edges: one row per edge.
      recompute: keep nothing for the derivatives but the arguments, and evaluate ``function`` once more when they are wanted.
        Memory then is that of one chunk, whatever the number of edges; tensors that ``function`` closes over (parameters) get no
        gradient, and there are no second derivatives.

    Returns:
      one tensor [atoms, ...] for each of those that ``function`` returns.
    """
    if not recompute:
        return _sum(function, receivers, atoms, nodes, edges)
    features = [feature for feature, _ in nodes]
    places = [place for _, place in nodes]
    return _recomputed(function, receivers, atoms, places, *features, *edges)


def hide_from_compilers() -> None:
    """Keep torch.compile from unrolling the loops over chunks, anew for every number of them; it then sees what is in a loop, once.

    Not a decorator, because that would import the compiler, two seconds, for everybody.
    """
    global _sum_in_chunks, _recomputed
    _sum_in_chunks, _recomputed = (
        function
        if hasattr(function, "_torchdynamo_disable")
        else torch.compiler.disable(function, recursive=False)
        for function in (_sum_in_chunks, _recomputed)
    )


def _size(tensor: Tensor) -> int:
    return CPU_CHUNK if tensor.device.type == "cpu" else GPU_CHUNK


def _chunks(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    size = _size(tensors[0])
    return zip(*[tensor.split(size) for tensor in tensors], strict=True)


def _rows(features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
    # index_select rather than indexing: its derivative is an index_add, several times faster than an index_put.
    return [f.index_select(0, place) for f, place in zip(features, places, strict=True)]


def _sum(function, receivers, atoms, nodes, edges) -> tuple[Tensor, ...]:
    features = [feature for feature, _ in nodes]
    places = [place for _, place in nodes]
    if len(receivers) > _size(receivers):
        return _sum_in_chunks(function, receivers, atoms, features, places, edges)
    found = _of_chunk(function, features, places, edges)
    return tuple(
        one.new_zeros(atoms, *one.shape[1:]).index_add_(0, receivers, one) for one in found
    )


def _sum_in_chunks(function, receivers, atoms, features, places, edges) -> tuple[Tensor, ...]:
    sums: list[Tensor] | None = None
    for to, *rest in _chunks([receivers, *places, *edges]):
        found = _of_chunk(function, features, rest[: len(places)], rest[len(places) :])
        if sums is None:
            sums = [one.new_zeros(atoms, *one.shape[1:]) for one in found]
        sums = [total.index_add_(0, to, one) for total, one in zip(sums, found, strict=True)]
    return tuple(sums)


def _of_chunk(function, features, places, edges) -> tuple[Tensor, ...]:
    return function(*_rows(features, places), *edges)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, receivers, atoms, places, *tensors):
        ctx.function, ctx.places = function, places
        ctx.save_for_backward(receivers, *tensors)
        nodes = list(zip(tensors[: len(places)], places, strict=True))
        return _sum(function, receivers, atoms, nodes, tensors[len(places) :])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *slopes):
        receivers, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        found = [
            torch.zeros_like(tensor) if want else None
            for tensor, want in zip(tensors, wanted, strict=True)
        ]
        gathered = len(ctx.places)
        features, edges = tensors[:gathered], tensors[gathered:]
        first = 0
        for to, *rest in _chunks([receivers, *ctx.places, *edges]):
            places = rest[:gathered]
            rows = [*_rows(features, places), *rest[gathered:]]
            for row, want in zip(rows, wanted, strict=True):
                row.requires_grad_(want)
            with torch.enable_grad():
                values = ctx.function(*rows)
            pulls = [slope.index_select(0, to) for slope in slopes]
            some = [row for row, want in zip(rows, wanted, strict=True) if want]
            parts = iter(torch.autograd.grad(values, some, pulls))
            for i, want in enumerate(wanted):
                if not want:
                    continue
                if i < gathered:
                    found[i].index_add_(0, places[i], next(parts))
                else:
                    found[i][first : first + len(to)] = next(parts)
            first += len(to)
        return (None, None, None, None, *found)


def _recomputed(*args):
    return _Recomputed.apply(*args)
