"""MACE, NequIP and Equipoise, each trained for the same time on the same ethanol: errors on the test set and time per evaluation.

    python -m benchmarks.peers --seconds 600 [--only mace nequip] [--environments FOLDER] [--compiled]

All learn from the same 950 structures of revised MD17, official split 01, choose their weights with the same 50, and are tested
on the same 1000, on one thread in single precision, one after another. MACE and NequIP have virtual environments of their own,
made here on the first call (pip needs its index; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids the CUDA build
of torch), and are driven through their own programs, with the settings below: those that their documentation gives, at a width
that sees the data a few tens of times in ten minutes. Their schedules count epochs, so an epoch is timed first, and the number
chosen that fits; start-up is not counted for anyone. A busy machine would spoil this: "cpu_share" is processor time over wall
time of the training.

An evaluation is energy and forces of one molecule through the ASE calculator, along an NVE trajectory at 300 K with steps of
0.5 fs. Potentials without a memory do not notice; ours is timed from nothing ("cold"), with the fixed point of earlier steps as
first guess ("reuse", same tolerance), and with two joint passes a step ("two passes"). With --compiled, which takes minutes, also
after nequip-compile and after `Potential.compile`.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import matplotlib
import numpy as np
import torch
import yaml

from benchmarks.peers_side import WARM_UP, errors, times
from benchmarks.record import RESULTS, write
from equipoise.deq import Joint
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.md import run_md
from equipoise.potentials import load
from equipoise.train import Datasets, fit, load_recipe, read_datasets

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

SIDE = Path(__file__).with_name("peers_side.py")
RECIPE = "quickstart"
CUTOFF = 5.0  # Å, of all
BATCH = 5  # what both peers use for sets of this size
FRAMES = 200  # timed, after the warm-up
SHARED = ("torch==2.13.0", "numpy==2.4.6", "ase==3.29.0")
PACKAGES = {
    "mace": ("mace-torch==0.3.16",),
    "nequip": ("nequip==0.19.1", "lightning==2.6.6", "hydra-core==1.3.8", "omegaconf==2.3.1"),
}
# README and documentation of MACE: AMSGrad at 0.01, averaged weights, energies weighted more in the last quarter ("stage two").
# Of several tried for 200 s this width learned most. Its published networks for rMD17 have 256 channels, max_L 2 and max_ell 3.
MACE = {
    "model": "MACE", "num_interactions": 2, "num_channels": 32, "max_L": 0, "correlation": 3, "max_ell": 2, "r_max": CUTOFF,
    "E0s": "average", "scaling": "rms_forces_scaling", "default_dtype": "float32", "batch_size": BATCH, "valid_batch_size": 50,
    "lr": 0.01, "ema_decay": 0.99, "forces_weight": 100, "energy_weight": 1, "swa_energy_weight": 1000, "swa_forces_weight": 100,
    "swa_lr": 1e-3, "seed": 0,
}  # fmt: skip
NEQUIP = Path(__file__).with_name("peers_nequip.yaml")


@dataclass(frozen=True)
class Workplace:
    """Where the peers find things."""

    environments: Path
    folder: Path

    def program(self, peer: str, name: str) -> str:
        return str(self.environments / peer / "bin" / name)

    def data(self, part: str) -> Path:
        return self.folder / f"{part}.xyz"


@dataclass(frozen=True)
class Watched:
    """What a training program did, seen from outside."""

    epochs: int
    seconds: float  # from the beginning of its first epoch to the end of its last
    last_epoch: float  # seconds
    cpu_share: float


def make_environment(peer: str, environments: Path) -> None:
    """A virtual environment with the pinned versions; one that is there is used again."""
    folder = environments / peer
    pins = [*SHARED, *PACKAGES[peer]]
    done = folder / "pins.txt"
    if done.exists() and done.read_text().split() == pins:
        return
    print(f"making the environment of {peer} in {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *pins], check=True)
    done.write_text("\n".join(pins) + "\n")


def write_data(datasets: Datasets, folder: Path) -> float:
    """The same structures as extxyz; returns the energy that the labels are counted from.

    That is the mean of the training set: in single precision a total energy of -4210 eV has steps of half a meV. All atoms
    being the same, the constant is nothing that a potential has to learn.
    """
    origin = float(np.mean([float(graph.energy) for graph in datasets.train]))
    for part in ("train", "validation", "test"):
        frames = []
        for graph in getattr(datasets, part):
            (atoms,) = graph.to_ase()
            frame = ase.Atoms(atoms.numbers, atoms.positions)
            frame.info["REF_energy"] = atoms.get_potential_energy() - origin
            frame.arrays["REF_forces"] = atoms.get_forces()
            frames.append(frame)
        ase.io.write(folder / f"{part}.xyz", frames, format="extxyz")
    return origin


def write_trajectory(start: ase.Atoms, path: Path) -> None:
    """Consecutive frames that all are timed on, by the potential that comes with the package."""
    with tempfile.TemporaryDirectory() as folder:
        run_md(start, "ethanol", steps=WARM_UP + FRAMES, folder=folder, trajectory_every=1, progress=False)  # fmt: skip
        frames = ase.io.read(Path(folder) / "trajectory.extxyz", ":")
    ase.io.write(path, [ase.Atoms(f.numbers, f.positions) for f in frames], format="extxyz")


def watch(command: list[str | Path], log: Path, begin: str) -> Watched:
    """Run a training program; the line that matches ``begin`` starts the clock, and each "Epoch N" line ends an epoch."""
    stamps: list[float] = []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, cwd=log.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):  # fmt: skip
        for line in process.stdout:
            file.write(line)
            file.flush()
            if re.search(r"\bEpoch \d+[:,]" if stamps else begin, line):
                stamps.append(time.perf_counter())
    if process.returncode or len(stamps) < 2:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}; its output is in {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Watched(
        epochs=len(stamps) - 1,
        seconds=stamps[-1] - stamps[0],
        last_epoch=stamps[-1] - stamps[-2],
        cpu_share=cpu / (time.perf_counter() - began),
    )


def run_mace(place: Workplace, run: str, epochs: int) -> tuple[Watched, Path]:
    folder = place.folder / run
    shutil.rmtree(folder, ignore_errors=True)  # MACE would go on from checkpoints that it finds
    # Stage one falls exponentially to the rate of stage two.
    second = max(1, epochs * 3 // 4)
    gamma = (MACE["swa_lr"] / MACE["lr"]) ** (1 / second)
    options = MACE | {
        "name": "mace", "work_dir": folder, "train_file": place.data("train"), "valid_file": place.data("validation"),
        "energy_key": "REF_energy", "forces_key": "REF_forces", "scheduler": "ExponentialLR", "lr_scheduler_gamma": gamma,
        "max_num_epochs": epochs, "start_swa": second, "device": "cpu", "error_table": "TotalMAE", "plot": False,
    }  # fmt: skip
    words = [f"--{key}={value}" for key, value in options.items()]
    seen = watch(
        [place.program("mace", "mace_run_train"), *words, "--ema", "--amsgrad", "--swa"],
        place.folder / f"{run}.log",
        begin="INFO: Initial:",
    )
    return seen, folder / "mace_stagetwo.model"


def run_nequip(place: Workplace, run: str, epochs: int) -> tuple[Watched, Path]:
    folder = place.folder / run
    shutil.rmtree(folder, ignore_errors=True)
    given = {"epochs": epochs, "folder": place.folder, "hydra.run.dir": folder}
    words = [f"{key}={value}" for key, value in given.items()]
    seen = watch(
        [place.program("nequip", "nequip-train"), "-cp", NEQUIP.parent, "-cn", NEQUIP.stem, *words],
        place.folder / f"{run}.log",
        begin="Total estimated model params size",
    )
    return seen, folder / "best.ckpt"


def compile_nequip(place: Workplace, model: Path) -> Path:
    compiled = model.with_suffix(".nequip.pt2")
    words = [
        str(model),
        str(compiled),
        "--mode",
        "aotinductor",
        "--target",
        "ase",
        "--device",
        "cpu",
    ]
    with (place.folder / "compile_nequip.log").open("w") as log:
        subprocess.run([place.program("nequip", "nequip-compile"), *words], check=True, stdout=log, stderr=log)  # fmt: skip
    return compiled


def train_peer(peer: str, place: Workplace, seconds: float, compiled: bool) -> dict[str, Any]:
    """Time an epoch, train for as many as fit, then measure in the environment of the peer."""
    run: Callable[[Workplace, str, int], tuple[Watched, Path]] = {
        "mace": run_mace,
        "nequip": run_nequip,
    }[peer]
    trial, _ = run(place, f"{peer}_trial", 2)
    # The first epoch is the longer one: code is compiled in it.
    epochs = max(2, 2 + int((seconds - trial.seconds) / trial.last_epoch))
    seen, model = run(place, peer, epochs)
    out = place.folder / f"{peer}.json"
    words = [peer, model, place.data("test"), place.data("trajectory"), out]
    if compiled and peer == "nequip":
        words.append(compile_nequip(place, model))
    with (place.folder / f"{peer}_measured.log").open("w") as log:
        subprocess.run(
            [place.program(peer, "python"), SIDE, *words],
            check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return json.loads(out.read_text()) | {
        "epochs": seen.epochs,
        "training_seconds": seen.seconds,
        "cpu_share": seen.cpu_share,
        "settings": MACE
        if peer == "mace"
        else yaml.safe_load(NEQUIP.read_text())["training_module"],
    }


def train_ours(changes: list[str], place: Workplace, seconds: float, origin: float, compiled: bool) -> dict[str, Any]:  # fmt: skip
    changes = [*changes, f"training.max_seconds={seconds}", "training.threads=1"]
    began, cpu = time.perf_counter(), time.process_time()
    result = fit(load_recipe(RECIPE, changes), Path(tempfile.mkdtemp(dir=place.folder)))
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - began)
    frames = ase.io.read(place.data("trajectory"), ":")
    test = ase.io.read(place.data("test"), ":")
    for frame in test:
        frame.info["REF_energy"] += origin
    potential = load(result.model)
    ways: dict[str, dict[str, Any]] = {"plain": {"warm_start": False}}
    if potential.config.kind == "equilibrium":
        ways = {"cold": {"warm_start": False}, "reuse": {}, "two passes": {"joint": Joint()}}
    calculators = {name: EquipoiseCalculator(potential, **way) for name, way in ways.items()}
    line = errors(next(iter(calculators.values())), test) | {
        "parameters": sum(p.numel() for p in potential.parameters()),
        "milliseconds": {name: times(each, frames) for name, each in calculators.items()},
    }
    if compiled:
        potential = load(result.model)
        for name, way in ways.items():
            calculator = EquipoiseCalculator(potential, compile=True, **way)
            line["milliseconds"][f"{name}, compiled"] = times(calculator, frames)
    return line | {
        "epochs": result.epochs,
        "training_seconds": result.seconds,
        "cpu_share": cpu_share,
        "settings": {"recipe": RECIPE, "changes": changes},
    }


OURS = {
    "equipoise": [],
    "equipoise, explicit layer": ["potential.kind=stacked", "potential.backbone.norm=pre"],
}


def kept(seconds: float, names: list[str]) -> dict[str, Any]:
    """Lines of an earlier call with the same budget, for what is not measured now."""
    path = RESULTS / "peers.json"
    lines = json.loads(path.read_text())["results"] if path.exists() else {}
    return {
        name: line
        for name, line in lines.items()
        if line["budget_seconds"] == seconds and name not in names
    }


def table(results: dict[str, Any]) -> str:
    rows = ["| | weights | epochs | E (meV) | F (meV/Å) | ms per evaluation |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name, line in results.items():
        ways = line["milliseconds"]
        spent = ", ".join(
            f"{way['median']:.1f}" + ("" if key == "plain" else f" ({key})")
            for key, way in ways.items()
        )
        rows.append(
            f"| {name} | {line['parameters']:,} | {line['epochs']:.0f} | {line['energy_mae_mev']:.1f} "
            f"| {line['force_mae_mev']:.1f} | {spent} |"
        )
    return "\n".join(rows)


def plot(results: dict[str, Any], seconds: float, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.barh(list(results), [line["force_mae_mev"] for line in results.values()], color="#3b6ea8")
    left.set_xlabel(f"force MAE after {seconds:.0f} s of training, meV/Å")
    spent = {
        f"{name}, {way}".removesuffix(", plain"): value["median"]
        for name, line in results.items()
        for way, value in line["milliseconds"].items()
    }
    right.barh(list(spent), list(spent.values()), color="#c1666b")
    right.set_xlabel("energy and forces of one ethanol, ms")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.bar_label(axes.containers[0], fmt="%.1f", padding=2)
        axes.margins(x=0.15)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*OURS, *PACKAGES]
    parser.add_argument("--seconds", type=float, default=600, help="training time of each")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path.home() / ".cache" / "equipoise" / "peers",
        help="folder of the virtual environments, 1 GB each",
    )
    parser.add_argument("--folder", type=Path, help="keep data, logs and models here")
    parser.add_argument("--compiled", action="store_true", help="also time compiled potentials")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for peer in PACKAGES:
        if peer in arguments.only:
            make_environment(peer, arguments.environments.absolute())
    folder = (arguments.folder or Path(tempfile.mkdtemp())).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    place = Workplace(arguments.environments.absolute(), folder)
    datasets = read_datasets(load_recipe(RECIPE, []).data, cutoff=CUTOFF)
    origin = write_data(datasets, folder)
    write_trajectory(datasets.test[0].to_ase()[0], place.data("trajectory"))
    results = kept(arguments.seconds, arguments.only)
    for name in arguments.only:
        print(f"{name}: {arguments.seconds:.0f} s of training", flush=True)
        if name in OURS:
            line = train_ours(OURS[name], place, arguments.seconds, origin, arguments.compiled)
        else:
            line = train_peer(name, place, arguments.seconds, arguments.compiled)
        results[name] = {"budget_seconds": arguments.seconds} | line
        ordered = {each: results[each] for each in names if each in results}
        # After each: an hour of training is not lost when the last one fails.
        command = " ".join(["python -m benchmarks.peers", f"--seconds {arguments.seconds:g}"])
        path = write("peers", command, ordered, seeds=[0])
        plot(ordered, arguments.seconds, RESULTS / "peers.png")
    print(table(ordered))
    print(f"wrote {path} and logs to {folder}")


if __name__ == "__main__":
    main()
