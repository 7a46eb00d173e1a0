"""A step of molecular dynamics: an equilibrium with reuse against explicit stacks, side by side.

    python -m benchmarks.rmd17 --molecules ethanol --models deq-1 stacked-4 stacked-8
    python -m benchmarks.md_speed --equilibrium RUN --rivals stacked-4=RUN stacked-8=RUN [--molecules 1 11 111] [--threads 1 2]

Every line is a calculator that follows the same trajectory: gas-phase dynamics of the molecule at 300 K, 0.5 fs a step, made
with the equilibrium solved to 1e-6; for more atoms, that many molecules at the density of liquid ethanol, each at another time
of it and turned at random. So all see equal positions, and in every step all take their turn. A step is what the calculator
takes: neighbours, graph, energy, forces; what the integrator adds is measured once. Beside the times is the distance of the
forces from those of the same model solved to 1e-6, and the error on the test set, which says whether the models are equals.

"cold" and "warm" lines solve to the tolerance of the model; "x2" lines take two joint passes, "+8" with eight secants, where a
simulation would solve steps whose residuals are above 0.03, and "default" is what `equipoise md` chooses;
"history-free" lines are so many passes from nothing. With --compiled,
for one molecule, also what `torch.compile` makes of them, after minutes.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import ase
import matplotlib
import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from benchmarks.record import RESULTS, write
from equipoise.data import rmd17
from equipoise.data.sources.rmd17 import MOLECULES
from equipoise.deq import Anderson, Joint
from equipoise.deq.predictors import ASPC, Last, LeastSquares, Quadratic
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.passes import reversible_passes
from equipoise.engines.velocities import thermal_momenta
from equipoise.engines.warm_start import WarmStart
from equipoise.potentials import load
from equipoise.train import evaluate

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

SPACING = 4.59  # Å: 96.9 Å³ per molecule of ethanol
APART = 2.2  # Å between atoms of different molecules
LATER = 7  # steps between the times of neighbouring molecules
WARM_UP = 6  # steps, until all histories are full


@dataclass(frozen=True)
class Line:
    """A way to take a step, as options of a calculator."""

    model: str
    options: dict
    compiled: bool = False


def lines_of(
    rivals: dict[str, str], equilibrium: str, default: tuple[Joint, WarmStart], history_free: int
) -> dict[str, Line]:
    # However large the residuals, so that a line costs what it says; the distance from solved forces says what that is worth.
    few = partial(Joint, max_residual=math.inf)
    passes, memory = default[0].passes, default[1]
    chosen = {"joint": few(passes=passes), "warm_start": memory}
    secants = {"joint": few(passes=2, recycled=8), "warm_start": WarmStart(ASPC(k=2))}
    one = {"joint": few(passes=1), "warm_start": WarmStart(ASPC(k=0))}
    lines = {
        "cold": Line(equilibrium, {"warm_start": False}),
        "warm, last": Line(equilibrium, {"warm_start": WarmStart(Last())}),
        "warm, quadratic": Line(equilibrium, {"warm_start": WarmStart(Quadratic())}),
        "warm, least squares": Line(equilibrium, {"warm_start": WarmStart(LeastSquares())}),
        f"x{passes}, default": Line(equilibrium, chosen),
        "x2 +8": Line(equilibrium, secants),
        "x1": Line(equilibrium, one),
        f"history-free, {history_free} passes": Line(equilibrium, {"history_free": history_free}),
        f"x{passes}, default, compiled": Line(equilibrium, chosen, compiled=True),
    }
    for name, model in rivals.items():
        lines[name] = Line(model, {"allow_direct": True})
    for name, model in rivals.items():
        lines[f"{name}, compiled"] = Line(model, {"allow_direct": True}, compiled=True)
    return lines


def trajectory(model: str, atoms: ase.Atoms, steps: int) -> np.ndarray:
    """Positions, Å, [steps, atoms, 3], of NVE dynamics."""
    atoms = atoms.copy()
    solver = Anderson(tolerance=1e-6, max_passes=100)
    potential = load(model, dtype="float64", solver=solver, adjoint=solver)
    atoms.set_momenta(thermal_momenta(atoms, 300.0, np.random.default_rng(0)))
    atoms.calc = EquipoiseCalculator(potential)
    integrator, frames = VelocityVerlet(atoms, 0.5 * units.fs), []
    for _ in range(steps):
        integrator.run(1)
        frames.append(atoms.positions.copy())
    return np.array(frames)


def crowd(frames: np.ndarray, molecules: int, steps: int) -> np.ndarray:
    """Positions of many molecules, each at another time and turned at random, on a grid: [steps, molecules * atoms, 3]."""
    generator, side = np.random.default_rng(0), int(np.ceil(molecules ** (1 / 3)))
    spacing = SPACING * (frames.shape[1] / 9) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    parts: list[np.ndarray] = []
    for number, place in enumerate(grid[:molecules] * spacing):
        path = frames[LATER * number : LATER * number + steps]
        path = path - path[0].mean(0)
        taken = np.concatenate([part[0] for part in parts]) if parts else np.full((1, 3), np.inf)
        best = 0.0
        # Atoms of neighbours nearer than they ever come are nothing the network can say anything about.
        for _ in range(100):
            turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
            turned = path @ (turn * np.linalg.det(turn)) + place
            gap = np.linalg.norm(turned[0][:, None] - taken, axis=-1).min()
            if gap > best:
                best, chosen = gap, turned
            if best > APART:
                break
        parts.append(chosen)
    return np.concatenate(parts, axis=1)


def follow(lines: dict[str, Line], numbers: np.ndarray, path: np.ndarray) -> dict[str, dict]:
    """Times and errors of all lines along one path."""
    equilibrium = lines["cold"].model
    tight = Anderson(tolerance=1e-6, max_passes=100)
    # float32 cannot be trusted to get there
    exact = EquipoiseCalculator(load(equilibrium, dtype="float64", solver=tight, adjoint=tight))
    calculators = {
        name: EquipoiseCalculator(
            load(line.model), unconverged="accept", compile=line.compiled, **line.options
        )
        for name, line in lines.items()
    }
    times: dict[str, list[float]] = {name: [] for name in lines}
    errors: dict[str, list[float]] = {name: [] for name in lines}
    before = {}
    for step, positions in enumerate(path):
        if step == WARM_UP:
            before = {name: each.statistics for name, each in calculators.items()}
        atoms = ase.Atoms(numbers, positions)
        compare = step in (len(path) * 2 // 3, len(path) - 1)
        reference = exact.get_forces(atoms) if compare else None
        for name, calculator in calculators.items():
            began = time.perf_counter()
            forces = calculator.get_forces(atoms)
            if step >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - began))
            if reference is not None and lines[name].model == equilibrium:
                errors[name].append(1e3 * float(np.sqrt(np.mean((forces - reference) ** 2))))
    found = {}
    for name, calculator in calculators.items():
        count, earlier = calculator.statistics, before[name]
        calls = count.calls - earlier.calls
        found[name] = {
            "milliseconds": median(times[name]),
            "passes": (count.passes - earlier.passes) / calls,
            "adjoint_passes": (count.adjoint_passes - earlier.adjoint_passes) / calls,
            "force_rms_from_solved_mev": float(np.mean(errors[name])) if errors[name] else None,
        }
    return found


def test_error(model: str, molecule: str, folder: str | None, count: int) -> float:
    """Force MAE, meV/Å, over the first structures of the official test set."""
    potential = load(model)
    graphs = rmd17(molecule, cutoff=potential.cutoff, folder=folder).test[:count]
    return evaluate(potential, graphs, batch_size=16).errors.force_mae_mev


def integrator_alone(numbers: np.ndarray, positions: np.ndarray) -> float:
    """Milliseconds of a Verlet step whose forces cost nothing."""

    class Free(ase.calculators.calculator.Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, atoms=None, properties=(), system_changes=()):
            self.results = {"energy": 0.0, "forces": np.zeros((len(numbers), 3))}

    atoms = ase.Atoms(numbers, positions, calculator=Free())
    integrator = VelocityVerlet(atoms, 0.5 * units.fs)
    began = time.perf_counter()
    integrator.run(200)
    return 1e3 * (time.perf_counter() - began) / 200


def report(name: str, line: dict) -> None:
    error = line["force_rms_from_solved_mev"]
    print(
        f"{line['atoms']:5d} atoms {line['threads']} thr  {name:28s} {line['milliseconds']:8.2f} ms  "
        f"{line['speed_up_over_slowest_stack']:5.2f}x  passes {line['passes']:4.1f} + {line['adjoint_passes']:4.1f}"
        + ("" if error is None else f"  forces {error:.2g} meV/Å from solved")
        + f"  test MAE {line['test_force_mae_mev']:.1f}",
        flush=True,
    )


def plot(results: dict[str, dict], file: Path) -> None:
    names = list(dict.fromkeys(line["line"] for line in results.values()))
    sizes = sorted({line["atoms"] for line in results.values()})
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(3 + 2.4 * len(sizes), 4), layout="constrained", sharey=True,
        squeeze=False,
    )  # fmt: skip
    for panel, atoms in zip(panels[0], sizes, strict=True):
        for line in results.values():
            if line["atoms"] == atoms and line["threads"] == 1:
                stack = not line["equilibrium"]
                panel.barh(
                    names[::-1].index(line["line"]), line["milliseconds"],
                    color="#b5651d" if stack else "#3b6ea8",
                )  # fmt: skip
        panel.set_title(f"{atoms} atoms", fontsize=9)
        panel.set_xlabel("ms per step")
    panels[0][0].set_yticks(range(len(names)), names[::-1], fontsize=8)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--equilibrium", required=True, help="a run folder or model file")
    parser.add_argument("--rivals", nargs="+", default=[], metavar="NAME=RUN")
    parser.add_argument("--molecule", choices=MOLECULES, default="ethanol")
    parser.add_argument("--data-folder", help="of the revised MD17 files; ethanol is shipped")
    parser.add_argument("--molecules", type=int, nargs="+", default=[1, 11, 111], help="sizes")
    parser.add_argument("--steps", type=int, default=120, help="of one molecule; of more, fewer")
    parser.add_argument("--history-free", type=int, default=8, help="passes")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--name", help="of the results; default: the molecule")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--test", type=int, default=1000, help="test structures")
    given = parser.parse_args()
    rivals = dict(each.split("=", 1) for each in given.rivals)
    torch.set_num_threads(1)
    test = partial(test_error, molecule=given.molecule, folder=given.data_folder, count=given.test)
    errors = {model: test(model) for model in (given.equilibrium, *rivals.values())}
    potential = load(given.equilibrium)
    first = rmd17(given.molecule, cutoff=potential.cutoff, folder=given.data_folder)
    atoms = first.test[0].to_ase()[0]
    default = reversible_passes(potential, first.test[0])
    if default is None:
        parser.error(f"a step of {given.equilibrium} is solved: it contracts too little")
    lines = lines_of(rivals, given.equilibrium, default, given.history_free)
    counts = {n: max(WARM_UP + 4, int(given.steps / n**0.6)) for n in given.molecules}
    longest = max(counts[n] + LATER * (n - 1) for n in counts)
    frames = trajectory(given.equilibrium, atoms, longest)
    results: dict[str, dict] = {}
    for threads in given.threads:
        torch.set_num_threads(threads)
        for molecules, steps in counts.items():
            compiled = given.compiled and molecules == 1
            some = {k: line for k, line in lines.items() if compiled or not line.compiled}
            numbers = np.tile(atoms.numbers, molecules)
            path = crowd(frames, molecules, steps)
            found = follow({k: refreshed(line) for k, line in some.items()}, numbers, path)
            stacks = [k for k in rivals if "stacked" in k]
            slowest = max((found[k]["milliseconds"] for k in stacks), default=float("nan"))
            for name, line in found.items():
                line |= {
                    "line": name,
                    "equilibrium": some[name].model == given.equilibrium,
                    "atoms": len(numbers),
                    "threads": threads,
                    "steps": steps - WARM_UP,
                    "speed_up_over_slowest_stack": slowest / line["milliseconds"],
                    "test_force_mae_mev": errors[some[name].model],
                    "integrator_milliseconds": integrator_alone(numbers, path[0]),
                }
                results[f"{name}, {len(numbers)} atoms, {threads} thr"] = line
                report(name, line)
    file = f"md_speed_{given.name or given.molecule}"
    plot(results, RESULTS / f"{file}.png")
    print(f"wrote {write(file, spoken(sys.argv[1:]), results, seeds=[0])}")


def refreshed(line: Line) -> Line:
    """The same with an empty memory."""
    memory = line.options.get("warm_start")
    if not isinstance(memory, WarmStart):
        return line
    return Line(
        line.model, line.options | {"warm_start": WarmStart(memory.predictor)}, line.compiled
    )


def spoken(words: list[str]) -> str:
    """The command line, of paths only the last part."""
    return " ".join(
        ["python -m benchmarks.md_speed"]
        + ["=".join(Path(part).name for part in word.split("=")) for word in words]
    )


if __name__ == "__main__":
    main()
