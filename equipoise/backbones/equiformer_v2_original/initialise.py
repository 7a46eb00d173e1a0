"""Fresh weights, distributed as the original draws them."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from equipoise.backbones.equiformer_v2_original.radial import Radial
from equipoise.backbones.equiformer_v2_original.so2 import SO2Convolution
from equipoise.equivariant import SO3Linear


def initialise(network: nn.Module, kind: str) -> None:
    """Draw all linear maps; "uniform": U(±1/√in), "normal": standard deviation 1/√in. Biases are 0.

    Weights of orders m > 0 have 1/√2 of that ("uniform" only; the original loses the factor with "normal"). Radial networks are
    uniform in both. Element tables, norms and attention vectors keep what their modules gave them.
    """
    normal = kind == "normal"
    for module in network.modules():
        if isinstance(module, nn.Linear):
            _draw(module.weight, module.in_features, normal)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, SO3Linear):
            _draw(module.weight, module.weight.shape[1], normal)
    for module in network.modules():
        if isinstance(module, SO2Convolution) and not normal:
            with torch.no_grad():
                for linear in module.orders:
                    linear.weight.mul_(0.5**0.5)
        elif isinstance(module, Radial):
            for linear in module.net:
                if isinstance(linear, nn.Linear):
                    _draw(linear.weight, linear.in_features, False)


def normalise_weights(blocks: nn.Module) -> None:
    """Reparametrise every ``nn.Linear`` as w = g v / ‖v‖, row by row, without changing it."""
    for module in list(blocks.modules()):
        if isinstance(module, nn.Linear):
            parametrizations.weight_norm(module, dim=0)


def _draw(weight: nn.Parameter, width: int, normal: bool) -> None:
    if normal:
        nn.init.normal_(weight, std=width**-0.5)
    else:
        nn.init.uniform_(weight, -(width**-0.5), width**-0.5)
