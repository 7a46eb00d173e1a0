"""Equilibrium potentials from the settings and weights of the DEQ research code."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.backbones.equiformer_v2_original import (
    ConversionReport,
    config_from_original,
    load_original,
)
from equipoise.deq import Solver
from equipoise.potentials.checkpoint import build
from equipoise.potentials.config import PotentialConfig, Statistics
from equipoise.potentials.injection import BATCH_GLOBAL, InjectionConfig
from equipoise.potentials.potential import Potential

_STARTS = {"zero": "zero", "emb": "embedding"}
_NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"


def from_research_code(
    settings: Mapping[str, Any],
    weights: Mapping[str, Any] | str | Path,
    statistics: Statistics,
    *,
    forces: str = "gradient",
    solver: Solver | None = None,
    adjoint: Solver | None = None,
    dtype: str = "float32",
) -> tuple[Potential, ConversionReport]:
    """A potential with the weights of the research code of Burger et al. (2025), or of the original EquiformerV2.

    Their networks speak of normalised energies, (E - mean) / std, and forces, F / std (of the energies, in their own training
    on MD17). Here that is ``statistics``: std is ``force_rms``, and the reference energies of a molecule's atoms add up to mean.
    The rolls of edge frames, random there, are definite functions of the geometry here, so numbers agree as well as two calls of
    theirs do (relative 1e-8 for energies; :func:`equipoise.backbones.equiformer_v2_original.violations` measures it).

    Args:
      settings: arguments of their model class; see :func:`equipoise.backbones.equiformer_v2_original.config_from_original`. With
        ``inp_inj`` it is an equilibrium, else an explicit stack; ``z0`` says where a solve begins.
      weights: a state dict, or a file for :func:`equipoise.backbones.equiformer_v2_original.load_original`.
      statistics: of their training set.
      forces: "gradient", conservative, from the same weights; or "direct", theirs.
      solver, adjoint: default those of :class:`PotentialConfig`.
      dtype: precision of the network.

    Returns:
      the potential, in ``.eval()`` mode, and what became of every weight.

    Raises:
      ValueError: for settings or weights that are not understood; nothing is guessed.
    """
    backbone = config_from_original({k: v for k, v in settings.items() if k != "stacks"})
    if settings.get("stacks", 1) != 1:
        raise ValueError(
            f"stacks must be 1, received {settings['stacks']}: several equilibria one after the other are not supported"
        )
    names = {theirs: ours for ours, theirs in BATCH_GLOBAL.items()}
    injection = InjectionConfig(
        kind=backbone.injection or "add",
        norm=names.get(backbone.injection_norm, "none"),
        **_start(str(settings.get("z0", "zero"))),
    )
    config = PotentialConfig(
        kind="stacked" if backbone.injection is None else "equilibrium",
        backbone=replace(backbone, injection=None, injection_norm=None),
        forces=forces,
        injection=injection,
        dtype=dtype,
    )
    config = replace(config, solver=solver or config.solver, adjoint=adjoint or config.adjoint)
    potential = build(config, statistics)
    report = load_original(potential.backbone, weights)
    return potential.eval(), report


def _start(z0: str) -> dict[str, Any]:
    """Their word for the first guess in ours."""
    if z0 in _STARTS:
        return {"start": _STARTS[z0]}
    found = re.fullmatch(rf"normal_{_NUMBER}_{_NUMBER}", z0)
    if found:
        return {"start": "normal", "start_mean": float(found[1]), "start_std": float(found[2])}
    near = difflib.get_close_matches(z0, _STARTS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"z0 must be one of zero, emb, normal_<mean>_<std>, received {z0!r}{hint} (the fixed point does not depend on it)"
    )
