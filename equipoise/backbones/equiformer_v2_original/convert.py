"""Weights of the original code, in and out. Strict: whatever is not understood is an error that names it."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from equipoise.backbones.equiformer_v2_original.names import (
    dialects,
    original_names,
    reshape,
    transposed,
)
from equipoise.backbones.equiformer_v2_original.network import EquiformerV2Original

# Tables that both codes store and that follow from the configuration, and random state of a noise module that does nothing.
_IGNORED = re.compile(
    r"(^|\.)(SO3_grid|SO3_rotation|mappingReduced|noise_in|noise_out)\."
    r"|(^|\.)(expand_index|balance_degree_weight)$"
    r"|^distance_expansion\.offset$"
)


@dataclass(frozen=True)
class ConversionReport:
    """What became of every entry of a state dict.

    Attributes:
      mapped: their name → our name.
      merged: their names of matrices that were stored as length and direction of each row, and were multiplied out.
      split: their names of matrices for which the opposite was done, because the network keeps length and direction.
      ignored: buffers that follow from the configuration. Those that say something about it were compared with it.
      prefix: what was cut from all names, such as "module.".
    """

    mapped: dict[str, str]
    merged: tuple[str, ...]
    split: tuple[str, ...]
    ignored: tuple[str, ...]
    prefix: str

    def __str__(self) -> str:
        return (
            f"{len(self.mapped)} weights mapped ({len(self.merged)} multiplied out, {len(self.split)} split), "
            f"{len(self.ignored)} buffers ignored, prefix {self.prefix!r}"
        )


def load_original(
    network: EquiformerV2Original, state: Mapping[str, Any] | str | Path
) -> ConversionReport:
    """Copy weights of the original code, or of the DEQ research code, into a network of the same configuration.

    Args:
      network: is changed, and not at all if something is wrong.
      state: a state dict, or a file for :func:`read_state`. Of a checkpoint that holds more, pass the part with the weights
        (for averaged weights, the averages).

    Raises:
      ValueError: for unknown names, missing names, shapes that differ, or a cutoff, number of Gaussians or grid that is not
        that of ``network``. Nothing is loaded partly.
    """
    if isinstance(state, str | Path):
        state = read_state(state)
    state, prefix = _without_prefix(state)
    ours, swap = dict(network.named_parameters()), transposed(network)
    words = [original_names(network, dialect) for dialect in dialects(network.config)]
    expected = {spelling for names in words for spelling in names.values()}
    state, merged = _multiply_out(state, expected)
    state, split = _split(state, expected)
    mapped: dict[str, str] = {}
    values, missing = {}, {}
    for name in ours:
        spellings = [names[name] for names in words]
        found = [spelling for spelling in spellings if spelling in state]
        if found:
            mapped[found[0]] = name
            values[name] = reshape(state[found[0]], name in swap)
        else:
            missing[spellings[0]] = name
    rest = [name for name in state if name not in mapped]
    ignored = tuple(name for name in rest if _IGNORED.search(name))
    unknown = [name for name in rest if not _IGNORED.search(name)]
    _refuse(unknown, missing)
    _compare_shapes(values, ours, mapped)
    _compare_tables(network, state)
    with torch.no_grad():
        for name, value in values.items():
            ours[name].copy_(value)
    return ConversionReport(mapped, merged, split, ignored, prefix)


def to_original(network: EquiformerV2Original, *, dialect: str = "upstream") -> dict[str, Tensor]:
    """The weights under the names and in the shapes of the original code; copies.

    Buffers that the original also stores are left out: load with ``strict=False`` there.

    Raises:
      ValueError: see :func:`equipoise.backbones.equiformer_v2_original.names.original_names`.
    """
    swap = transposed(network)
    values = dict(network.named_parameters())
    return {
        theirs: reshape(values[ours].detach(), ours in swap).clone(
            memory_format=torch.contiguous_format
        )
        for ours, theirs in original_names(network, dialect).items()
    }


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors or .npz file.

    Raises:
      ValueError: for other files. A .pt file holds a pickle, which can run programs when it is opened; load it yourself with
        ``torch.load(path, weights_only=True)``, which refuses to, and pass the dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    raise ValueError(
        f"weights are read from .safetensors and .npz, received {path.name!r}; for a .pt file pass "
        "torch.load(path, weights_only=True), or the part of it that holds the weights"
    )


def _without_prefix(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Cut "module." as often as it stands before every name."""
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange or not state:
        hint = (
            ' (pass its entry "state_dict")'
            if "state_dict" in state
            else "; is it the state dict of a network?"
        )
        raise ValueError(
            f"state must map names to tensors, received {strange[:5] or 'nothing'}{hint}"
        )
    prefix, state = "", dict(state)
    while all(name.startswith("module.") for name in state):
        prefix += "module."
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state, prefix


