"""Equilibrium and explicit stacks of equal width on revised MD17: errors, and what they cost.

    python -m benchmarks.rmd17 --epochs 100 --seeds 0 1 2
    python -m benchmarks.rmd17 --seconds 3600 --molecules aspirin --models deq-1 stacked-8 --data-folder RMD17 --channels 32
    python -m benchmarks.rmd17 --estimate 20

deq-N is the fixed point of N blocks, stacked-N are N layers with weights of their own, pre-norm as explicit stacks are used
(stacked-N-post: with the norm of the equilibrium). All else is that of the recipe rmd17-ethanol: loss, optimiser, batches, width,
for every molecule; its Jacobian penalty means something to an equilibrium only. Official split 01: 950 structures to train with,
50 to choose the best weights, all 1000 of the test set to measure the errors. --epochs gives all the same number of steps,
--seconds the same time, with both whichever ends first; both are recorded.

Every run is a run folder under --folder, in a process of its own. Ctrl-C saves; the same command goes on, skips what is finished
and merges each run into results/rmd17.json when it ends, beside what other calls have put there. Ethanol comes with the package,
other molecules need `equipoise data download rmd17`, or --data-folder.

--estimate measures so many training steps from untrained weights (on a CPU in processor time), and writes nothing.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch

from benchmarks.block_speed import peak_memory
from benchmarks.memory import resident, training_step
from benchmarks.record import processor
from benchmarks.rmd17_table import Record, merge, table
from equipoise.data.sources.rmd17 import MOLECULES
from equipoise.graph import batch
from equipoise.potentials import build, load
from equipoise.train import (
    Recipe,
    evaluate,
    examine,
    fit,
    load_recipe,
    read_datasets,
    read_test,
    training_statistics,
)
from equipoise.train.machine import find_device
from equipoise.train.optimiser import build_optimiser, learning_rate, set_learning_rate
from equipoise.train.state import make_folder, write_atomically
from equipoise.train.step import draw

MODELS = (
    {f"deq-{n}": ["kind=equilibrium", f"backbone.layers={n}"] for n in (1, 2)}
    | {
        f"stacked-{n}": ["kind=stacked", f"backbone.layers={n}", "backbone.norm=pre"]
        for n in (1, 2, 4, 8)
    }
    | {f"stacked-{n}-post": ["kind=stacked", f"backbone.layers={n}"] for n in (1, 2, 4, 8)}
)
USUAL = [name for name in MODELS if not name.endswith("-post")]
INTERRUPTED = 130


@dataclass(frozen=True)
class Run:
    """One training, and all that tells it from the others."""

    molecule: str
    model: str
    seed: int
    epochs: int
    max_seconds: float | None
    channels: int
    test: int
    changes: tuple[str, ...]
    device: str

    @property
    def name(self) -> str:
        clock = "" if self.max_seconds is None else f"-{self.max_seconds:g}s"
        return (
            f"{self.molecule}-{self.model}-{self.channels}ch-{self.epochs}ep{clock}-seed{self.seed}"
        )

    def recipe(self, data_folder: Path | None, threads: int) -> Recipe:
        """The shipped recipe, with widths in its proportions."""
        widths = {"channels": 1, "ffn": 1, "radial_hidden": 1, "hidden": 2}
        return load_recipe(
            "rmd17-ethanol",
            [
                f"data.molecule={self.molecule}",
                f"data.folder={'null' if data_folder is None else data_folder}",
                *[f"potential.backbone.{k}={self.channels // n}" for k, n in widths.items()],
                *[f"potential.{key}" for key in MODELS[self.model]],
                f"training.epochs={self.epochs}",
                f"training.max_seconds={self.max_seconds or 'null'}",
                f"training.seed={self.seed}",
                f"training.threads={threads}",
                f"training.device={self.device}",
                *self.changes,
            ],
        )

    def found(self, folder: Path) -> Record | None:
        """What came of it, if it is finished."""
        file = folder / self.name / "result.json"
        if not file.exists():
            return None
        record = json.loads(file.read_text())
        if record["run"] != json.loads(json.dumps(asdict(self))):
            raise SystemExit(
                f"{file.parent} holds a run with other settings, {record['run']}; give another --folder"
            )
        return record


def train_and_test(run: Run, folder: Path, recipe: Recipe) -> bool:
    """In a process of its own, whose peak memory this reads. False if it was interrupted."""
    idle, began = resident(), time.process_time()
    device = find_device(run.device)
    result = fit(recipe, folder)
    on_gpu = device.type == "cuda"
    # Of a run that was interrupted, every start leaves a line; one that was killed leaves none.
    start = {"cpu_seconds": time.process_time() - began, "idle": 0 if on_gpu else idle}
    start["peak"] = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    starts = folder / "starts.jsonl"
    with open(starts, "a") as file:
        file.write(json.dumps(start) + "\n")
    if not result.finished:
        return False
    torch.set_num_threads(recipe.training.threads)
    potential = load(result.model, device=str(device))
    graphs = read_test(recipe.data, cutoff=potential.cutoff)[: run.test]
    evaluation = evaluate(potential, graphs, batch_size=16)
    examination = examine(potential, graphs, structures=16)
    lines = [json.loads(line) for line in starts.read_text().splitlines()]
    record = {
        "run": asdict(run),
        "force_mae_mev": evaluation.errors.force_mae_mev,
        "energy_mae_mev": evaluation.errors.energy_mae_mev,
        "validation_force_mae_mev": result.best_force_mae_mev,
        "mean_predictor_force_mae_mev": evaluation.mean_predictor.force_mae_mev,
        "parameters": examination.parameters,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "steps": result.steps,
        "seconds": result.seconds,
        "cpu_seconds": sum(line["cpu_seconds"] for line in lines),
        "starts": len(lines),
        "peak_memory_mib": max(line["peak"] for line in lines) / 2**20,
        "training_memory_mib": max(line["peak"] - line["idle"] for line in lines) / 2**20,
        "passes": None if potential.config.kind == "stacked" else evaluation.passes_mean,
        "contraction": examination.contraction_mean,
        "unconverged": evaluation.unconverged,
        "test_structures": evaluation.structures,
        "milliseconds": 1e3 * examination.seconds_alone,
        "milliseconds_in_batches": 1e3 * evaluation.seconds_per_structure,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "threads": recipe.training.threads,
    }
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(folder / "result.json", lambda partial: partial.write_text(text))
    return True


def in_own_process(run: Run, given: argparse.Namespace) -> int:
    """Train and test one run; signals that reach this process are handed on. Returns how that ended."""
    command = [sys.executable, "-m", "benchmarks.rmd17", "--one", json.dumps(asdict(run))]
    command += ["--folder", str(given.folder), "--threads", str(given.threads)]
    if given.data_folder is not None:
        command += ["--data-folder", str(given.data_folder)]
    # A session of its own: Ctrl-C on a terminal would reach it twice, which means "at once".
    child = subprocess.Popen(command, start_new_session=True)
    before = {
        number: signal.signal(number, lambda number, frame: child.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def estimate(run: Run, recipe: Recipe, steps: int) -> dict[str, float]:
    """Seconds of an epoch with its validation, and of the test, from some steps and some predictions."""
    settings, device = recipe.training, find_device(run.device)
    torch.set_num_threads(settings.threads)
    on_gpu = device.type == "cuda"

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if on_gpu else time.process_time()

    data = read_datasets(recipe.data, cutoff=recipe.potential.backbone.cutoff, test=False)
    potential = build(recipe.potential, training_statistics(data.train), seed=run.seed)
    potential.to(device).train()
    optimiser = build_optimiser(potential, settings)
    per_epoch = -(-len(data.train) // settings.batch_size)
    times, passes = [], []
    for step in range(steps):
        first = step % (per_epoch - 1) * settings.batch_size
        graph = batch(data.train[first : first + settings.batch_size]).to(device)
        progress = step / (settings.epochs * per_epoch)
        drawn = draw(settings, step, device, progress)
        set_learning_rate(optimiser, learning_rate(progress, settings))
        began = clock()
        prediction = training_step(potential, optimiser, graph, settings, drawn)
        times.append(clock() - began)
        passes.append(
            0.0 if prediction.passes is None else float(prediction.passes.double().mean())
        )
    potential.eval()
    some = batch(data.validation[: settings.batch_size]).to(device)
    potential(some, unconverged="accept")
    began = clock()
    potential(some, unconverged="accept")
    predict = (clock() - began) / some.n_structures
    counted = times[min(2, steps - 1) :]  # the first load what they need
    step_time = sum(counted) / len(counted)
    return {
        "s/step": step_time,
        "passes": passes[-1],
        "s/epoch": per_epoch * step_time + len(data.validation) * predict,
        "s/test": run.test * predict,
    }


def spoken_command() -> str:
    """The command line, without the folders of this machine."""
    words = ["python -m benchmarks.rmd17"]
    given = iter(sys.argv[1:])
    for word in given:
        key, equals, _ = word.partition("=")
        if key in ("--data-folder", "--folder"):
            if not equals:
                next(given, None)
            words += ["--data-folder RMD17"] if key == "--data-folder" else []
        else:
            words.append(word)
    return " ".join(words)


def runs_of(given: argparse.Namespace) -> list[Run]:
    """Seeds last, so that a comparison is complete as early as may be."""
    epochs = given.epochs or load_recipe("rmd17-ethanol").training.epochs
    same = (epochs, given.seconds, given.channels, given.test, tuple(given.set))
    device = find_device(given.device).type
    cases = product(given.seeds, given.molecules, given.models)
    return [Run(molecule, model, seed, *same, device) for seed, molecule, model in cases]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--molecules", nargs="+", choices=MOLECULES, default=["ethanol", "aspirin"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=USUAL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="default: as the recipe says")
    parser.add_argument("--seconds", type=float, help="wall-clock budget of each training")
    parser.add_argument("--channels", type=int, default=64, help="width; a multiple of 8")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--test", type=int, default=1000, help="test structures")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-rmd17"))
    parser.add_argument("--data-folder", type=Path, help="of the revised MD17 files")
    parser.add_argument("--estimate", type=int, metavar="STEPS", help="how long would it take?")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()

    if given.one:
        plain = json.loads(given.one)
        run = Run(**plain | {"changes": tuple(plain["changes"])})
        recipe = run.recipe(given.data_folder, given.threads)
        finished = train_and_test(run, given.folder / run.name, recipe)
        raise SystemExit(0 if finished else INTERRUPTED)

    runs = runs_of(given)
    recipes = {run: run.recipe(given.data_folder, given.threads) for run in runs}
    if given.estimate:
        total = 0.0
        for run, recipe in recipes.items():
            line = estimate(run, recipe, given.estimate)
            total += recipe.training.epochs * line["s/epoch"] + line["s/test"]
            print(f"{run.name:50s}", *(f"{k} {v:8.3f}" for k, v in line.items()), flush=True)
        print(f"all {len(runs)} runs with all their epochs: {total / 3600:.1f} h")
        return

    make_folder(given.folder)
    finished = [record for run in runs if (record := run.found(given.folder)) is not None]
    everything = merge(finished, spoken_command()) if finished else []
    failed = []
    for number, run in enumerate(runs, 1):
        if run.found(given.folder) is not None:
            continue
        print(f"\n{number}/{len(runs)}: {run.name}", flush=True)
        ended = in_own_process(run, given)
        record = run.found(given.folder)
        if record is not None:
            everything = merge([record], spoken_command())
        elif ended in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            print("stopped; the same command goes on", flush=True)
            raise SystemExit(INTERRUPTED)
        else:
            failed.append(run.name)
    print(table(everything))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; the same command tries them again")


if __name__ == "__main__":
    main()
