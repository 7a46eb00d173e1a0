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
    return _Recomputed.apply(function, receivers, atoms, places, *features, *edges)


def _chunks(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    size = CPU_CHUNK if tensors[0].device.type == "cpu" else GPU_CHUNK
    if len(tensors[0]) <= size:
        return iter([tuple(tensors)])
    return zip(*[tensor.split(size) for tensor in tensors], strict=True)


def _sum(function, receivers, atoms, nodes, edges) -> tuple[Tensor, ...]:
    sums: list[Tensor] | None = None
    for to, *rest in _chunks([receivers, *[place for _, place in nodes], *edges]):
        # index_select rather than indexing: its derivative is an index_add, several times faster than an index_put.
        rows = [
            feature.index_select(0, place)
            for (feature, _), place in zip(nodes, rest[: len(nodes)], strict=True)
        ]
        found = function(*rows, *rest[len(nodes) :])
        if sums is None:
            sums = [one.new_zeros(atoms, *one.shape[1:]) for one in found]
        sums = [total.index_add_(0, to, one) for total, one in zip(sums, found, strict=True)]
    return tuple(sums)


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
            rows = [
                feature.index_select(0, place)
                for feature, place in zip(features, places, strict=True)
            ]
            rows += rest[gathered:]
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
