"""Where the time of a step of dynamics goes.

    python -m benchmarks.md_profile [--model rmd17-ethanol] [--molecules 1 111] [--steps 100]

NVE dynamics of ethanol at 300 K with steps of 0.5 fs, in single precision on one thread; for more atoms, a crowd as in `md_speed`
that moves on prescribed paths. Stopwatches around the parts of a step, each stopped while a part within it runs, so that the
parts add up to the step.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from unittest.mock import patch

import ase
import matplotlib
import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from benchmarks.md_speed import LATER, crowd, trajectory
from benchmarks.record import RESULTS, write
from equipoise.data import rmd17
from equipoise.deq import Anderson, Joint
from equipoise.deq.joint import JointIteration
from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.velocities import thermal_momenta
from equipoise.engines.warm_start import WarmStart
from equipoise.potentials import Potential, load
from equipoise.potentials.equilibrium import Cell, Equilibrium

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

REST = "integrator, results"
# What is measured: the parts of a step, and the functions that are them.
PARTS = {
    "neighbours, graph": [(EquipoiseCalculator, "_graph")],
    "guess": [(WarmStart, "start"), (WarmStart, "_guess"), (WarmStart, "remember")],
    "geometry": [(Equilibrium, "_prepare")],
    "block, forward": [(Cell, "forward")],
    "block and geometry, backward": [(torch.autograd, "grad")],
    "acceleration": [(Anderson, "solve"), (JointIteration, "step"), (JointIteration, "finish")],
    "readout, checks": [(Potential, "forward")],
}
SCHEMES = {
    "solved to 1e-4": {},
    "two joint passes": {"joint": Joint()},
}
WARM_UP = 10  # steps


class Stopwatches:
    """Seconds of each part, without those of parts within it."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = [REST]
        self._since = time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def around(self, part: str, function: Callable) -> Callable:
        @wraps(function)
        def measured(*given, **named):
            self._switch()
            self._running.append(part)
            try:
                return function(*given, **named)
            finally:
                self._switch()
                self._running.pop()

        return measured

    def lap(self) -> dict[str, float]:
        """What has gathered since the last lap."""
        self._switch()
        found, self.seconds = dict(self.seconds), defaultdict(float)
        return found


@contextmanager
def watched() -> Iterator[Stopwatches]:
    watches = Stopwatches()
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for place, name in functions:
                stack.enter_context(
                    patch.object(place, name, watches.around(part, getattr(place, name)))
                )
        yield watches


def stepper(atoms: ase.Atoms, path: np.ndarray | None) -> Callable[[int], None]:
    """What moves the atoms and asks for forces: an integrator, or a path."""
    if path is None:
        integrator = VelocityVerlet(atoms, 0.5 * units.fs)
        return lambda step: integrator.run(1)

    def follow(step: int) -> None:
        atoms.positions = path[step]
        atoms.get_forces()

    return follow


def profile(model: str, atoms: ase.Atoms, options: dict, steps: int, path: np.ndarray | None):
    """Milliseconds of the parts (medians), of a step, and passes."""
    atoms = atoms.copy()
    atoms.calc = EquipoiseCalculator(load(model, dtype="float32"), unconverged="accept", **options)
    atoms.set_momenta(thermal_momenta(atoms, 300.0, np.random.default_rng(0)))
    advance = stepper(atoms, path)
    for step in range(WARM_UP):
        advance(step)
    before, laps = atoms.calc.statistics, []
    with watched() as watches:
        watches.lap()
        for step in range(WARM_UP, WARM_UP + steps):
            advance(step)
            laps.append(watches.lap())
    count = atoms.calc.statistics
    return {
        "milliseconds": {
            part: 1e3 * median(lap.get(part, 0.0) for lap in laps) for part in [*PARTS, REST]
        },
        "step": 1e3 * median(sum(lap.values()) for lap in laps),
        "passes": (count.passes - before.passes) / steps,
        "adjoint_passes": (count.adjoint_passes - before.adjoint_passes) / steps,
        "atoms": len(atoms),
        "steps": steps,
    }


def plot(lines: dict[str, dict], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(lines) + 1.6), layout="constrained")
    left = np.zeros(len(lines))
    for part in [*PARTS, REST]:
        shares = np.array([line["milliseconds"][part] / line["step"] for line in lines.values()])
        axes.barh(list(lines), 100 * shares, left=left, label=part)
        left += 100 * shares
    axes.invert_yaxis()
    axes.set_xlabel("% of a step")
    axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.5))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rmd17-ethanol")
    parser.add_argument("--molecules", type=int, nargs="+", default=[1, 111])
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    one = rmd17(cutoff=load(given.model).cutoff).test[0].to_ase()[0]
    lines = {}
    for molecules in given.molecules:
        atoms, path, steps = one, None, given.steps
        if molecules > 1:
            steps = max(5, given.steps // molecules)
            length = WARM_UP + steps
            path = crowd(
                trajectory(given.model, one, length + LATER * molecules), molecules, length
            )
            atoms = ase.Atoms(np.tile(one.numbers, molecules), path[0])
        for name, options in SCHEMES.items():
            line = profile(given.model, atoms, options, steps, path)
            lines[f"{len(atoms)} atoms, {name}"] = line
            parts = ", ".join(f"{k} {v:.1f}" for k, v in line["milliseconds"].items())
            print(f"{len(atoms)} atoms, {name}: {line['step']:.1f} ms ({parts})", flush=True)
    plot(lines, RESULTS / "md_profile.png")
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.md_profile", *words])
    print(f"wrote {write('md_profile', command, lines, seeds=[0])}")


if __name__ == "__main__":
    main()
