"""Many structures as one graph, so that one call of the network serves them all.

The inverse is `Graph.split`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from equipoise.graph.graph import Graph


def batch(graphs: Sequence[Graph]) -> Graph:
    """Concatenate graphs; no edge ever joins two structures.

    A label that some graphs have and others lack is filled with NaN for the others;
    one that none has stays None. Graphs in the list may be batches themselves.

    **Raises** `ValueError` for an empty list, different cutoffs (a network is trained
    for one) and graphs on different devices.
    """
    graphs = list(graphs)
    if not graphs:
        raise ValueError("a batch needs at least one graph, received an empty list")
    cutoffs = sorted({graph.cutoff for graph in graphs})
    if len(cutoffs) > 1:
        raise ValueError(
            f"all graphs of a batch must have the same cutoff, received {cutoffs} "
            f"Angstrom; build them again with one"
        )
    devices = sorted({str(graph.device) for graph in graphs})
    if len(devices) > 1:
        raise ValueError(f"all graphs of a batch must be on the same device, received {devices}")
    if len(graphs) == 1:
        return graphs[0]
    atoms_before = _starts([graph.n_atoms for graph in graphs])
    structures_before = _starts([graph.n_structures for graph in graphs])

    def joined(field: Callable[[Graph], Tensor], starts: list[int] | None = None):
        parts = [field(graph) for graph in graphs]
        if starts is not None:
            parts = [p + start for p, start in zip(parts, starts, strict=True)]
        return torch.cat(parts)

    return Graph(
        positions=joined(lambda g: g.positions),
        species=joined(lambda g: g.species),
        owner=joined(lambda g: g.owner, structures_before),
        cell=joined(lambda g: g.cell),
        pbc=joined(lambda g: g.pbc),
        senders=joined(lambda g: g.senders, atoms_before),
        receivers=joined(lambda g: g.receivers, atoms_before),
        shifts=joined(lambda g: g.shifts),
        cutoff=cutoffs[0],
        energy=_join_labels(graphs, lambda g: g.energy, lambda g: (g.n_structures,)),
        forces=_join_labels(graphs, lambda g: g.forces, lambda g: (g.n_atoms, 3)),
        stress=_join_labels(graphs, lambda g: g.stress, lambda g: (g.n_structures, 6)),
    )


def _starts(sizes: list[int]) -> list[int]:
    starts = [0]
    for size in sizes[:-1]:
        starts.append(starts[-1] + size)
    return starts


def _join_labels(
    graphs: list[Graph],
    field: Callable[[Graph], Tensor | None],
    shape: Callable[[Graph], tuple[int, ...]],
) -> Tensor | None:
    labels = [field(graph) for graph in graphs]
    if all(label is None for label in labels):
        return None
    return torch.cat(
        [
            graph.positions.new_full(shape(graph), torch.nan) if label is None else label
            for graph, label in zip(graphs, labels, strict=True)
        ]
    )
