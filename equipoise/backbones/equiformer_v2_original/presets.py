"""The sizes that were published, by their names."""

from dataclasses import replace

from equipoise.backbones.equiformer_v2_original.config import (
    QM9_ATOMS,
    QM9_DEGREE,
    EquiformerV2OriginalConfig,
)

# The OC20 models of Liao et al. (2024), tables 1 and 6; dropout as trained.
_OC20 = EquiformerV2OriginalConfig(max_neighbours=20, alpha_drop=0.1, path_drop=0.1)
# The MD17 models of the DEQ research code. Its blocks sum over m in the norms ("norm").
_REGULAR = EquiformerV2OriginalConfig(
    lmax=3,
    layers=4,
    grid=14,
    cutoff=5.0,
    norm_scale="norm",
    average_atoms=QM9_ATOMS,
    average_degree=QM9_DEGREE,
)
_TINY = replace(
    _REGULAR, channels=64, hidden=32, alpha_channels=32, value_channels=8, edge_channels=64
)

presets: dict[str, EquiformerV2OriginalConfig] = {
    "halftiny_l3": replace(
        _TINY, hidden=16, heads=4, alpha_channels=16, value_channels=4, edge_channels=32
    ),
    "tiny_l3": _TINY,
    "tiny_l6": replace(_TINY, lmax=6),
    "small_l3": _REGULAR,
    "reg_l6": replace(_REGULAR, lmax=6, grid=18),
    "base": replace(_REGULAR, grid=18),
    "oc20_31m": replace(_OC20, lmax=4, layers=8),
    "oc20_83m": replace(_OC20, path_drop=0.05),
    "oc20_153m": replace(_OC20, mmax=3, layers=20),
}
