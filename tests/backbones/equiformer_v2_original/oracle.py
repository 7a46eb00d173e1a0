"""Outputs of the original code, and the same structure as a graph of ours."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from equipoise.backbones.equiformer_v2_original import (
    EquiformerV2Original,
    config_from_original,
    load_original,
)
from equipoise.graph import Graph

FOLDER = Path(__file__).parent / "recorded"
STACKS = ("l2", "l3", "l4", "l3_s2_batch")
IMPLICIT = "fork_deq_l3"


@dataclass(frozen=True)
class Oracle:
    """One recorded file."""

    arrays: dict[str, torch.Tensor]
    settings: dict

    @property
    def state(self):
        return {name[6:]: value for name, value in self.arrays.items() if name.startswith("state/")}

    @property
    def graph(self):
        senders, receivers = self.arrays["in/edge_index"].long().contiguous()
        positions = self.arrays["in/pos"]
        owner = self.arrays.get("in/batch", torch.zeros(len(positions))).long()
        structures = int(owner.max()) + 1
        return Graph(
            positions=positions,
            species=self.arrays["in/atomic_numbers"].long(),
            owner=owner,
            cell=torch.zeros(structures, 3, 3, dtype=torch.float64),
            pbc=torch.zeros(structures, 3, dtype=torch.bool),
            senders=senders,
            receivers=receivers.clone(),
            shifts=torch.zeros(len(senders), 3, dtype=torch.int64),
            cutoff=self.settings["max_radius"],
        )

    @property
    def frames(self):
        return self.arrays["in/edge_rot_mat"]

    def network(self, dtype=torch.float64):
        network = EquiformerV2Original(config_from_original(self.settings))
        load_original(network, self.state)
        return network.to(dtype).eval()

    def __getitem__(self, name):
        return self.arrays[name]


@cache
def oracle(name):
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta_json"]))
        arrays = {
            key: torch.from_numpy(archive[key]) for key in archive.files if key != "meta_json"
        }
    settings = dict(meta["config"])
    if "norm_type" in meta:
        settings["norm_type"] = meta["norm_type"]
    return Oracle(arrays, settings)


def error(value, expected):
    """Largest deviation over the largest expected value."""
    assert value.shape == expected.shape
    return float((value - expected).abs().max() / expected.abs().max())


VARIANTS = ("coarse", "gate", "s2", "grid_s2")
VARIANTS += ("share_m", "shared", "none", "plain", "layer_norm", "l6")


@cache
def variants():
    """Changes of the configuration by name, and all arrays in float64."""
    with np.load(FOLDER / "variants.npz", allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta_json"]))
        names = [name for name in archive.files if name != "meta_json"]
        return meta, {name: torch.from_numpy(archive[name].astype(np.float64)) for name in names}
