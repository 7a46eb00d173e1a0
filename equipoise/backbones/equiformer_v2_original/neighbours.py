"""The cap on neighbours."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def nearest(
    distance: Float[Tensor, " edges"], receivers: Int[Tensor, " edges"], atoms: int, count: int
) -> Int[Tensor, " kept"]:
    """Indices, ascending, of the ``count`` shortest edges of each receiver; of equals those that are listed first."""
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(receivers[order], stable=True)]
    ends = torch.bincount(receivers, minlength=atoms).cumsum(0)
    first = torch.nn.functional.pad(ends[:-1], (1, 0))
    rank = torch.arange(len(order), device=order.device) - first[receivers[order]]
    return order[rank < count].sort().values
