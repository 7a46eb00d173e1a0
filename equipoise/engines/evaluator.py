"""What every engine does at every step: a guess, a few passes or a solve, and what when these are not enough.

An engine brings structures and takes predictions; see `engines.ase` for one.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from equipoise.deq import Joint, Solution
from equipoise.engines.passes import memory_for, reversible_passes
from equipoise.engines.warm_start import WarmStart
from equipoise.graph import Graph
from equipoise.potentials import (
    CompilationError,
    Potential,
    Prediction,
    Start,
    UnconvergedError,
)

PATIENCE = 10  # structures in a row for which joint passes were too few
# Of the last structure, in a checkpoint beside the memory.
STATE = ("passes", "adjoint_passes", "residual", "adjoint_residual", "correction")


class NonFiniteError(RuntimeError):
    """The potential returned NaN or infinity for a finite structure."""


@dataclass(frozen=True)
class CalculatorStatistics:
    """Running totals of one calculator since it was made."""

    calls: int = 0  # evaluations of the potential
    passes: int = 0  # of the equilibrium, all calls together
    adjoint_passes: int = 0
    neighbour_builds: int = 0
    warm_calls: int = 0  # calls that began from a guess
    cold_retries: int = 0  # warm solves that failed and were repeated from nothing
    joint_calls: int = 0  # answered by joint passes
    joint_retries: int = 0  # joint passes after which a solve was needed all the same


class Evaluator:
    """Predictions along one trajectory, each with what the ones before have taught.

    **Arguments**: `potential`, a `Potential`, which is put into evaluation mode; the others
    as for `EquipoiseCalculator`.

    **Attributes**, all of the last structure unless said otherwise

    - `graph`: it; None before the first.
    - `passes`, `adjoint_passes`: int, those of attempts that failed included; 0 for a
      potential without an equilibrium.
    - `residual`, `adjoint_residual`: relative residuals; NaN where there is none.
    - `correction`: eV, the part λᵀ(f(z) - z) of the energy; 0 without an equilibrium.
    - `warm_start`: the memory, or None.
    - `joint`: the joint passes that a step gets from now on, or None; with "auto" not known
      before the first structure.
    - `misses`: steps in a row after which these were too few.
    - `statistics`: `CalculatorStatistics`, running totals; neighbours are not its business.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        warm_start: bool | WarmStart = True,
        joint: Joint | str | None = None,
        history_free: int | None = None,
        unconverged: str = "error",
        compile: bool = False,
    ) -> None:
        if unconverged not in ("error", "warn", "accept"):
            raise ValueError(
                f'unconverged must be "error", "warn" or "accept", received {unconverged!r}'
            )
        if not (joint is None or joint == "auto" or isinstance(joint, Joint)):
            raise ValueError(f'joint must be a Joint, "auto" or None, received {joint!r}')
        if joint == "auto" and (warm_start is not True or history_free is not None):
            joint = None
        if history_free is not None and (joint is not None or history_free < 1):
            raise ValueError(
                f"history_free must be at least 1 pass, and goes without joint, received {history_free} and {joint}"
            )
        if joint is not None and warm_start is False:
            raise ValueError("joint passes start from a guess, received warm_start=False")
        self.potential = potential.eval()
        self.joint = joint if isinstance(joint, Joint) else None
        self.history_free = history_free
        self.unconverged = unconverged
        self.compile = compile
        if isinstance(warm_start, bool):
            self.warm_start = WarmStart() if warm_start and history_free is None else None
        else:
            self.warm_start = warm_start
        self._asked = joint if warm_start is True else None  # until there is a structure
        self._may_give_up = joint == "auto"
        self.misses = 0
        self.passes = 0
        self.adjoint_passes = 0
        self.residual = self.adjoint_residual = float("nan")
        self.correction = 0.0
        self.graph: Graph | None = None
        self.statistics = CalculatorStatistics()
        self._failed = (0, 0)  # passes of attempts at the last structure

    def choose(self, graph: Graph) -> None:
        """Decide about the passes and the memory for a trajectory from `graph` now.

        The first evaluation does it otherwise; later there is nothing to decide.

        **Raises** `ValueError` if `joint` has too few passes for this network.
        """
        if isinstance(self._asked, Joint):
            self.warm_start = memory_for(self._asked, self.potential, graph)
        elif self._asked is not None:
            found = reversible_passes(self.potential, graph)
            if found is not None:
                self.joint, self.warm_start = found
        self._asked = None

    def evaluate(self, graph: Graph, *, stress: bool = False) -> Prediction:
        """Energy, forces and, if asked for, stress of `graph`, one structure on the potential's device.

        **Raises** `UnconvergedError`; `NonFiniteError`; what `choose` and the potential
        raise. Nothing is remembered then.
        """
        try:
            self.choose(graph)
            if self.compile and not self.potential.compiled:
                self._compile(graph)
            prediction, warm, retried = self._solve(graph, stress)
            _check_finite(prediction)
        except BaseException:
            self.forget("the last calculation failed")
            raise
        if self.warm_start is not None:
            self.warm_start.remember(graph, prediction.equilibrium)
        if self.misses >= PATIENCE and self._may_give_up:
            warnings.warn(
                f"residuals were above {self.joint.max_residual:g} after {self.joint.passes} joint passes in {self.misses} "
                "steps in a row: every step is solved to the tolerance from now on",
                RuntimeWarning,
                stacklevel=2,
            )
            self._give_up()
        self.graph = graph
        self._count(prediction, warm, retried)
        return prediction

    def forget(self, reason: str) -> None:
        """What comes next does not go on from here."""
        if self.warm_start is not None:
            self.warm_start.forget(reason)

    def cold_passes(self) -> tuple[int, int]:
        """Passes (equilibrium, adjoint) that the last structure takes from nothing.

        Solves again and leaves no trace: for comparing warm with cold.

        **Raises** `ValueError` if nothing has been calculated yet.
        """
        if self.graph is None:
            raise ValueError(
                "cold_passes repeats the last calculation, and there was none; call "
                "atoms.get_forces() first"
            )
        prediction = self.potential(self.graph, unconverged="accept")
        return _passes(prediction.equilibrium)

    def state(self) -> dict[str, np.ndarray]:
        """Memory and last structure's numbers as arrays, for the checkpoint of a trajectory."""
        state: dict[str, np.ndarray] = {}
        if self.warm_start is not None:
            for name, array in self.warm_start.state().items():
                state[f"warm_start.{name}"] = array
        for name in (*STATE, "misses"):
            state[name] = np.asarray(getattr(self, name))
        return state

    def restore(self, graph: Graph, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state`, taken when `graph` was evaluated last.

        What follows is bit for bit what would have followed there (on a CPU).

        **Raises** `ValueError` if `state` is not one of an evaluator.
        """
        missing = [name for name in STATE if name not in state]
        if missing:
            raise ValueError(
                f"a calculator state must hold {', '.join(STATE)}, received one "
                f"without {', '.join(missing)}"
            )
        self.choose(graph)
        self.misses = int(state.get("misses", 0))  # not in those of 0.2
        if self.misses >= PATIENCE and self._may_give_up:
            self._give_up()
        if self.warm_start is not None:
            memory = {
                name.removeprefix("warm_start."): array
                for name, array in state.items()
                if name.startswith("warm_start.")
            }
            self.warm_start.restore(memory, device=self.potential.device)
        self.passes, self.adjoint_passes = int(state["passes"]), int(state["adjoint_passes"])
        for name in ("residual", "adjoint_residual", "correction"):
            setattr(self, name, float(state[name]))
        self.graph = graph

    def _give_up(self) -> None:
        self.joint, self.warm_start, self._may_give_up = None, WarmStart(), False

    def _compile(self, graph: Graph) -> None:
        try:
            self.potential.compile(graph, joint=self.joint)
        except CompilationError as error:
            self.compile = False  # once is enough
            warnings.warn(f"going on without: {error}", RuntimeWarning, stacklevel=3)

    def _solve(self, graph: Graph, stress: bool) -> tuple[Prediction, bool, bool]:
        self._failed = (0, 0)
        if self.history_free is not None:
            return self.potential(graph, stress=stress, unrolled=self.history_free), False, False
        start = None if self.warm_start is None else self.warm_start.start(graph)
        if start is not None:
            try:
                # What to do about a structure that does not converge is only asked
                # once it is known that the guess was not to blame.
                return self._solve_from(start, graph, stress), True, False
            except UnconvergedError as error:
                self._spent(error.solution)
                self.forget("a solve from a guess did not converge")
        prediction = self.potential(graph, stress=stress, unconverged=self.unconverged)
        return prediction, False, start is not None

    def _solve_from(self, start: Start, graph: Graph, stress: bool) -> Prediction:
        # Where a guess is made later, of the descriptor, its memory is one of adjoints too.
        complete = callable(start) or start.adjoint is not None
        if self.joint is not None and complete and self.warm_start.full:
            count = self.statistics
            try:
                prediction = self.potential(graph, start=start, joint=self.joint, stress=stress)
                self.misses = 0
                self.statistics = replace(count, joint_calls=count.joint_calls + 1)
                return prediction
            except UnconvergedError as error:
                self._spent(error.solution)
                self.statistics = replace(count, joint_retries=count.joint_retries + 1)
                self.misses += 1
        return self.potential(graph, start=start, stress=stress, unconverged="error")

    def _spent(self, solution: Solution) -> None:
        """Count the passes of an attempt that led nowhere."""
        self._failed = tuple(map(sum, zip(self._failed, _passes(solution), strict=True)))

    def _count(self, prediction: Prediction, warm: bool, retried: bool) -> None:
        found = _passes(prediction.equilibrium)
        self.passes, self.adjoint_passes = map(sum, zip(found, self._failed, strict=True))
        equilibrium = prediction.equilibrium
        self.residual = self.adjoint_residual = float("nan")
        self.correction = 0.0
        if equilibrium is not None:
            self.residual = float(equilibrium.residual.max())
        if prediction.correction is not None:
            self.adjoint_residual = float(equilibrium.adjoint_residual.max())
            self.correction = float(prediction.correction.sum())
        before = self.statistics
        self.statistics = replace(
            before,
            calls=before.calls + 1,
            passes=before.passes + self.passes,
            adjoint_passes=before.adjoint_passes + self.adjoint_passes,
            warm_calls=before.warm_calls + warm,
            cold_retries=before.cold_retries + retried,
        )


def _passes(equilibrium: Solution | None) -> tuple[int, int]:
    if equilibrium is None:
        return 0, 0
    adjoint = equilibrium.adjoint_passes
    return int(equilibrium.passes.sum()), 0 if adjoint is None else int(adjoint.sum())


def _check_finite(prediction: Prediction) -> None:
    broken = [
        name
        for name in ("energy", "forces", "stress")
        if (found := getattr(prediction, name)) is not None
        and not bool(torch.isfinite(found).all())
    ]
    if broken:
        raise NonFiniteError(
            f"energy, forces and stress must be finite, but the potential returned NaN "
            f"or infinity in {', '.join(broken)}; the structure is probably far outside "
            f"what it was trained on"
        )
