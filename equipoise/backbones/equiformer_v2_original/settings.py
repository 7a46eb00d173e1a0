"""Configurations of the original code, read into ours."""

import difflib
from collections.abc import Mapping
from typing import Any

from equipoise.backbones.equiformer_v2_original.config import (
    OC20_ATOMS,
    OC20_DEGREE,
    EquiformerV2OriginalConfig,
)

# Their name → ours. No defaults: the two codes disagree about them.
_NEEDED = {
    "num_layers": "layers",
    "sphere_channels": "channels",
    "attn_hidden_channels": "hidden",
    "num_heads": "heads",
    "attn_alpha_channels": "alpha_channels",
    "attn_value_channels": "value_channels",
    "ffn_hidden_channels": "ffn",
    "edge_channels": "edge_channels",
    "grid_resolution": "grid",
    "max_radius": "cutoff",
    "max_num_elements": "elements",
}
_RENAMED = {
    "max_neighbors": "max_neighbours",
    "use_attn_renorm": "renormalise",
    "use_m_share_rad": "share_m_radial",
    "regress_forces": "force_head",
    "alpha_drop": "alpha_drop",
    "drop_path_rate": "path_drop",
    "path_drop": "path_drop",
    "proj_drop": "projection_drop",
    "head_alpha_drop": "head_alpha_drop",
    "weight_init": "initialisation",
    "norm_type": "norm",
    "ln_type": "norm",
    "ln_norm": "norm_scale",
    "ln_affine": "norm_affine",
    "ln": "placement",
    "final_ln": "norm_block_end",
    "enc_ln": "norm_start",
    "inp_inj": "injection",
    "inj_norm": "injection_norm",
    "_AVG_NUM_NODES": "average_atoms",
    "_AVG_DEGREE": "average_degree",
}
# Read together with others, below.
_COMBINED = ("use_grid_mlp", "use_gate_act", "use_sep_s2_act")
_LISTS = {"lmax_list": "lmax", "mmax_list": "mmax"}
_ONLY = {
    "use_s2_act_attn": (False,),
    "distance_function": ("gaussian",),
    "attn_activation": ("silu",),
    "ffn_activation": ("silu",),
    "batchify_for_torchdeq": (False,),
}
# About the graph, about the solver, or without any effect in the original ("num_distance_basis": it takes 600 whatever it says).
_WITHOUT_EFFECT = ("use_pbc", "otf_graph", "num_sphere_samples", "num_distance_basis", "z0")
_EDGES = ("use_atom_edge_embedding", "share_atom_edge_embedding")


def config_from_original(settings: Mapping[str, Any]) -> EquiformerV2OriginalConfig:
    """Our configuration from the arguments of the original model class, or of the DEQ research code.

    Numbers of averages default to those of OC20, as there; dropout to 0.

    Raises:
      ValueError: for names or values that are not understood, or that are missing and would have to be guessed.
    """
    known = {*_NEEDED, *_RENAMED, *_COMBINED, *_LISTS, *_ONLY, *_WITHOUT_EFFECT, *_EDGES}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; leave it out if it has no effect"
            raise ValueError(
                f"settings must be those of the original model, received {name!r}{hint}"
            )
    needed = {*_NEEDED, *_COMBINED, *_LISTS}
    missing = sorted(needed - settings.keys())
    if not {"norm_type", "ln_type"} & settings.keys():
        missing.append("norm_type")
    if missing:
        raise ValueError(f"settings must say {missing}; the two codes have different defaults")
    for name, values in _ONLY.items():
        if settings.get(name, values[0]) not in values:
            raise ValueError(f"{name} must be one of {values}, received {settings[name]!r}")
    ours: dict[str, Any] = {"average_atoms": OC20_ATOMS, "average_degree": OC20_DEGREE}
    for theirs, name in (*_NEEDED.items(), *_RENAMED.items()):
        if theirs in settings:
            ours[name] = settings[theirs]
    for theirs, name in _LISTS.items():
        if len(settings[theirs]) != 1:
            raise ValueError(
                f"{theirs} must hold one number (several resolutions are not supported), received {settings[theirs]}"
            )
        ours[name] = settings[theirs][0]
    grid, gate, separable = (settings[name] for name in _COMBINED)
    ours["attention_activation"] = "gate" if gate else "separable_s2" if separable else "s2"
    if grid:
        ours["ffn_activation"] = "separable_grid_mlp" if separable else "grid_mlp"
    else:
        ours["ffn_activation"] = ours["attention_activation"]
    own, shared = settings.get(_EDGES[0], True), settings.get(_EDGES[1], False)
    ours["edge_elements"] = ("shared" if shared else "block") if own else "none"
    return EquiformerV2OriginalConfig(**ours)