def _multiply_out(
    state: dict[str, Tensor], expected: set[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """weight = g v / ‖v‖ with the norm over each row, for every pair (weight_g, weight_v) that is not expected as such."""
    state, merged = dict(state), []
    for length in [name for name in state if name.endswith(".weight_g") and name not in expected]:
        name = length.removesuffix("_g")
        if f"{name}_v" not in state:
            raise ValueError(
                f"{length} needs {name}_v beside it, received only the length; the file is incomplete"
            )
        g, v = state.pop(length), state.pop(f"{name}_v")
        state[name] = v * (g / _rows(v))
        merged.append(name)
    return state, tuple(merged)


def _split(
    state: dict[str, Tensor], expected: set[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The reverse, for every plain weight of which a pair is expected."""
    state, split = dict(state), []
    for length in [name for name in expected if name.endswith(".weight_g")]:
        name = length.removesuffix("_g")
        if length not in state and name in state:
            state[f"{name}_v"] = state.pop(name)
            state[length] = _rows(state[f"{name}_v"])
            split.append(name)
    return state, tuple(sorted(split))


def _rows(matrix: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrix, dim=1, keepdim=True)


def _refuse(unknown: list[str], missing: dict[str, str]) -> None:
    if not unknown and not missing:
        return
    lines = []
    for name in unknown[:8]:
        near = difflib.get_close_matches(name, missing, n=1, cutoff=0.6)
        lines.append(f"  unknown: {name}" + (f" (did you mean {near[0]}?)" if near else ""))
    lines += [f"  missing: {theirs} (our {ours})" for theirs, ours in list(missing.items())[:8]]
    hidden = max(len(unknown) - 8, 0) + max(len(missing) - 8, 0)
    lines += [f"  and {hidden} more"] if hidden else []
    raise ValueError(
        f"the state dict must hold exactly the weights of the configuration, received {len(unknown)} unknown names and "
        f"{len(missing)} missing ones; compare the configuration with that of the training\n"
        + "\n".join(lines)
    )


def _compare_shapes(
    values: dict[str, Tensor], ours: Mapping[str, Tensor], mapped: dict[str, str]
) -> None:
    theirs = {name: original for original, name in mapped.items()}
    wrong = [
        f"  {theirs[name]}: {tuple(value.shape)}, expected {tuple(ours[name].shape)}"
        for name, value in values.items()
        if value.shape != ours[name].shape
    ]
    if wrong:
        raise ValueError(
            f"shapes must be those of the configuration, received {len(wrong)} others (in our order of axes)\n"
            + "\n".join(wrong[:8])
        )


def _compare_tables(network: EquiformerV2Original, state: Mapping[str, Tensor]) -> None:
    """Some of the stored tables tell what the network was trained with, and no weight does."""
    config = network.config
    centres = state.get("distance_expansion.offset")
    if centres is not None and (
        len(centres) != config.gaussians or abs(float(centres[-1]) - config.cutoff) > 1e-4
    ):
        raise ValueError(
            f"the weights belong to {len(centres)} Gaussians up to {float(centres[-1]):g} Å, received a configuration with "
            f"gaussians={config.gaussians}, cutoff={config.cutoff:g}"
        )
    for mmax, grid in ((config.mmax, network.edge_grid), (config.lmax, network.node_grid)):
        table = state.get(f"SO3_grid.{config.lmax}.{mmax}.to_grid_mat")
        if table is not None and tuple(table.shape[:2]) != grid.shape:
            raise ValueError(
                f"the weights belong to a grid of {tuple(table.shape[:2])} points, received a configuration with {grid.shape} "
                f"(grid={config.grid})"
            )
