"""Potentials as files: one safetensors file whose header says how to rebuild the network. Nothing is ever unpickled."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from equipoise.deq import Solver
from equipoise.potentials.config import PotentialConfig, Statistics
from equipoise.potentials.equilibrium import Equilibrium
from equipoise.potentials.potential import Potential
from equipoise.potentials.repulsion import Repulsion
from equipoise.potentials.stacked import Stacked
from equipoise.potentials.zoo_cards import shipped

# 1: one backbone and one solver there were. 2: a key "name" in both, which 1 need not say.
SCHEMA, READABLE = 2, (1, 2)


class Header(BaseModel):
    """What stands in the header beside the weights. Unknown keys are refused, in the nested records too."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    config: PotentialConfig
    statistics: Statistics
    extra: dict[str, Any]


_CONFIG = TypeAdapter(PotentialConfig)


def build(config: PotentialConfig, statistics: Statistics, *, seed: int = 0) -> Potential:
    """An untrained potential; the same seed gives the same weights. Leaves the global random state alone."""
    kind = Equilibrium if config.kind == "equilibrium" else Stacked
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        return kind(config, statistics)


def save(potential: Potential, path: str | Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write a potential; the file appears whole or not at all.

    Args:
      potential: what to save.
      path: ``*.safetensors``.
      extra: JSON-serialisable remarks (recipe, validation errors), shown by ``equipoise info``.
    """
    path = Path(path)
    header = {
        "schema_version": SCHEMA,
        "config": _CONFIG.dump_python(potential.config, mode="json"),
        "statistics": dataclasses.asdict(potential.statistics),
        "extra": extra or {},
    }
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in potential.state_dict().items()
    }
    content = to_bytes(tensors, metadata={"equipoise": json.dumps(header)})
    temporary = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def describe(path: str | Path) -> dict[str, Any]:
    """The header of a saved potential: schema, config, statistics, extra.

    Raises:
      FileNotFoundError: if there is no such file or zoo model.
      ValueError: if it is not a file written by :func:`save`.
    """
    path = _locate(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("equipoise")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file (truncated or another format): {error}"
        ) from error
    if header is None:
        raise ValueError(
            f"{path} is a safetensors file, but not one of equipoise: its header has no 'equipoise' entry"
        )
    try:
        header = json.loads(header)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the header of {path} is damaged: its 'equipoise' entry is not JSON ({error})"
        ) from error
    if not isinstance(header, dict):
        raise ValueError(
            f"the header of {path} is damaged: its 'equipoise' entry is no JSON object, but {header!r:.60}"
        )
    if header.get("schema_version") not in READABLE:
        raise ValueError(
            f"{path} has schema {header.get('schema_version')}, this version reads {SCHEMA} and older; use the version that "
            "wrote it"
        )
    return header


def load(
    path: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    solver: Solver | None = None,
    adjoint: Solver | None = None,
    repulsion: Repulsion | None = None,
) -> Potential:
    """Read a potential, ready to predict (``.eval()``).

    Args:
      path: a file written by :func:`save`, a run folder that holds a ``model.safetensors``, or the name of a model that comes
        with the package ("ethanol"; `equipoise zoo list` has them all).
      device: where to put it; default CPU.
      dtype: precision of the network; default as trained.
      solver, adjoint: other solver settings than the model was saved with (a tighter tolerance, say).
      repulsion: of nuclei that come closer than any training structure; default: what the model was saved with.

    Raises:
      FileNotFoundError, ValueError: see :func:`describe`; also when weights do not fit the configuration.
    """
    path = _locate(path)
    header = describe(path)
    try:
        checked = Header.model_validate(header)
    except ValidationError as error:
        raise ValueError(
            f"{path} holds settings that this version does not know: {error}"
        ) from error
    config, statistics = checked.config, checked.statistics
    if dtype is not None:
        name = str(dtype).removeprefix("torch.")
        if name not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, received {dtype}")
        config = dataclasses.replace(config, dtype=name)
    config = dataclasses.replace(
        config,
        solver=solver or config.solver,
        adjoint=adjoint or config.adjoint,
        repulsion=repulsion or config.repulsion,
    )
    if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device must be one that is there: received {device!r}, and torch sees no CUDA device; use 'cpu'"
        )
    potential = build(config, statistics)
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
    try:
        potential.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its configuration: {error}") from error
    return potential.to(device=device).eval()


def _locate(path: str | Path) -> Path:
    path = Path(path)
    if path.is_file():
        return path
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    try:
        return shipped(str(path))
    except KeyError as error:
        raise FileNotFoundError(f"no model file {str(path)!r}, and {error.args[0]}") from None
