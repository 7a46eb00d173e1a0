"""What commands have in common: how models and structures are named, and found by name."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import ase
import ase.io
import torch
import typer

from equipoise.data import rmd17
from equipoise.train.processes import started_by_torchrun

DEFAULT_MODEL = "rmd17-ethanol"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    float32 = "float32"
    float64 = "float64"


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A model.safetensors file, a run folder, or the name of a model that comes with the "
        "package (see [bold]equipoise info[/])."
    ),
]
StructureArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Structure to start from: any file ASE reads (xyz, extxyz, cif, POSCAR, pdb, ...), "
        "its last frame. Left out: an ethanol molecule from the rMD17 test set."
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=1, help="CPU threads; one is fastest below some 50 atoms.")
]
DeviceOption = Annotated[Device, typer.Option(help="auto: a CUDA device where there is one.")]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="Precision of the network; default: the one it was trained in."),
]


def model_file(model: str) -> str:
    """What `equipoise.load` takes, for what a user may write: file, name, or run folder.

    Raises:
        FileNotFoundError: for a folder without a model in it.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"the folder {model!r} holds no model.safetensors: it is no run folder, or its "
            f"training has not reached the first validation (go on: equipoise train {model})"
        )
    return str(folder / "model.safetensors")


def device_of(device: Device) -> str:
    """The name of the device; a CUDA device that is not there is refused when the model is read."""
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


def one_process(command: str) -> None:
    """Refuse to be one of several processes, which would all do the same work and write the same files.

    Raises:
        ValueError: started by torchrun, as training may be.
    """
    if started_by_torchrun():
        raise ValueError(
            f"equipoise {command} must be one process, received {os.environ['WORLD_SIZE']} of torchrun, which would all do the "
            f"same work and write the same files; start it without torchrun, which divides the work of train only"
        )


def dtype_of(precision: Precision | None) -> torch.dtype | None:
    return None if precision is None else getattr(torch, precision.value)


def run_folder(model: str, folder: Path | None) -> Path:
    """The run folder that results of a model go to.

    A model outside a run folder gets one of its own, runs/NAME-md: runs/NAME is where training a
    recipe of the same name keeps its run, which may be of another potential.
    """
    if folder is not None:
        return folder
    path = Path(model)
    if path.is_dir():
        return path
    if path.is_file() and (path.parent / "recipe.yaml").is_file():  # the file in a run folder
        return path.parent
    return Path("runs") / f"{path.stem}-md"


def read_structure(path: Path | None, cutoff: float) -> ase.Atoms:
    """The last frame of a file, or the ethanol molecule that comes with the package.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or ASE cannot read it.
    """
    if path is None:
        return rmd17("ethanol", cutoff=cutoff).test[0].to_ase()[0]
    if not path.is_file():
        raise FileNotFoundError(f"there is no structure file {str(path)!r}")
    try:
        return ase.io.read(path, index=-1)
    except Exception as error:  # ase's readers raise whatever their parsing meets
        raise ValueError(
            f"ASE cannot read a structure from {str(path)!r}: {type(error).__name__}: {error}"
        ) from error
