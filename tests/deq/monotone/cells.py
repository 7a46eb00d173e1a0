"""Cells with weights that are nobody's favourite."""

import torch

from equipoise.deq.monotone import Monotone

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_cell(*widths, size=1.0, seed=0, dtype=torch.float64, **settings):
    """A cell whose every parameter is random, Λ included; ``size`` multiplies the matrices."""
    torch.manual_seed(seed)
    cell = Monotone(*widths, **settings).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.dim() == 2:
                parameter.mul_(size)
            else:
                parameter.normal_()
    return cell


def inputs_for(cell, samples=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, cell.inputs, generator=generator, dtype=torch.float64)
    return x.to(cell.inject)
