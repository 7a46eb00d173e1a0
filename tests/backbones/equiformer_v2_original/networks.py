"""Small networks of every kind for the tests of this folder."""

from dataclasses import replace

import torch

from equipoise.backbones.equiformer_v2_original import (
    EquiformerV2Original,
    EquiformerV2OriginalConfig,
)

SMALL = EquiformerV2OriginalConfig(
    channels=4,
    lmax=2,
    mmax=2,
    layers=1,
    heads=2,
    hidden=4,
    alpha_channels=3,
    value_channels=2,
    ffn=5,
    edge_channels=4,
    grid=8,
    cutoff=4.0,
    gaussians=24,
    elements=9,
    average_atoms=9.0,
    average_degree=8.0,
)
EXACT = {"attention_activation": "gate", "ffn_activation": "gate"}


def network(*, seed=0, **changes):
    """In float64 and evaluation mode, with no weight at a value that hides a mistake (biases 0, norms 1)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = EquiformerV2Original(replace(SMALL, **changes)).double().eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made
