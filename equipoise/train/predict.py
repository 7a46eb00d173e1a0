"""One prediction, and honestly how long it took."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Potential, Prediction


def timed(potential: Potential, graph: Graph, *, stress: bool = False) -> tuple[Prediction, float]:
    """Energy and forces, on the CPU, and the seconds they took.

    Solves that do not converge are accepted; `prediction.equilibrium` says which.

    Args:
      potential: in `.eval()` mode.
      graph: on any device; moving it to the potential's counts as time.
      stress: predict that as well.
    """
    device = potential.device
    _wait(device)
    began = time.perf_counter()
    # Wrappers need not know of stress until somebody wants it.
    options = {"stress": True} if stress else {}
    # Forces are a derivative: callers who switched gradients off still get them.
    with torch.inference_mode(False), torch.enable_grad():
        prediction = potential(graph.to(device), unconverged="accept", **options)
    _wait(device)
    took = time.perf_counter() - began
    moved = {name: _host(getattr(prediction, name)) for name in ("energy", "forces", "stress")}
    return replace(prediction, **moved), took


def _wait(device: torch.device) -> None:
    # A GPU returns at once and works later: without this the clock measures the queue.
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _host(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().cpu()
